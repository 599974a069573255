"""HERO's frame-order modelling (linjieli222/HERO data/fom.py:95-118, model/model.py:298-337): `frame-order`.

    mean over moved places of -log softmax(head(h_place))[the clip's own place]

15 % of the clips, each drawn by itself, are shuffled among themselves after the cross-modal transformer and before
the temporal one. A place whose clip came back to it is a target too, as published.

Deviations: at least two clips are drawn (with fewer the published loss is NaN or nothing moves); of a video longer than
the model's places, consecutive segments from a random one are read, where HERO's data base has cut it beforehand.

Shape suffixes: F clips of whole videos, C clips in segments, M targets, D feature size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from vlprep.pretrain.base import Loss, MicroBatch, NarratedVideo, Sample
from vlprep.pretrain.masking import Ints
from vlprep.pretrain.models.hero import Hero, Told
from vlprep.pretrain.narration import clips_in
from vlprep.pretrain.objectives.told_clips import Features, SegmentRule
from vlprep.pretrain.packing import Example, join, pack

RATE = 0.15


@dataclass(frozen=True, slots=True)
class OrderTargets:
    told: Told
    order_F: Tensor
    rows_M: Tensor
    """Places, among those of all videos."""
    places_M: Tensor
    """Where the clips there belong, in their own video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shuffled:
    clips_FD: Features
    segments: list[Example]
    rows_C: Ints
    order_F: Ints
    moved_M: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameOrder:
    """`frame-order`."""

    rule: SegmentRule
    name: str = "frame-order"

    def needs(self) -> frozenset[str]:
        return frozenset({"text", "video"})

    def example(self, sample: Sample, draw: np.random.Generator, other: Sample | None = None) -> _Shuffled:
        assert sample.video is not None
        video, spans_N2 = sample.video, sample.video.spans_N2
        first = int(draw.integers(len(spans_N2)))
        pieces = self._from(video, first)
        begin = pieces[0][1].start
        end = max(clips.stop for _, clips in pieces)
        moved_M, order_F = shuffle(end - begin, draw)
        return _Shuffled(
            clips_FD=video.features_CD[0][begin:end],
            segments=[
                self.rule.sequence(video.texts[number].astype(np.int64), video.features_CD[0][clips])
                for number, clips in pieces
            ],
            rows_C=np.concatenate([np.arange(clips.start, clips.stop) - begin for _, clips in pieces]),
            order_F=order_F,
            moved_M=moved_M,
        )

    def _from(self, video: NarratedVideo, first: int) -> list[tuple[int, slice]]:
        """Segments from this one on, with their clips, as far as the model has places."""
        found: list[tuple[int, slice]] = []
        for number in range(first, len(video.spans_N2)):
            start, end = video.spans_N2[number].tolist()
            clips = clips_in(video.times_C2[0], start, end)
            begin = found[0][1].start if found else clips.start
            if clips.stop - begin > self.rule.settings.max_clips:
                if not found:  # one that is longer by itself
                    return [(number, slice(begin, begin + self.rule.settings.max_clips))]
                break
            found.append((number, clips))
        return found

    def collate(self, examples: list[_Shuffled]) -> MicroBatch:
        videos = pack([Example(text_ids_P=np.empty(0, np.int64), clips_CD=example.clips_FD) for example in examples])
        segments = pack([segment for example in examples for segment in example.segments])
        starts = np.cumsum([0] + [len(example.clips_FD) for example in examples])[:-1]
        placed = list(zip(starts, examples, strict=True))
        targets = OrderTargets(
            told=Told(segments, join([start + example.rows_C for start, example in placed])),
            order_F=join([start + example.order_F for start, example in placed]),
            rows_M=join([start + example.moved_M for start, example in placed]),
            places_M=join([example.order_F[example.moved_M] for example in examples]),
        )
        return MicroBatch(
            objective=self.name,
            inputs=videos,
            targets=targets,
            count=len(targets.rows_M),
            real_tokens=int(videos.lengths_B.sum() + segments.lengths_B.sum()),
        )

    def loss(self, model: Hero, batch: MicroBatch) -> Loss:
        targets: OrderTargets = batch.targets
        states_FH = model.encode(batch.inputs, targets.told, targets.order_F)
        logits_MP, places_M = model.order_logits(states_FH[targets.rows_M]).float(), targets.places_M
        return Loss(
            F.cross_entropy(logits_MP, places_M, reduction="sum"),
            {"accuracy": (logits_MP.argmax(1) == places_M).sum()},
        )


def shuffle(count: int, draw: np.random.Generator) -> tuple[Ints, Ints]:
    """The places that are shuffled, and for every place the clip that stands there."""
    moved_M = np.flatnonzero(draw.random(count) < RATE)
    if len(moved_M) < 2:
        moved_M = np.sort(draw.permutation(count)[:2])
    order_F = np.arange(count)
    order_F[moved_M] = draw.permutation(moved_M)
    return moved_M, order_F
