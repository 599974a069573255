"""The seams of pretraining: what the data side hands to models and objectives, and what these hand to the trainer.

    corpus -> Sample -> objective.example -> Example -> objective.collate -> MicroBatch -> objective.loss -> Loss

Sequences are *packed*: the tokens of a micro-batch lie end to end without padding, and each input says in which `slots`
of the packed sequence its rows stand. Only attention ever sees a padded view (`vlprep.pretrain.attention`).

Shape suffixes: T packed tokens of a micro-batch, B sequences, P text pieces, R regions or V visual tokens in the batch,
C clips, M targets (masked positions), D feature size, K foreground classes, H hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# --- from the stores -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionSample:
    """The regions of one image, views into the store's memory map, already cut to the number the recipe wants."""

    features_RD: NDArray[np.float16] | NDArray[np.float32]
    boxes_R4: NDArray[np.float32]
    """x1, y1, x2, y2 divided by the image's width and height."""
    object_ids_R: NDArray[np.uint16]
    """The detector's most probable foreground class."""
    class_probs_RK: NDArray[np.float16] | NDArray[np.float32] | None = None
    """Over the foreground classes; None, as `background_R` is, where the store has not the whole distribution."""
    background_R: NDArray[np.float16] | NDArray[np.float32] | None = None
    confidence_R: NDArray[np.float16] | NDArray[np.float32] | None = None
    """The probability of `object_ids_R`, for where there is no `class_probs_RK`."""
    attribute_probs_RA: NDArray[np.float16] | NDArray[np.float32] | None = None
    """None where the store has no attributes."""

    def distributions(self) -> NDArray[np.float32]:
        """(R, 1 + K): background, then the classes, as every published head has them."""
        assert self.background_R is not None  # `Objective.needs` has asked for class_probs
        assert self.class_probs_RK is not None
        background_R1 = self.background_R[:, None].astype(np.float32)
        return np.concatenate([background_R1, self.class_probs_RK.astype(np.float32)], axis=1)

    def confidences(self) -> NDArray[np.float32]:
        """(R,) the detector's probability of `object_ids_R`, as LXMERT's and VLP's features have it.

        Not a store's `max_conf`: the `caffe` rule takes that after its NMS, of another class where the likeliest one
        was suppressed, or of none.
        """
        if self.class_probs_RK is not None:
            return self.class_probs_RK[np.arange(len(self.object_ids_R)), self.object_ids_R].astype(np.float32)
        assert self.confidence_R is not None  # every store has one of the two
        return self.confidence_R.astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class NarratedVideo:
    """A video with its narration, what the contrastive systems draw their pairs from. Arrays are views into the stores.

    C clips of a feature store, D its feature size, N segments of narration in the order of their start.
    """

    features_CD: tuple[NDArray[np.float16] | NDArray[np.float32], ...]
    """One array a feature store, in the order of `data.features`."""
    times_C2: tuple[NDArray[np.float64], ...]
    """Start and end of each clip in seconds, one array a feature store."""
    spans_N2: NDArray[np.float32]
    """Start and end of each segment in seconds."""
    texts: tuple[NDArray[np.int32], ...]
    """(N) piece or word ids of each segment, without special tokens."""
    file: Path | None = None
    """Where its frames are, for the systems that decode clips themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """What the model's sizes follow from; the same in all datasets of a run. 0: there are none."""

    region_dim: int = 0
    num_classes: int = 0
    """Foreground classes."""
    num_attributes: int = 0
    visual_vocabulary: int = 0
    centroid_dim: int = 0
    """Of the visual vocabulary, where its file lies beside the tokens."""
    clip_dims: tuple[int, ...] = ()
    """Of the feature stores that `data.features` names, in that order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One text with what belongs to it; either may be absent (VideoBERT's text-only and video-only regimes)."""

    key: int
    """Stable number of the sample in the corpus: the seed of its masks."""
    text_ids: NDArray[np.int32] | None = None
    """Pieces without special tokens."""
    regions: RegionSample | None = None
    answers: Mapping[str, float] = field(default_factory=dict)
    """Where the text is a question: how right each answer is."""
    visual_tokens: NDArray[np.uint16] | None = None
    video: NarratedVideo | None = None


