"""HowTo100M's task: `howto100m` (antoine77340/howto100m loss.py, youtube_dataloader.py:76-141).

    loss = 1/N^2 sum_ij w_ij [ relu(m + s_ij - s_ii) + relu(m + s_ij - s_jj) ],   s_ij = text i . clip j

over the N pairs of a batch: of each video `pairs` segments of its narration, drawn with replacement. A segment shorter
than `min_seconds` is joined with its neighbours, texts and all. Pairs of one video are each other's harder negatives:
of B videos they weigh B h, others B (1 - h) / (B - 1), 1 in the mean. The diagonal takes part as published, so that
2 m w_ii / N is the least that the loss can be.

A clip is the maximum of each encoder's features over it, each brought to unit length, one after the other; a text its
words' vectors, the first `max_words` of those that have one.

Deviations: a batch of any size is weighted by the videos that it has (published: by the batch's nominal size, which
fails for a single video and for a short batch); with `gather` the pairs of all processes are negatives of each other,
where the published code knows one process. Validation gathers nothing.

Shape suffixes: B videos, N pairs of this process, A of all processes, W words, V size of a word vector, D feature size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlprep.pretrain.base import Inputs, Loss, MicroBatch, NarratedVideo, Sample
from vlprep.pretrain.distributed import gathered
from vlprep.pretrain.models.howto100m import HowTo100M, PooledClips, TextVectors
from vlprep.pretrain.models.parts import dot_products
from vlprep.pretrain.narration import Span, clips_in, widened
from vlprep.pretrain.settings import ObjectiveSettings
from vlprep.text.words import VectorTable


@dataclass(frozen=True, slots=True)
class PairTargets:
    """N pairs, those of the first video first."""

    texts: TextVectors
    clips: PooledClips


@dataclass(frozen=True, slots=True)
class _DrawnPairs:
    texts: list[NDArray[np.int32]]
    clips: list[NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedPairSettings(ObjectiveSettings):
    pairs: int = 64
    """Segments drawn of each video."""
    max_words: int = 20
    """Of a text; what is longer is cut."""
    min_seconds: float = 5.0
    """Shorter segments are joined with their neighbours until they are as long."""
    margin: float = 0.1
    """By how much a pair is to be nearer than what does not belong together."""
    hard_negatives: float = 0.5
    """Weight of all other pairs of the same video."""
    gather: bool = True
    """Whether the clips of all processes are negatives of each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedPairs:
    """`howto100m`, a `DualObjective`."""

    vectors: VectorTable | None
    """Rows are word ids; None only where nothing is collated."""
    settings: RankedPairSettings = RankedPairSettings()
    name: str = "howto100m"

    def needs(self) -> frozenset[str]:
        return frozenset({"video", "words"})

    def example(self, sample: Sample, draw: np.random.Generator, other: Sample | None = None) -> _DrawnPairs:
        video = sample.video
        assert video is not None  # `needs` has asked for it
        texts, clips = [], []
        for segment in draw.integers(len(video.texts), size=self.settings.pairs).tolist():
            joined, span = widened(video.spans_N2, segment, self.settings.min_seconds)
            texts.append(self.text(np.concatenate([video.texts[place] for place in joined])))
            clips.append(self.clip(video, span))
        return _DrawnPairs(texts, clips)

    def text(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        return ids[: self.settings.max_words]

    def clip(self, video: NarratedVideo, span: Span) -> NDArray[np.float32]:
        """(D,)."""
        seen = zip(video.features_CD, video.times_C2, strict=True)
        pooled = [features_CD[clips_in(times_C2, *span)].max(0).astype(np.float32) for features_CD, times_C2 in seen]
        return np.concatenate([row_D / max(float(np.linalg.norm(row_D)), 1e-12) for row_D in pooled])

    def collate(self, examples: list[_DrawnPairs]) -> MicroBatch:
        texts = [ids for example in examples for ids in example.texts]
        clips = [row_D for example in examples for row_D in example.clips]
        words_B = [sum(map(len, example.texts)) for example in examples]
        return MicroBatch(
            objective=self.name,
            inputs=Inputs(lengths_B=torch.tensor(words_B)),
            targets=PairTargets(self.collate_texts(texts), self.collate_clips(clips)),
            count=len(texts),
            real_tokens=sum(words_B),
        )

    def collate_texts(self, texts: Sequence[NDArray[np.int32]]) -> TextVectors:
        assert self.vectors is not None
        # a row of padding more than the longest: it takes part in the maximum, how many there are does not matter
        width = min(self.settings.max_words, 1 + max(map(len, texts)))
        vectors_NWV = np.zeros((len(texts), width, self.vectors.dim), np.float32)
        for row, ids in enumerate(texts):
            vectors_NWV[row, : len(ids)] = self.vectors[ids]
        return TextVectors(torch.from_numpy(vectors_NWV))

    def collate_clips(self, clips: Sequence[NDArray[np.float32]]) -> PooledClips:
        return PooledClips(torch.from_numpy(np.stack(clips)))

    def loss(self, model: HowTo100M, batch: MicroBatch) -> Loss:
        targets: PairTargets = batch.targets
        texts_NJ = model.embed_text(targets.texts).float()
        clips_NJ = model.embed_video(targets.clips).float()
        gather = self.settings.gather and model.training  # validation runs in the first process alone
        texts_AJ, own = gathered(texts_NJ) if gather else (texts_NJ, slice(0, len(texts_NJ)))
        clips_AJ = gathered(clips_NJ)[0] if gather else clips_NJ
        to_clips_NA, to_texts_NA = dot_products(texts_NJ, clips_AJ), dot_products(clips_NJ, texts_AJ)
        matching_N = (texts_NJ * clips_NJ).sum(1)
        settings = self.settings
        weights_AA = pair_weights(len(texts_AJ), settings.pairs, settings.hard_negatives, texts_NJ.device)
        total = max_margin(to_clips_NA, to_texts_NA, matching_N, weights_AA[own], settings.margin)
        # a segment that is drawn twice is as near as its double
        correct_N = matching_N >= to_clips_NA.amax(1) - 1e-6
        return Loss(total, {"accuracy": correct_N.sum()})


def max_margin(
    to_clips_NA: Tensor, to_texts_NA: Tensor, matching_N: Tensor, weights_NA: Tensor, margin: float
) -> Tensor:
    """The share of N of A pairs in the loss, times A; added up over all pairs and divided by A it is the loss.

    `to_clips_NA` are similarities of their texts to all clips, `to_texts_NA` of their clips to all texts.
    """
    missed_NA = torch.relu(margin + to_clips_NA - matching_N[:, None])
    missed_NA = missed_NA + torch.relu(margin + to_texts_NA - matching_N[:, None])
    return (weights_NA * missed_NA).sum() / to_clips_NA.shape[1]


def pair_weights(count: int, pairs: int, hard_negatives: float, device: torch.device) -> Tensor:
    """(A, A) weights of `count` pairs, `pairs` a video; all 1 where there is one video only or one pair of each."""
    videos = count // pairs
    if videos < 2 or pairs == 1:
        return torch.ones(count, count, device=device)
    video_A = torch.arange(count, device=device) // pairs
    same, other = videos * hard_negatives, videos * (1 - hard_negatives) / (videos - 1)
    return torch.where(video_A[:, None] == video_A[None], same, other)
