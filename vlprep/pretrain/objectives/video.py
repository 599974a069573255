"""VideoBERT's tasks on visual tokens: `mfm` (the cloze) and `align` (Sun et al. 2019, §3.2).

    mfm    mean over masked visual tokens of -log softmax(logits)[token]; 15 % of the tokens, 80-10-10 as for words.
           Half of the sequences have their narration (text-video regime), half are video alone
    align  mean of -log softmax(W tanh-pooled [CLS])[label]; half of the texts get the tokens of another video;
           label 1 = aligned (ammesatyajit/VideoBERT's old code has 0)

Deviation: in the paper the text-video regime trains alignment, and the two clozes see one modality; here a share of
their sequences shows both (half in the recipe: `video_only`, and `text_only` of `mlm`).

The text-only regime is `mlm` on samples without video. The public VideoBERT repository trains none of this
(reference/training.md §1.8); the paper is the source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from vlprep.pretrain.base import Inputs, Loss, MicroBatch, Sample
from vlprep.pretrain.masking import Ints, mask_tokens
from vlprep.pretrain.models.single_stream import SingleStream
from vlprep.pretrain.objectives.itm import Pair, collate_pairs, match_scores
from vlprep.pretrain.objectives.mlm import collate_guesses
from vlprep.pretrain.objectives.sequences import SequenceRule, ThinnedSettings
from vlprep.pretrain.packing import Example, visual_slots


@dataclass(frozen=True, slots=True)
class _MaskedTokens:
    sequence: Example
    positions: Ints
    tokens: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedTokenSettings(ThinnedSettings):
    video_only: float = 0.5
    """Share of the sequences that are shown without their narration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedVisualTokens:
    """`mfm`."""

    rule: SequenceRule
    settings: MaskedTokenSettings = MaskedTokenSettings()
    name: str = "mfm"

    def needs(self) -> frozenset[str]:
        return frozenset({"visual_tokens"})

    def example(self, sample: Sample, draw: np.random.Generator, other: Sample | None = None) -> _MaskedTokens:
        tokens = self.rule.visual(sample, draw)
        assert tokens is not None
        alone = draw.random() < self.settings.video_only or sample.text_ids is None
        text = np.empty(0, np.int64) if alone else self.rule.text(sample)
        size = self.rule.visual_tokens
        masked, targets = mask_tokens(tokens, draw, mask=size, replacements=range(size))
        # the first visual slot holds [>]
        return _MaskedTokens(self.rule.sequence(text, sample, masked), targets + 1, tokens[targets])

    def collate(self, examples: list[_MaskedTokens]) -> MicroBatch:
        sequences = [example.sequence for example in examples]
        slots = visual_slots(sequences, [example.positions for example in examples])
        return collate_guesses(self.name, sequences, slots, [example.tokens for example in examples])

    def loss(self, model: SingleStream, batch: MicroBatch) -> Loss:
        logits_MW = model.visual_logits(model.encode(batch.inputs)[batch.targets.slots_M]).float()
        correct = (logits_MW.argmax(1) == batch.targets.ids_M).sum()
        return Loss(F.cross_entropy(logits_MW, batch.targets.ids_M, reduction="sum"), {"accuracy": correct})


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """`align`."""

    rule: SequenceRule
    negatives: float = 0.5
    name: str = "align"

    def needs(self) -> frozenset[str]:
        return frozenset({"text", "visual_tokens"})

    def example(self, sample: Sample, draw: np.random.Generator, other: Sample | None = None) -> Pair:
        """`other` is a sample of another video; used for half of the draws."""
        assert other is not None
        mismatch = draw.random() < self.negatives
        tokens = self.rule.visual(other if mismatch else sample, draw)
        return Pair(self.rule.sequence(self.rule.text(sample), sample, tokens), int(not mismatch))

    def collate(self, examples: list[Pair]) -> MicroBatch:
        return collate_pairs(self.name, examples)

    def pair(self, text: Sample, seen: Sample) -> Example:
        """A text with all of a segment's visual tokens."""
        assert seen.visual_tokens is not None
        return self.rule.sequence(self.rule.text(text), seen, seen.visual_tokens.astype(np.int64))

    def scores(self, model: SingleStream, inputs: Inputs) -> Tensor:
        """(B,) how much more aligned than not, for ranking."""
        return match_scores(model, inputs)

    def loss(self, model: SingleStream, batch: MicroBatch) -> Loss:
        pooled_BH = model.pooled(model.encode(batch.inputs), batch.inputs)
        logits_B2 = model.match_logits(pooled_BH).float()
        correct = (logits_B2.argmax(1) == batch.targets.labels_B).sum()
        return Loss(F.cross_entropy(logits_B2, batch.targets.labels_B, reduction="sum"), {"accuracy": correct})
