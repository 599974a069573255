"""From examples to a packed micro-batch: text first, then what is seen, sequence after sequence.

Shape suffixes: as in `vlprep.pretrain.base`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlprep.pretrain.base import ClipInput, Inputs, RegionInput, RegionSample, TextInput, VisualTokenInput

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One sequence as the model will see it, special tokens and masks in place."""

    text_ids_P: Ints
    text_types_P: Ints | None = None
    """None: all 0."""
    regions: RegionSample | None = None
    masked_R: NDArray[np.bool_] | None = None
    """None: no region is masked."""
    visual_ids_V: Ints | None = None
    clips_CD: NDArray[np.float16] | NDArray[np.float32] | None = None
    """Features of clips."""
    masked_C: NDArray[np.bool_] | None = None
    """None: no clip is masked."""
    ends_with: Ints | None = None
    """Text pieces after what is seen (VideoBERT's final [SEP], VLP's caption)."""
    ends_with_types: Ints | None = None
    """None: all 1."""
    seen_type: int = 1
    """Token type of what is seen."""
    prefix: int | None = None
    """Tokens that all see, those after them seeing backwards only; None: all see all."""

    @property
    def num_text(self) -> int:
        return len(self.text_ids_P)

    @property
    def num_visual(self) -> int:
        if self.regions is not None:
            return len(self.regions.features_RD)
        if self.clips_CD is not None:
            return len(self.clips_CD)
        return 0 if self.visual_ids_V is None else len(self.visual_ids_V)

    @property
    def length(self) -> int:
        return self.num_text + self.num_visual + (0 if self.ends_with is None else len(self.ends_with))


def pack(examples: Sequence[Example], *, distributions: bool = False) -> Inputs:
    """Lay the examples end to end; with the regions' class distributions and confidences where these are an input."""
    lengths_B = np.array([example.length for example in examples], np.int64)
    starts_B = np.concatenate([[0], np.cumsum(lengths_B)[:-1]])
    return Inputs(
        lengths_B=torch.from_numpy(lengths_B),
        text=_pack_text(examples, starts_B),
        regions=_pack_regions(examples, starts_B, distributions),
        visual_tokens=_pack_visual_tokens(examples, starts_B),
        clips=_pack_clips(examples, starts_B),
        prefix_B=_prefixes(examples),
    )


def text_slots(examples: Sequence[Example], positions: Sequence[Ints]) -> Tensor:
    """Slots of text positions (0 is [CLS]), given per example."""
    return _slots(examples, positions, lambda example: 0)


def visual_slots(examples: Sequence[Example], rows: Sequence[Ints]) -> Tensor:
    """Slots of regions, visual tokens or clips (0 is the first), given per example."""
    return _slots(examples, rows, lambda example: example.num_text)


def ending_slots(examples: Sequence[Example], positions: Sequence[Ints]) -> Tensor:
    """Slots of places in `ends_with`, given per example."""
    return _slots(examples, positions, lambda example: example.num_text + example.num_visual)


def text_rows(examples: Sequence[Example], positions: Sequence[Ints]) -> Tensor:
    """Rows of text positions among the texts alone, as a text stream has them."""
    return _rows([example.num_text for example in examples], positions)


def region_rows(examples: Sequence[Example], rows: Sequence[Ints]) -> Tensor:
    """Rows of regions (clips) among all regions (clips), as a stream of these has them."""
    return _rows([example.num_visual for example in examples], rows)


def _rows(counts: Sequence[int], places: Sequence[Ints]) -> Tensor:
    starts = np.cumsum([0, *counts[:-1]])
    return join([start + place for start, place in zip(starts, places, strict=True)])


def _slots(examples: Sequence[Example], places: Sequence[Ints], offset) -> Tensor:  # type: ignore[no-untyped-def]
    starts = np.cumsum([0] + [example.length for example in examples])
    found = [start + offset(example) + place for start, example, place in zip(starts, examples, places, strict=False)]
    return torch.from_numpy(np.concatenate(found).astype(np.int64))


