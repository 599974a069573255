"""VLP's masked caption, read both ways or written left to right: `vlp` (LuoweiZhou/VLP vlp/seq2seq_loader.py:249-301).

    L = mean over masked pieces of -log softmax(E transform(h) + b)[piece]

Of the examples 75 % are sequence to sequence: regions see regions only, a caption's piece the regions, the pieces
before it and itself, so that a masked piece is guessed from what comes before it. The others see everything. Masked are
min(3, max(1, round(0.15 n))) of a caption's n pieces and its final [SEP], 80-10-10; regions are not.

`drop_worst` (`--drop_worst_ratio`, 0 in every published pretraining run) leaves that share of a micro-batch's captions
out of its mean while it trains, those with the largest sums; a micro-batch still counts by all of its targets.

Deviations: random pieces come from the words only; captions that are too long are left out, not cut; the published
denominator is the number of targets + 1e-5.

Shape suffixes: M masked pieces, B captions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vlprep.errors import SettingsError
from vlprep.pretrain.base import Loss, MicroBatch, Sample
from vlprep.pretrain.masking import MASK_RATE, Ints
from vlprep.pretrain.models.vlp import Vlp
from vlprep.pretrain.objectives.mlm import WordTargets
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.packing import Example, ending_slots, join, pack
from vlprep.pretrain.settings import ObjectiveSettings


@dataclass(frozen=True, slots=True)
class _MaskedCaption:
    sequence: Example
    places: Ints
    """Within `[SEP] caption [SEP]`."""
    ids: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionSettings(ObjectiveSettings):
    left_to_right: float = 0.75
    """Share of the captions that are seen from the left only."""
    drop_worst: float = 0.0
    """Share of a micro-batch's captions, the worst, that are not learned from."""

    def __post_init__(self) -> None:
        ObjectiveSettings.__post_init__(self)  # super() finds no slotted dataclass
        if not 0 <= self.drop_worst < 1:
            raise SettingsError(f"objectives.vlp.drop_worst is from 0 to below 1, not {self.drop_worst}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedCaption:
    """`vlp`."""

    rule: SequenceRule
    settings: CaptionSettings = CaptionSettings()
    most: int = 3
    """Targets of a caption."""
    name: str = "vlp"

    def extra_tokens(self, lengths_S: Ints, seen_S: Ints) -> int:
        """The second [SEP], which the corpus does not count."""
        return 1

    def needs(self) -> frozenset[str]:
        return frozenset({"text", "regions", "class_probs"})

    def example(self, sample: Sample, draw: np.random.Generator, other: Sample | None = None) -> _MaskedCaption:
        words = self.rule.words
        caption = np.append(self.rule.text(sample), words.sep)
        count = min(self.most, max(1, round((len(caption) - 1) * MASK_RATE)))
        chosen = draw.choice(len(caption), count, replace=False)
        action, others = draw.random(count), draw.integers(words.first_word, words.size, count)
        masked = caption.copy()
        masked[chosen] = np.select([action < 0.8, action < 0.9], [words.mask, others], caption[chosen])
        sequence = caption_sequence(
            self.rule, sample, masked, written=bool(draw.random() < self.settings.left_to_right)
        )
        return _MaskedCaption(sequence, chosen + 1, caption[chosen])

    def collate(self, examples: list[_MaskedCaption]) -> MicroBatch:
        sequences = [example.sequence for example in examples]
        slots = ending_slots(sequences, [example.places for example in examples])
        return MicroBatch(
            objective=self.name,
            inputs=pack(sequences, distributions=True),
            targets=WordTargets(slots, join([example.ids for example in examples])),
            count=len(slots),
            real_tokens=sum(sequence.length for sequence in sequences),
        )

    def loss(self, model: Vlp, batch: MicroBatch) -> Loss:
        targets: WordTargets = batch.targets
        logits_MW = model.word_logits(model.encode(batch.inputs)[targets.slots_M]).float()
        correct = (logits_MW.argmax(1) == targets.ids_M).sum()
        losses_M = F.cross_entropy(logits_MW, targets.ids_M, reduction="none")
        if self.settings.drop_worst and model.training:
            return Loss(self._without_worst(losses_M, targets.slots_M, batch.inputs.lengths_B), {"accuracy": correct})
        return Loss(losses_M.sum(), {"accuracy": correct})

    def _without_worst(self, losses_M: Tensor, slots_M: Tensor, lengths_B: Tensor) -> Tensor:
        """M times the mean over the targets of the captions that are kept."""
        captions = len(lengths_B)
        caption_M = torch.searchsorted(lengths_B.cumsum(0).to(slots_M.device), slots_M, right=True)
        sums_B = losses_M.new_zeros(captions).index_add(0, caption_M, losses_M)
        counts_B = caption_M.bincount(minlength=captions)
        kept = sums_B.topk(max(1, int(captions * (1 - self.settings.drop_worst))), largest=False)
        return kept.values.sum() * len(losses_M) / counts_B[kept.indices].sum()


def caption_sequence(rule: SequenceRule, sample: Sample, caption: Ints, *, written: bool) -> Example:
    """`[CLS] regions [SEP] caption`; types 4 and 5 where the caption is `written`, else 0 and 1 (--new_segment_ids)."""
    assert sample.regions is not None
    first = 4 if written else 0
    types = np.full(1 + len(caption), first + 1)
    types[0] = first
    return Example(
        text_ids_P=np.array([rule.words.cls]),
        text_types_P=np.array([first]),
        regions=sample.regions,
        seen_type=first,
        ends_with=np.concatenate([[rule.words.sep], caption]),
        ends_with_types=types,
        prefix=2 + len(sample.regions.features_RD) if written else None,
    )