# --- to the models ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TextInput:
    """All int64, on the model's device, except `lengths_B`."""

    lengths_B: Tensor
    """Pieces of each sequence; on the CPU. With it the text can also be encoded as a stream of its own."""
    ids_P: Tensor
    positions_P: Tensor
    types_P: Tensor
    slots_P: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionInput:
    lengths_B: Tensor
    """Regions of each sequence; on the CPU."""
    features_RD: Tensor
    """As stored (float16 or float32); rows that are masked still hold their features, `masked_R` hides them."""
    boxes_R4: Tensor
    """Normalised x1, y1, x2, y2; each model derives its own geometry (7-d UNITER, 5-d ViLBERT, 4-d LXMERT)."""
    masked_R: Tensor
    """bool."""
    slots_R: Tensor
    types_R: Tensor
    """int64 token type; models that know no choice have one of their own."""
    distributions_RW: Tensor | None = None
    """Background and classes, where they are an input (VLP)."""
    confidence_R: Tensor | None = None

    def visible_features(self, dtype: torch.dtype) -> Tensor:
        """(R, D) with zeros for masked regions: what every system but UNITER shows the model."""
        return self.features_RD.to(dtype).masked_fill(self.masked_R[:, None], 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualTokenInput:
    ids_V: Tensor
    """0 ... size of the vocabulary - 1, or `size` for a masked token."""
    positions_V: Tensor
    slots_V: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipInput:
    """Clips with their continuous features."""

    lengths_B: Tensor
    """Clips of each sequence; on the CPU."""
    features_CD: Tensor
    """As stored; those that are masked still hold theirs, `masked_C` hides them."""
    positions_C: Tensor
    """int64: 0 is the first clip of its sequence."""
    masked_C: Tensor
    """bool."""
    slots_C: Tensor

    def visible_features(self, dtype: torch.dtype) -> Tensor:
        """(C, D) with zeros for masked clips."""
        return self.features_CD.to(dtype).masked_fill(self.masked_C[:, None], 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A packed micro-batch. Sequence b occupies slots `sum(lengths_B[:b])` to `sum(lengths_B[:b + 1])`."""

    lengths_B: Tensor
    """int64, always on the CPU: attention plans its layout from it without waiting for the device."""
    text: TextInput | None = None
    regions: RegionInput | None = None
    visual_tokens: VisualTokenInput | None = None
    clips: ClipInput | None = None
    prefix_B: Tensor | None = None
    """int64: tokens of a sequence that all others of it see; what comes after them sees backwards only (see
    `attention.prefix_mask`). None: everybody sees everybody.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """What one forward and backward pass takes."""

    objective: str
    inputs: Inputs
    targets: Any
    """The objective's own frozen dataclass of tensors."""
    count: float
    """What the objective's sum is to be divided by; known here, so that ranks add theirs up before the first
    forward.
    """
    real_tokens: int
    term_counts: Mapping[str, float] = field(default_factory=dict)
    """The same for each of `Loss.terms`."""
    left_out: int = 0
    """Samples that were to be in it and whose files turned out to be of no use."""

    @property
    def counts(self) -> dict[str, float]:
        """All counts by term, the objective's own under the empty name."""
        return {"": self.count, **self.term_counts}


@dataclass(frozen=True, slots=True)
class Loss:
    """Sums over the micro-batch; the trainer divides by the counts over all micro-batches and ranks."""

    sum: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    """Sums to be reported beside it, such as `itm`, `wra`, `accuracy`; `mlm accuracy` has the count of term `mlm`."""
    terms: dict[str, Tensor] = field(default_factory=dict)
    """Sums of further terms with counts of their own, where a system trains several at once (LXMERT, ViLBERT, …): the
    loss is `sum / count` and the sum of all `term / count`.
    """

    def mean(self, counts: Mapping[str, float]) -> Tensor:
        """This micro-batch's share of the loss, given the counts of all that belong to the step."""
        total = self.sum / counts[""]
        for name, term in self.terms.items():
            total = total + term / max(counts[name], 1)  # where nothing at all was masked, the sum is 0 too
        return total


def count_of(part: str, counts: Mapping[str, float]) -> float:
    """What a term or part is divided by."""
    return max(counts.get(part.partition(" ")[0], counts[""]), 1)


class Objective(Protocol):
    """One pretraining task: how examples are made (NumPy, in loader processes) and what they cost (torch)."""

    @property
    def name(self) -> str: ...

    def needs(self) -> frozenset[str]:
        """Of `text`, `regions`, `class_probs`, `visual_tokens`, `video`, `words`, `frames`: what a sample must have.
        `video` is `Sample.video`, narration included; with `words` its ids are rows of a table of word vectors, with
        `frames` it has its file and no features.
        """

    def example(self, sample: Sample, draw: np.random.Generator, other: Sample | None) -> Any:
        """Mask one sample. `draw` is a pure function of (seed, epoch, sample.key, name); `other` is a sample of another
        item for objectives that pair (`itm`, `align`), None for the rest. A sample whose file turns out to be of no use
        raises `ItemError`; it is left out and counted."""

    def collate(self, examples: list[Any]) -> MicroBatch:
        """Pack examples; CPU tensors."""

    def loss(self, model: Any, batch: MicroBatch) -> Loss:
        """The sum over the batch, with the model's heads. Called under the trainer's autocast."""


@runtime_checkable
class Matcher(Objective, Protocol):
    """What an objective has that tells matching pairs: `vlprep evaluate` ranks by it."""

    def pair(self, text: Sample, seen: Sample) -> Any:
        """The text of one sample with what another shows, nothing masked; `packing.pack` takes it."""

    def scores(self, model: Any, inputs: Inputs) -> Tensor:
        """(B,) how much more a match than not."""


@runtime_checkable
class LooksAtRegions(Protocol):
    """A model whose input of regions may begin centred on their mean (`model.centre_regions`)."""

    def centre_regions(self, mean_D: Tensor) -> None: ...


def to_device(value: Any, device: torch.device) -> Any:
    """A copy of a (nested) frozen dataclass with its tensors on `device`, except `lengths_B`, which stays on the
    CPU.
    """
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if hasattr(value, "__dataclass_fields__"):
        moved = {
            name: getattr(value, name) if name == "lengths_B" else to_device(getattr(value, name), device)
            for name in value.__dataclass_fields__
        }
        return type(value)(**moved)
    return value