def _pack_text(examples: Sequence[Example], starts_B: Ints) -> TextInput | None:
    ids, positions, types, slots = [], [], [], []
    for example, start in zip(examples, starts_B, strict=True):
        places = np.arange(example.num_text)
        ids.append(example.text_ids_P)
        positions.append(places)
        types.append(np.zeros_like(places) if example.text_types_P is None else example.text_types_P)
        slots.append(start + places)
        if example.ends_with is not None:
            places = example.num_text + example.num_visual + np.arange(len(example.ends_with))
            ids.append(example.ends_with)
            positions.append(places)
            types.append(np.ones_like(places) if example.ends_with_types is None else example.ends_with_types)
            slots.append(start + places)
    return TextInput(
        lengths_B=torch.tensor([example.length - example.num_visual for example in examples]),
        ids_P=join(ids),
        positions_P=join(positions),
        types_P=join(types),
        slots_P=join(slots),
    )


def _prefixes(examples: Sequence[Example]) -> Tensor | None:
    if all(example.prefix is None for example in examples):
        return None
    return torch.tensor([example.length if example.prefix is None else example.prefix for example in examples])


def _pack_regions(examples: Sequence[Example], starts_B: Ints, distributions: bool) -> RegionInput | None:
    seen = [
        (example.regions, example, start)
        for example, start in zip(examples, starts_B, strict=True)
        if example.regions is not None
    ]
    if not seen:
        return None
    masked = [
        np.zeros(example.num_visual, np.bool_) if example.masked_R is None else example.masked_R
        for _, example, _ in seen
    ]
    return RegionInput(
        lengths_B=torch.tensor([0 if example.regions is None else example.num_visual for example in examples]),
        features_RD=torch.from_numpy(np.concatenate([regions.features_RD for regions, _, _ in seen])),
        boxes_R4=torch.from_numpy(np.concatenate([regions.boxes_R4 for regions, _, _ in seen])),
        masked_R=torch.from_numpy(np.concatenate(masked)),
        slots_R=join([start + example.num_text + np.arange(example.num_visual) for _, example, start in seen]),
        types_R=join([np.full(example.num_visual, example.seen_type) for _, example, _ in seen]),
        distributions_RW=_floats([regions.distributions() for regions, _, _ in seen]) if distributions else None,
        confidence_R=_floats([regions.confidences() for regions, _, _ in seen]) if distributions else None,
    )


def _pack_visual_tokens(examples: Sequence[Example], starts_B: Ints) -> VisualTokenInput | None:
    seen = [
        (example.visual_ids_V, example, start)
        for example, start in zip(examples, starts_B, strict=True)
        if example.visual_ids_V is not None
    ]
    if not seen:
        return None
    places = [example.num_text + np.arange(example.num_visual) for _, example, _ in seen]
    return VisualTokenInput(
        ids_V=join([ids for ids, _, _ in seen]),
        positions_V=join(places),
        slots_V=join([start + place for (_, _, start), place in zip(seen, places, strict=True)]),
    )


def _pack_clips(examples: Sequence[Example], starts_B: Ints) -> ClipInput | None:
    seen = [
        (example.clips_CD, example, start)
        for example, start in zip(examples, starts_B, strict=True)
        if example.clips_CD is not None
    ]
    if not seen:
        return None
    places = [np.arange(example.num_visual) for _, example, _ in seen]
    masked = [
        np.zeros(example.num_visual, np.bool_) if example.masked_C is None else example.masked_C
        for _, example, _ in seen
    ]
    return ClipInput(
        lengths_B=torch.tensor([0 if example.clips_CD is None else example.num_visual for example in examples]),
        features_CD=torch.from_numpy(np.concatenate([clips for clips, _, _ in seen])),
        positions_C=join(places),
        masked_C=torch.from_numpy(np.concatenate(masked)),
        slots_C=join(
            [start + example.num_text + place for (_, example, start), place in zip(seen, places, strict=True)]
        ),
    )


def _floats(parts: list[NDArray[np.float32]]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts))


def join(parts: list[Ints]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64, copy=False))
