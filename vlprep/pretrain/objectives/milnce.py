"""MIL-NCE's task, on stored features and end to end (MIL-NCE_HowTo100M@b282b15 video_loader.py, main_distributed.py).

    milnce             a clip of a store of features, projected
    milnce-end-to-end  a clip decoded from its video, through S3D-G

A video gives one clip at a time: a segment of its narration is drawn, stretched to `min_seconds`, and a clip of it; its
candidates are the segment's text and those nearest in time. The loss is `mil_nce`'s; with `gather` the clips of all
processes are negatives of each other, so that several processes are one with their batches together (batch norms
apart), while accumulation does not add to the negatives. Validation gathers nothing.

Deviation on stored features, which were not published: of the clips that overlap the stretched segment one is drawn; in
evaluation their embeddings are averaged.

Shape suffixes: B clips, K candidates a clip, W words (padded), D feature size, J joint size, R rows of clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from vlprep.pretrain.base import Inputs, Loss, MicroBatch, NarratedVideo, Sample
from vlprep.pretrain.clip_reader import ClipReader, ClipSettings
from vlprep.pretrain.models.milnce import MilNce, ShownClips, TextRows
from vlprep.pretrain.narration import Span, clips_in, nearest, stretched
from vlprep.pretrain.objectives.contrastive import Positives, mil_nce
from vlprep.pretrain.settings import ObjectiveSettings

Rows = NDArray[Any]
"""What is shown of a clip: (R, D) features or (R, T, H, W, 3) frames."""


class Showing(Protocol):
    """Where clips come from."""

    def needs(self) -> frozenset[str]:
        """Beside text and video."""

    def drawn(self, video: NarratedVideo, span: Span, draw: np.random.Generator) -> Rows:
        """One clip of the span. Raises ItemError where it cannot be had."""

    def whole(self, video: NarratedVideo, span: Span) -> Rows:
        """The span as evaluation sees it."""


class StoredClips:
    """Of the first feature store; the corpus has made sure that each segment has one."""

    def needs(self) -> frozenset[str]:
        return frozenset()

    def drawn(self, video: NarratedVideo, span: Span, draw: np.random.Generator) -> Rows:
        rows_RD = self.whole(video, span)
        chosen = int(draw.integers(len(rows_RD)))
        return rows_RD[chosen : chosen + 1]

    def whole(self, video: NarratedVideo, span: Span) -> Rows:
        return video.features_CD[0][clips_in(video.times_C2[0], *span)]


@dataclass(frozen=True, slots=True)
class DecodedClips:
    """Of the video's file."""

    reader: ClipReader

    def needs(self) -> frozenset[str]:
        return frozenset({"frames"})

    def drawn(self, video: NarratedVideo, span: Span, draw: np.random.Generator) -> Rows:
        assert video.file is not None  # `needs` has asked for it
        return self.reader.random(video.file, span, draw)

    def whole(self, video: NarratedVideo, span: Span) -> Rows:
        assert video.file is not None
        return self.reader.spread(video.file, span)


@dataclass(frozen=True, slots=True)
class _Bag:
    rows: Rows
    ids_KW: NDArray[np.int64]
    words: int
    """Without padding."""


@dataclass(frozen=True, slots=True)
class BagTargets:
    clips: ShownClips
    texts: TextRows
    """Candidates of the first clip, then of the second, …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MilNceTaskSettings(ObjectiveSettings):
    candidates: int = 4
    """Texts that may belong to a clip: 4 in the repository's README, 5 in the paper."""
    positives: Positives = "once"
    """How often they count in the loss's denominator: once in the paper, twice in the published code."""
    gather: bool = True
    """Whether the clips of all processes are negatives of each other."""
    max_words: int = 20
    """Of a text; what is longer is cut."""
    min_seconds: float = 5.0
    """To which a shorter segment is stretched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndToEndSettings(MilNceTaskSettings):
    clips: ClipSettings = field(default_factory=ClipSettings)
    """How they are decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MilNceTask:
    """`milnce`, `milnce-end-to-end`."""

    name: str
    showing: Showing
    pad: int
    settings: MilNceTaskSettings = MilNceTaskSettings()

    @property
    def fewest(self) -> int:
        """Samples of a micro-batch: the video network's batch norms take no statistics of one."""
        return 2 if "frames" in self.needs() else 1

    def needs(self) -> frozenset[str]:
        return frozenset({"words", "video"}) | self.showing.needs()

    def example(self, sample: Sample, draw: np.random.Generator, other: Sample | None = None) -> _Bag:
        video = sample.video
        assert video is not None
        segment = int(draw.integers(len(video.texts)))
        start, end = video.spans_N2[segment].tolist()
        texts = [video.texts[place] for place in nearest(video.spans_N2, segment, self.settings.candidates)]
        return _Bag(
            rows=self.showing.drawn(video, stretched((start, end), self.settings.min_seconds), draw),
            ids_KW=np.stack([self.text(ids) for ids in texts]),
            words=sum(min(len(ids), self.settings.max_words) for ids in texts),
        )

    def collate(self, examples: list[_Bag]) -> MicroBatch:
        texts = [ids_W for example in examples for ids_W in example.ids_KW]
        return MicroBatch(
            objective=self.name,
            inputs=Inputs(lengths_B=torch.tensor([example.words for example in examples])),
            targets=BagTargets(self.collate_clips([example.rows for example in examples]), self.collate_texts(texts)),
            count=len(examples),
            real_tokens=sum(example.words for example in examples),
        )

    def loss(self, model: MilNce, batch: MicroBatch) -> Loss:
        clips_BJ = model.embed_video(batch.targets.clips)
        texts_BKJ = model.embed_text(batch.targets.texts).view(len(clips_BJ), self.settings.candidates, -1)
        gather = self.settings.gather and model.training  # validation runs in the first process alone
        found = mil_nce(clips_BJ, texts_BKJ, positives=self.settings.positives, gather=gather)
        return Loss(found.loss_B.sum(), {"accuracy": found.correct_B.sum()})

    def text(self, ids: NDArray[np.int32]) -> NDArray[np.int64]:
        """(W,) padded. Padding takes part in the tower's maximum, so all texts have the training's length."""
        padded_W = np.full(self.settings.max_words, self.pad, np.int64)
        padded_W[: len(ids)] = ids[: self.settings.max_words]
        return padded_W

    def clip(self, video: NarratedVideo, span: Span) -> Rows:
        return self.showing.whole(video, span)

    def collate_texts(self, texts: Sequence[NDArray[np.int64]]) -> TextRows:
        return TextRows(torch.from_numpy(np.stack(texts)))

    def collate_clips(self, clips: Sequence[Rows]) -> ShownClips:
        lengths_B = torch.tensor([len(rows) for rows in clips])
        return ShownClips(torch.from_numpy(np.concatenate(clips)), lengths_B)
