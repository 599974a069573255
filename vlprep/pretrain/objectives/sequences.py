"""How a sample becomes a sequence: UNITER's `[CLS] text [SEP] regions`, VideoBERT's `[CLS] text [>] tokens [SEP]`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlprep.pretrain.base import Sample
from vlprep.pretrain.masking import Ints, TextVocabulary
from vlprep.pretrain.packing import Example
from vlprep.pretrain.settings import ObjectiveSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinnedSettings(ObjectiveSettings):
    """Of the objectives that may read visual tokens."""

    thin_up_to: int = 1
    """Visual tokens are thinned to every n-th, n up to this drawn anew each time (VideoBERT §3.2: 5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRule:
    """The vocabularies, and what VideoBERT does to visual tokens."""

    words: TextVocabulary
    visual_tokens: int = 0
    """Size of the visual vocabulary; this id is the visual mask, the next one `[>]`."""
    thin_up_to: int = 1
    """Visual tokens are thinned to every n-th, n drawn from 1 ... this (VideoBERT §3.2: 5)."""

    def text(self, sample: Sample) -> Ints:
        """The sample's pieces, which `Objective.needs` has made sure of."""
        assert sample.text_ids is not None
        return sample.text_ids.astype(np.int64)

    def visual(self, sample: Sample, draw: np.random.Generator) -> Ints | None:
        """The sample's visual tokens, thinned; None where it has none."""
        if sample.visual_tokens is None:
            return None
        step = int(draw.integers(1, self.thin_up_to + 1))
        first = int(draw.integers(step)) if len(sample.visual_tokens) > step else 0
        return sample.visual_tokens[first::step].astype(np.int64)

    def sequence(
        self,
        text_P: Ints,
        seen: Sample,
        visual_V: Ints | None = None,
        *,
        masked_R: NDArray[np.bool_] | None = None,
    ) -> Example:
        """Text (without specials) with the regions of `seen`, or with visual tokens."""
        if visual_V is None:
            text_P = np.concatenate([[self.words.cls], text_P, [self.words.sep]])
            return Example(text_ids_P=text_P, regions=seen.regions, masked_R=masked_R)
        return Example(
            text_ids_P=np.concatenate([[self.words.cls], text_P]),
            visual_ids_V=np.concatenate([[self.visual_tokens + 1], visual_V]),
            ends_with=np.array([self.words.sep]),
        )
