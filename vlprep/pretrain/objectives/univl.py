"""UniVL's five tasks (microsoft/UniVL modules/modeling.py:185-300, dataloaders/dataloader_howto100m.py).

    univl-retrieval  stage one: the first term alone
    univl            stage two: retrieval + mlm + clips + align + decoder, each the mean over what it counts
    retrieval   MIL-NCE over mean states of three consecutive segments a video, of which the middle one is asked for
                (`contrastive.middle_mil_nce`); nothing is masked
    mlm         mean over masked pieces of -log softmax(logits)[piece], from the cross encoder
    clips       mean over masked clips of -log softmax(head(h) . f)[itself], f all normalised clips of the batch
    align       mean over texts of -log softmax(similarity)[own video]; the cross encoder reads every text with every
                video of the batch, both masked
    decoder     mean over a text's pieces and [SEP] of -log p(piece | those before it, cross encoder)

15 % of the pieces, 80-10-10, nothing forced; 15 % of the clips are zero. The decoder's input has 15 % corrupted pieces
too, the last one never, as published. For 15 % of the videos the encoders see `[CLS] [SEP]` in place of each text
(enhanced video representation). Negatives are the rest of the micro-batch of one process: accumulation does not add to
them.

Deviations: the published decoder also learns [PAD] behind each text (`learn_padding`); random pieces come from the
words only; where nothing is masked a term is 0, not NaN. Gradients reach the targets of `clips` through the features'
LayerNorm, as published.

Shape suffixes: P pieces of texts or captions, M masked pieces, C masked clips, B texts with their clips, W words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlprep.pretrain.base import Inputs, Loss, MicroBatch, NarratedVideo, Sample, TextInput
from vlprep.pretrain.masking import Ints, TextVocabulary, mask_rows, mask_tokens
from vlprep.pretrain.models.clip_parts import ClipStreams
from vlprep.pretrain.models.univl import Univl
from vlprep.pretrain.narration import Span
from vlprep.pretrain.objectives.contrastive import Contrast, diagonal_nce, feature_scores, middle_mil_nce, nce
from vlprep.pretrain.objectives.told_clips import SegmentRule, SegmentSettings, ToldClips, consecutive
from vlprep.pretrain.packing import Example, join, pack, region_rows, text_slots, visual_slots


@dataclass(frozen=True, slots=True, kw_only=True)
class UnivlRetrievalSettings(SegmentSettings):
    neighbours: int = 3
    """Consecutive segments of a video that are drawn together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnivlTaskSettings(UnivlRetrievalSettings):
    hide_text: float = 0.15
    """Share of the videos whose narration only the decoder sees."""
    learn_padding: bool = False
    """The decoder also learns the padding behind a text, as published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dual:
    """What both stages have for retrieval by mean states (`vlprep.pretrain.dual`)."""

    words: TextVocabulary
    settings: UnivlRetrievalSettings = UnivlRetrievalSettings()

    @property
    def segments(self) -> SegmentRule:
        return SegmentRule(words=self.words, settings=self.settings)

    def needs(self) -> frozenset[str]:
        return frozenset({"text", "video"})

    def text(self, ids: NDArray[np.int32]) -> Example:
        return self.segments.sequence(ids.astype(np.int64), None)

    def clip(self, video: NarratedVideo, span: Span) -> Example:
        return Example(text_ids_P=np.empty(0, np.int64), clips_CD=self.segments.clips(video, span))

    def collate_texts(self, texts: Sequence[Example]) -> Inputs:
        return pack(texts)

    def collate_clips(self, clips: Sequence[Example]) -> Inputs:
        return pack(clips)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnivlRetrieval(_Dual):
    """`univl-retrieval`."""

    name: str = "univl-retrieval"

    def example(self, sample: Sample, draw: np.random.Generator, other: Sample | None = None) -> list[Example]:
        told = drawn_segments(sample, self.segments, self.settings.neighbours, draw)
        return [self.segments.sequence(one.words, one.clips_CD) for one in told]

    def collate(self, examples: list[list[Example]]) -> MicroBatch:
        sequences = [sequence for video in examples for sequence in video]
        return MicroBatch(
            objective=self.name,
            inputs=pack(sequences),
            targets=None,
            count=len(examples),
            real_tokens=sum(sequence.length for sequence in sequences),
        )

    def loss(self, model: Univl, batch: MicroBatch) -> Loss:
        assert batch.inputs.clips is not None
        streams = model.encode(batch.inputs, model.clip_features(batch.inputs.clips))
        found = _retrieved(model, streams, batch.inputs, self.settings.neighbours)
        return Loss(found.loss_B.sum(), {"accuracy": found.correct_B.sum()})


@dataclass(frozen=True, slots=True)
class UnivlTargets:
    masked_ids_P: Tensor
    """The texts once more, with masks."""
    piece_slots_M: Tensor
    ids_M: Tensor
    clip_slots_C: Tensor
    clip_rows_C: Tensor
    """Among all clips of the batch."""
    captions: TextInput
    """What the decoder reads."""
    caption_lengths_B: Tensor
    """Pieces of each caption without padding."""
    next_ids_P: Tensor
    """What it is to write."""


@dataclass(frozen=True, slots=True)
class _MaskedSegment:
    sequence: Example
    masked_words: Ints
    places: Ints
    """Of masked pieces, [CLS] included."""
    caption: Ints
    next_ids: Ints
    caption_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnivlTasks(_Dual):
    """`univl`."""

    settings: UnivlTaskSettings = UnivlTaskSettings()
    name: str = "univl"

    def example(self, sample: Sample, draw: np.random.Generator, other: Sample | None = None) -> list[_MaskedSegment]:
        told = drawn_segments(sample, self.segments, self.settings.neighbours, draw)
        hidden = bool(draw.random() < self.settings.hide_text)
        return [self._masked(one, hidden, draw) for one in told]

    def _masked(self, told: ToldClips, hidden: bool, draw: np.random.Generator) -> _MaskedSegment:
        vocabulary = self.segments.words
        words = self.segments.cut(told.words[:0] if hidden else told.words)
        masked, places = self._mask(words, draw)
        masked_C = mask_rows(len(told.clips_CD), draw, force_one=False)
        caption = told.words[: self.segments.settings.max_words - 1]
        corrupted, _ = self._mask(caption[:-1], draw)
        length = 1 + len(caption)
        padding = np.full(
            self.segments.settings.max_words - length if self.settings.learn_padding else 0, vocabulary.pad
        )
        return _MaskedSegment(
            sequence=self.segments.sequence(words, told.clips_CD, masked_C),
            masked_words=masked,
            places=places + 1,  # [CLS] comes first
            caption=np.concatenate([[vocabulary.cls], corrupted, caption[-1:], padding]),
            next_ids=np.concatenate([caption, [vocabulary.sep], padding]),
            caption_length=length,
        )

    def _mask(self, pieces: Ints, draw: np.random.Generator) -> tuple[Ints, Ints]:
        words = self.segments.words
        return mask_tokens(
            pieces, draw, mask=words.mask, replacements=range(words.first_word, words.size), force_one=False
        )

    def collate(self, examples: list[list[_MaskedSegment]]) -> MicroBatch:
        segments = [segment for video in examples for segment in video]
        sequences = [segment.sequence for segment in segments]
        inputs = pack(sequences)
        masked_clips = [_masked_clips(sequence) for sequence in sequences]
        targets = UnivlTargets(
            masked_ids_P=_masked_texts(segments),
            piece_slots_M=text_slots(sequences, [segment.places for segment in segments]),
            ids_M=join([segment.sequence.text_ids_P[segment.places] for segment in segments]),
            clip_slots_C=visual_slots(sequences, masked_clips),
            clip_rows_C=region_rows(sequences, masked_clips),
            captions=_captions(segments),
            caption_lengths_B=torch.tensor([segment.caption_length for segment in segments]),
            next_ids_P=join([segment.next_ids for segment in segments]),
        )
        return MicroBatch(
            objective=self.name,
            inputs=inputs,
            targets=targets,
            count=len(examples),
            real_tokens=sum(sequence.length for sequence in sequences),
            term_counts={
                "mlm": len(targets.ids_M),
                "clips": len(targets.clip_rows_C),
                "align": len(segments),
                "decoder": len(targets.next_ids_P),
            },
        )

    def loss(self, model: Univl, batch: MicroBatch) -> Loss:
        inputs, targets = batch.inputs, batch.targets
        assert inputs.text is not None
        assert inputs.clips is not None
        features_CD = model.clip_features(inputs.clips)
        retrieved = _retrieved(model, model.encode(inputs, features_CD), inputs, self.settings.neighbours)
        masked = replace(inputs, text=replace(inputs.text, ids_P=targets.masked_ids_P))
        streams = model.encode(masked, model.clip_features(inputs.clips, hide=True))
        pairs = model.pairs(streams, masked)
        words_MW = model.word_logits(pairs.states_TH[targets.piece_slots_M])
        predicted_CD = model.predicted_features(pairs.states_TH[targets.clip_slots_C])
        found = {
            "mlm": nce(words_MW, targets.ids_M),
            "clips": nce(feature_scores(predicted_CD, features_CD), targets.clip_rows_C),
            "align": diagonal_nce(model.alignment(streams, masked)),
            "decoder": nce(
                model.caption_logits(targets.captions, targets.caption_lengths_B, pairs), targets.next_ids_P
            ),
        }
        parts = {f"{name} accuracy": term.correct_B.sum() for name, term in found.items()}
        retrieval = retrieved.loss_B.sum()
        return Loss(
            retrieval,
            {"retrieval": retrieval.detach(), "retrieval accuracy": retrieved.correct_B.sum(), **parts},
            {name: term.loss_B.sum() for name, term in found.items()},
        )


def drawn_segments(sample: Sample, rule: SegmentRule, count: int, draw: np.random.Generator) -> list[ToldClips]:
    """`count` consecutive segments of a video's narration."""
    assert sample.video is not None
    return [rule.told(sample.video, segment) for segment in consecutive(len(sample.video.texts), count, draw)]


def _retrieved(model: Univl, streams: ClipStreams, inputs: Inputs, neighbours: int) -> Contrast:
    return middle_mil_nce(model.similarity(streams, inputs), pairs=neighbours)


def _masked_clips(sequence: Example) -> Ints:
    assert sequence.masked_C is not None
    return np.flatnonzero(sequence.masked_C)


def _masked_texts(segments: Sequence[_MaskedSegment]) -> Tensor:
    return join(
        [
            np.concatenate([one.sequence.text_ids_P[:1], one.masked_words, one.sequence.text_ids_P[-1:]])
            for one in segments
        ]
    )


def _captions(segments: Sequence[_MaskedSegment]) -> TextInput:
    text = pack([Example(text_ids_P=segment.caption) for segment in segments]).text
    assert text is not None
    return text
