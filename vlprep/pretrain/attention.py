"""Attention over packed sequences: the one place that knows how they are laid out for a kernel.

A `Layout` says where the sequences lie. Where a stream looks at another, both have one.

- `padded`: scaled_dot_product_attention on a padded view. The reference; runs everywhere, takes any mask.
- `jagged`: the same kernel on nested tensors; no padding is computed.
- `varlen`: torch's variable-length flash kernel; CUDA, bf16 or fp16, without dropout.

All give the same numbers to rounding. At the lengths of captions and regions (40 to 160) attention is a small share of
the work; what counts is that everything *else* runs on packed tokens.

Shape suffixes: T packed tokens, S those of the keys' stream, B sequences, L longest sequence, N heads, E size of a
head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vlprep.errors import SettingsError

Backend = Literal["padded", "jagged", "varlen"]


@dataclass(frozen=True)
class Layout:
    """Where the packed sequences of a micro-batch begin and end; built once, used by every layer."""

    lengths_B: Tensor
    """int64, on the CPU."""
    device: torch.device
    backend: Backend = "padded"
    mask_BLL: Tensor | None = None
    """bool, True where the query (row) may see the key (column); None: every token of the sequence. Padded backend
    only.
    """

    @cached_property
    def longest(self) -> int:
        return int(self.lengths_B.max())

    @cached_property
    def bounds(self) -> Tensor:
        """(B + 1,) int32 on the device: where sequences begin, and the end."""
        bounds = F.pad(self.lengths_B.cumsum(0), (1, 0)).to(torch.int32)
        return bounds.to(self.device, non_blocking=True)

    @cached_property
    def padded_slots_T(self) -> Tensor:
        """For each packed token its row in the padded (B * L) view."""
        rows_BL = torch.arange(len(self.lengths_B) * self.longest).view(-1, self.longest)
        return rows_BL[self._real_BL].to(self.device, non_blocking=True)

    @cached_property
    def full(self) -> bool:
        """Whether all sequences are of one length, so that nothing is padded."""
        return bool(self._real_BL.all())

    @cached_property
    def visible(self) -> Tensor | None:
        """The mask for the padded kernel, (B, 1, 1 or L, L); None where nothing is padded and everything is seen."""
        if self.mask_BLL is not None:
            return self.mask_BLL[:, None]
        if self.full:
            return None
        return self._real_BL[:, None, None].to(self.device, non_blocking=True)

    @cached_property
    def _real_BL(self) -> Tensor:
        return torch.arange(self.longest)[None, :] < self.lengths_B[:, None]


def prefix_mask(lengths_B: Tensor, prefix_B: Tensor, longest: int) -> Tensor:
    """(B, L, L) bool for `Layout.mask_BLL`, UniLM's sequence-to-sequence mask (VLP seq2seq_loader.py:291-301).

    Every token sees the first `prefix_B` of its sequence; those after them also what comes before, and themselves.
    """
    place_L = torch.arange(longest, device=prefix_B.device)
    query_L1, key_1L = place_L[:, None], place_L[None]
    backwards_BLL = (key_1L <= query_L1) & (query_L1 < lengths_B[:, None, None])
    return backwards_BLL | (key_1L < prefix_B[:, None, None])


def attend(
    query_TNE: Tensor,
    key_SNE: Tensor,
    value_SNE: Tensor,
    queries: Layout,
    dropout: float,
    keys: Layout | None = None,
) -> Tensor:
    """Softmax attention within each sequence, scaled by 1 / sqrt(E). Returns (T, N, E).

    `keys` is the layout of keys and values where they are of another stream than the queries (None: of the same one,
    S = T); sequence b of one stream looks at sequence b of the other.
    """
    keys = keys or queries
    # the flash kernel takes half precision on a GPU alone; validation and evaluation are in float32
    for_flash = query_TNE.is_cuda and query_TNE.dtype in (torch.float16, torch.bfloat16)
    match queries.backend:
        case "jagged":
            return _jagged(query_TNE, key_SNE, value_SNE, queries, keys, dropout)
        case "varlen" if for_flash:
            return _varlen(query_TNE, key_SNE, value_SNE, queries, keys, dropout)
        case _:
            return _padded(query_TNE, key_SNE, value_SNE, queries, keys, dropout)


def _padded(
    query_TNE: Tensor, key_SNE: Tensor, value_SNE: Tensor, queries: Layout, keys: Layout, dropout: float
) -> Tensor:
    attended_BNLE = F.scaled_dot_product_attention(
        _pad(query_TNE, queries),
        _pad(key_SNE, keys),
        _pad(value_SNE, keys),
        attn_mask=keys.visible,
        dropout_p=dropout,
    )
    rows = attended_BNLE.transpose(1, 2).flatten(0, 1)
    return rows if queries.full else rows.index_select(0, queries.padded_slots_T)


def _pad(packed_TNE: Tensor, layout: Layout) -> Tensor:
    """(B, N, L, E)."""
    shape = (len(layout.lengths_B), layout.longest, *packed_TNE.shape[1:])
    if layout.full:
        return packed_TNE.view(shape).transpose(1, 2)
    rows = packed_TNE.new_zeros(shape[0] * shape[1], *shape[2:]).index_copy(0, layout.padded_slots_T, packed_TNE)
    return rows.view(shape).transpose(1, 2)


def _jagged(
    query_TNE: Tensor, key_SNE: Tensor, value_SNE: Tensor, queries: Layout, keys: Layout, dropout: float
) -> Tensor:
    _refuse_masks(keys)

    def nest(packed_TNE: Tensor, layout: Layout) -> Tensor:
        return torch.nested.nested_tensor_from_jagged(packed_TNE, layout.bounds).transpose(1, 2)

    attended = F.scaled_dot_product_attention(
        nest(query_TNE, queries), nest(key_SNE, keys), nest(value_SNE, keys), dropout_p=dropout
    )
    packed: Tensor = attended.transpose(1, 2).values()
    return packed


def _varlen(
    query_TNE: Tensor, key_SNE: Tensor, value_SNE: Tensor, queries: Layout, keys: Layout, dropout: float
) -> Tensor:
    _refuse_masks(keys)
    if dropout:
        raise SettingsError("attention 'varlen' has no dropout: set model.attention_dropout = 0 or attention 'padded'")
    from torch.nn.attention.varlen import varlen_attn  # two seconds, for torch.compile behind it

    attended = varlen_attn(query_TNE, key_SNE, value_SNE, queries.bounds, keys.bounds, queries.longest, keys.longest)
    assert isinstance(attended, Tensor)  # a pair only where return_aux is asked for
    return attended


def _refuse_masks(layout: Layout) -> None:
    if layout.mask_BLL is not None:
        raise SettingsError(f"attention '{layout.backend}' sees whole sequences only; this model needs 'padded'")
