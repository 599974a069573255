"""Masked language modelling: `mlm`.

    L = mean over masked pieces of  -log softmax(E transform(h) + b)[piece]

UNITER masks one modality at a time: here text is masked and every region is seen (data/mlm.py:17-54, model/pretrain.py
:107-127). BERT's 15 % / 80-10-10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from vlprep.pretrain.base import Loss, MicroBatch, Sample
from vlprep.pretrain.masking import Ints, mask_words
from vlprep.pretrain.models.single_stream import SingleStream
from vlprep.pretrain.objectives.sequences import SequenceRule, ThinnedSettings
from vlprep.pretrain.packing import Example, join, pack, text_slots


@dataclass(frozen=True, slots=True)
class WordTargets:
    slots_M: Tensor
    ids_M: Tensor


@dataclass(frozen=True, slots=True)
class _MaskedText:
    sequence: Example
    positions: Ints
    ids: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedLanguageSettings(ThinnedSettings):
    text_only: float = 0.0
    """Share of the sequences without what is seen (VideoBERT's text regime)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedLanguage:
    """`mlm`, with or without what is seen."""

    rule: SequenceRule
    settings: MaskedLanguageSettings = MaskedLanguageSettings()
    name: str = "mlm"

    def needs(self) -> frozenset[str]:
        return frozenset({"text"})

    def example(self, sample: Sample, draw: np.random.Generator, other: Sample | None = None) -> _MaskedText:
        ids = self.rule.text(sample)
        masked, targets = mask_words(ids, self.rule.words, draw)
        if draw.random() < self.settings.text_only:
            sample = replace(sample, regions=None, visual_tokens=None)
        sequence = self.rule.sequence(masked, sample, self.rule.visual(sample, draw))
        return _MaskedText(sequence, targets + 1, ids[targets])  # [CLS] comes first

    def collate(self, examples: list[_MaskedText]) -> MicroBatch:
        sequences = [example.sequence for example in examples]
        slots = text_slots(sequences, [example.positions for example in examples])
        return collate_guesses(self.name, sequences, slots, [example.ids for example in examples])

    def loss(self, model: SingleStream, batch: MicroBatch) -> Loss:
        logits_MW = model.word_logits(model.encode(batch.inputs)[batch.targets.slots_M]).float()
        correct = (logits_MW.argmax(1) == batch.targets.ids_M).sum()
        return Loss(F.cross_entropy(logits_MW, batch.targets.ids_M, reduction="sum"), {"accuracy": correct})


def collate_guesses(objective: str, sequences: Sequence[Example], slots_M: Tensor, ids: Sequence[Ints]) -> MicroBatch:
    """Sequences, and which pieces or tokens are to be guessed in which of their slots."""
    return MicroBatch(
        objective=objective,
        inputs=pack(sequences),
        targets=WordTargets(slots_M, join(list(ids))),
        count=len(slots_M),
        real_tokens=sum(sequence.length for sequence in sequences),
    )
