"""Narrated segments of a video with their clips, as UniVL and CBT read them: `[CLS] text [SEP]` and clips.

Segments that are shorter than `min_seconds` are joined with their neighbours, texts and all (UniVL dataloader_howto100m
.py:243-277). Texts are cut, and of a longer segment the first clips are read. Deviation: the published loader gives a
segment without a feature those of its neighbours, or zeros; here the corpus has left it out.

Shape suffixes: C clips, D feature size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlprep.errors import SettingsError
from vlprep.pretrain.base import NarratedVideo
from vlprep.pretrain.masking import Ints, TextVocabulary
from vlprep.pretrain.narration import Span, clips_in, widened
from vlprep.pretrain.packing import Example
from vlprep.pretrain.settings import ClipModelSettings, ModelSettings, ObjectiveSettings, TransformerSettings

Features = NDArray[np.float16] | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ToldClips:
    """A segment that is long enough."""

    words: Ints
    """All its pieces, without special ones."""
    clips_CD: Features


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentSettings(ObjectiveSettings):
    """Of the objectives that read segments of narration with their clips."""

    max_words: int = 48
    """Pieces of a text, special ones included; what is longer is cut."""
    max_clips: int = 64
    """Clips of a segment, its first."""
    min_seconds: float = 5.0
    """Shorter segments are joined with their neighbours until they are as long."""

    def __post_init__(self) -> None:
        ObjectiveSettings.__post_init__(self)  # super() finds no slotted dataclass
        if self.max_words < 3:
            raise SettingsError(f"max_words = {self.max_words} leaves no room for a word beside [CLS] and [SEP]")

    def require_fit(self, model: ModelSettings) -> None:
        if not isinstance(model, TransformerSettings):
            return
        if max(self.max_words, self.max_clips) > model.positions:
            raise SettingsError(
                f"max_words = {self.max_words} and max_clips = {self.max_clips} need as many model.positions, not"
                f" {model.positions}"
            )
        if isinstance(model, ClipModelSettings) and self.max_words > model.text_places:
            raise SettingsError(f"max_words = {self.max_words} needs as many model.text_places")


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRule:
    """What of a segment is read."""

    words: TextVocabulary
    settings: SegmentSettings = SegmentSettings()

    def told(self, video: NarratedVideo, segment: int) -> ToldClips:
        """A segment of the narration, by its number, with the clips of the first feature store."""
        joined, span = widened(video.spans_N2, segment, self.settings.min_seconds)
        words = np.concatenate([video.texts[part] for part in sorted(joined)]).astype(np.int64)
        return ToldClips(words, self.clips(video, span))

    def clips(self, video: NarratedVideo, span: Span) -> Features:
        """(C, D) what is read of the first feature store in a span of seconds."""
        return video.features_CD[0][clips_in(video.times_C2[0], *span)][: self.settings.max_clips]

    def sequence(self, words: Ints, clips_CD: Features | None, masked_C: NDArray[np.bool_] | None = None) -> Example:
        """`words`, cut, with clips."""
        text_P = np.concatenate([[self.words.cls], self.cut(words), [self.words.sep]])
        return Example(text_ids_P=text_P, clips_CD=clips_CD, masked_C=masked_C)

    def cut(self, words: Ints) -> Ints:
        """The first words that leave room for [CLS] and [SEP]."""
        return words[: self.settings.max_words - 2]


def consecutive(segments: int, count: int, draw: np.random.Generator) -> list[int]:
    """`count` consecutive segments of a video, one of the groups that its narration is cut into.

    The last group is filled up from the beginning; a video with fewer segments has some more than once (UniVL
    dataloader_howto100m.py:68-91, `--sampled_use_mil`).
    """
    first = count * int(draw.integers(-(-segments // count)))
    return [place % segments for place in range(first, first + count)]
