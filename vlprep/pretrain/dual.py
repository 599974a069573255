"""Dual encoders: texts and clips embedded apart, compared by their dot product.

What `vlprep evaluate retrieval` and `vlprep embed` need of a system, whatever its inputs:

    objective.text(ids)             -> example -> objective.collate_texts -> model.embed_text  -> (N, D)
    objective.clip(video, (0, 5.0)) -> example -> objective.collate_clips -> model.embed_video -> (N, D)

Examples are NumPy, made without any draw; what is collated is a (nested) frozen dataclass of CPU tensors, which
`base.to_device` moves.

Shape suffixes: N texts or clips, D size of the joint space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vlprep.pretrain.base import NarratedVideo, Objective, Sample
from vlprep.pretrain.narration import Span


@runtime_checkable
class DualEncoder(Protocol):
    """A model with a joint space; higher dot products are better matches."""

    def embed_text(self, texts: Any) -> Tensor:
        """(N, D) of what `collate_texts` made."""

    def embed_video(self, clips: Any) -> Tensor:
        """(N, D) of what `collate_clips` made."""


@runtime_checkable
class DualObjective(Objective, Protocol):
    """An objective that trains a `DualEncoder`."""

    def text(self, ids: NDArray[np.int32]) -> Any:
        """One text, of its piece or word ids without special tokens."""

    def clip(self, video: NarratedVideo, span: Span) -> Any:
        """What is seen of a video in the span, seconds; every feature store has a clip there."""

    def collate_texts(self, texts: Sequence[Any]) -> Any: ...

    def collate_clips(self, clips: Sequence[Any]) -> Any: ...


def by_segment(sample: Sample) -> list[Sample]:
    """A narrated video as one sample a segment, each with this segment alone; anything else as it is."""
    video = sample.video
    if video is None:
        return [sample]
    return [
        replace(sample, video=replace(video, spans_N2=video.spans_N2[number : number + 1], texts=(text,)))
        for number, text in enumerate(video.texts)
    ]


def narrated_clips(sample: Sample) -> list[tuple[NDArray[np.int32], Span]]:
    """The segments of a video: ids of what is said, and when. Each makes a pair for retrieval as YouCook2's are made:
    no segment is widened."""
    assert sample.video is not None  # `Objective.needs` has asked for it
    spans = [(start, end) for start, end in sample.video.spans_N2.tolist()]
    return list(zip(sample.video.texts, spans, strict=True))
