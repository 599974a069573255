"""The transformer encoder of BERT (Devlin et al. 2019), on packed sequences and with Hugging Face's parameter names.

The names make published checkpoints load key for key: `layer.0.attention.self.query.weight`, and so on. Post-norm,
exact (erf) GELU, LayerNorm eps 1e-12 unless a system says otherwise (VLP: 1e-5).

Shape suffixes: T packed tokens, H hidden size, S packed tokens of the stream that is looked at, A size of all heads
together, N heads, E size of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from vlprep.errors import SettingsError
from vlprep.pretrain.attention import Layout, attend


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """Sizes of a BERT encoder; the defaults are bert-base's."""

    layers: int = 12
    hidden: int = 768
    heads: int = 12
    intermediate: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise SettingsError(f"model hidden={self.hidden} is not divisible by heads={self.heads}")


class Encoder(nn.Module):
    """A stack of layers: (T, H) to (T, H)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))

    def forward(self, hidden_TH: Tensor, layout: Layout) -> Tensor:
        for layer in self.layer:
            hidden_TH = layer(hidden_TH, layout)
        return hidden_TH


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with a residual connection and a LayerNorm after it."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Widening(config)
        self.output = Residual(config.intermediate, config)

    def forward(self, hidden_TH: Tensor, layout: Layout) -> Tensor:
        hidden_TH = self.attention(hidden_TH, layout)
        output_TH: Tensor = self.output(self.intermediate(hidden_TH), hidden_TH)
        return output_TH


class Attention(nn.Module):
    """Multi-head attention with its output layer: on the own stream, or on that of a `context`.

    `projections` is what a checkpoint calls the module of query, key and value: `self` in BERT, `att` in LXMERT.
    """

    def __init__(self, config: EncoderConfig, *, projections: str = "self") -> None:
        super().__init__()
        self.heads, self.dropout, self.projections = config.heads, config.attention_dropout, projections
        names = ("query", "key", "value")
        self.add_module(projections, nn.ModuleDict({name: nn.Linear(config.hidden, config.hidden) for name in names}))
        self.output = Residual(config.hidden, config)

    def forward(
        self, hidden_TH: Tensor, layout: Layout, context_SH: Tensor | None = None, context: Layout | None = None
    ) -> Tensor:
        """(T, H). Without `context_SH` the stream attends to itself."""
        projections = self.get_submodule(self.projections)
        query, key, value = (projections.get_submodule(name) for name in ("query", "key", "value"))
        looked_at = hidden_TH if context_SH is None else context_SH
        attended_TA = attend(
            heads(query(hidden_TH), self.heads),
            heads(key(looked_at), self.heads),
            heads(value(looked_at), self.heads),
            layout,
            self.dropout if self.training else 0.0,
            context,
        ).flatten(1)
        output_TH: Tensor = self.output(attended_TA, hidden_TH)
        return output_TH


def heads(projected_TA: Tensor, count: int) -> Tensor:
    """(T, N, E): what each head has of a projection."""
    return projected_TA.view(len(projected_TA), count, -1)


class Widening(nn.Module):
    """The first half of a feed-forward: GELU(Linear); `Residual` is the second."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden, config.intermediate)

    def forward(self, hidden_TH: Tensor) -> Tensor:
        return F.gelu(self.dense(hidden_TH))


class Residual(nn.Module):
    """LayerNorm(residual + dropout(Linear(x)))."""

    def __init__(self, size: int, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(size, config.hidden)
        self.LayerNorm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, residual_TH: Tensor) -> Tensor:
        output_TH: Tensor = self.LayerNorm(residual_TH + self.dropout(self.dense(hidden)))
        return output_TH
