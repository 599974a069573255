"""LXMERT's six tasks, trained together: `lxmert` (airsplay/lxmert src/lxrt/modeling.py:635-1000, lxmert_pretrain.py).

    loss      = match + mlm + objects + attributes + features + answers
    match       mean over sequences of -log softmax(W tanh-pooled [CLS])[label], 1 = match; half of the images get the
                text of another one
    mlm         mean over masked pieces of -log softmax(logits)[piece], mismatched pairs included
    objects     mean over ALL regions of confidence * -log softmax(logits)[detector's class], / 0.15
    attributes  the same with the detector's attribute
    features    mean over ALL regions of masked * (mean over dimensions of SmoothL1(prediction - feature)), / 0.15
    answers     mean over questions with their own image of -log softmax(head(tanh-pooled [CLS]))[answer], an answer
                drawn by how right each is

As published, objects and attributes are learned at every region, masked or not, since their weight is the detector's
confidence and not the mask. Text: 15 %, 80-10-10, nothing forced. Regions: 15 %, of which 80 % zero, 10 % another
image's region, 10 % kept.

Deviations: random pieces come from the words only (published: special tokens too); all regions of an image that are
replaced come from one other image (published: each from its own); the answers are those of the text stores, the 9500
most frequent of each (published: a list beside the code). The confidence is the detector's probability of the class, as
published; of a store without soft labels (`--soft-labels none`) it is what its selection went by. Stores without
attributes or questions train the other tasks; in a mixture, regions without attributes and texts without answers are
not counted.

Shape suffixes: M masked pieces, B sequences, R regions, D feature size, K classes, A attributes, N answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vlprep.pretrain.base import Inputs, Loss, MicroBatch, RegionSample, Sample
from vlprep.pretrain.masking import MASK_RATE, Ints, MaskedRegions, mask_regions, mask_tokens
from vlprep.pretrain.models.lxmert import Lxmert
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.packing import Example, join, pack, text_rows

_NONE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class LxmertTargets:
    rows_M: Tensor
    """Rows of the text stream."""
    ids_M: Tensor
    labels_B: Tensor
    """1 = match."""
    objects_R: Tensor
    object_confidence_R: Tensor
    attributes_R: Tensor
    """-1 where the store has none."""
    attribute_confidence_R: Tensor
    features_RD: Tensor
    """As the detector gave them."""
    masked_R: Tensor
    """bool: also those that are masked but kept or replaced."""
    answers_B: Tensor
    """-1 where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Masked:
    sequence: Example
    positions: Ints
    ids: Ints
    label: int
    regions: RegionSample
    masks: MaskedRegions
    answer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LxmertTasks:
    """`lxmert`."""

    rule: SequenceRule
    negatives: float = 0.5
    name: str = "lxmert"

    def needs(self) -> frozenset[str]:
        return frozenset({"text", "regions"})

    def example(self, sample: Sample, draw: np.random.Generator, other: Sample | None = None) -> _Masked:
        """`other` is a sample of another image: the wrong text for half of the draws, and the replacing regions."""
        assert other is not None
        assert sample.regions is not None
        assert other.regions is not None
        mismatch = bool(draw.random() < self.negatives)
        words, ids = self.rule.words, self.rule.text(other if mismatch else sample)
        masked, targets = mask_tokens(
            ids, draw, mask=words.mask, replacements=range(words.first_word, words.size), force_one=False
        )
        masks = mask_regions(len(sample.regions.features_RD), draw, hidden=0.8, replaced=0.1)
        seen = replace(sample, regions=_with_others_features(sample.regions, other.regions, masks.replaced_R, draw))
        return _Masked(
            sequence=self.rule.sequence(masked, seen, masked_R=masks.hidden_R),
            positions=targets + 1,  # [CLS] comes first
            ids=ids[targets],
            label=int(not mismatch),
            regions=sample.regions,
            masks=masks,
            answer=_NONE if mismatch else self.answer(sample, draw),
        )

    def answer(self, sample: Sample, draw: np.random.Generator) -> int:
        """The class of one of its answers; -1 where it has none that the stores name."""
        known = self.rule.words.answers
        classes = [known[answer] for answer in sample.answers if answer in known]
        scores = np.array([score for answer, score in sample.answers.items() if answer in known])
        return int(draw.choice(classes, p=scores / scores.sum())) if scores.sum() > 0 else _NONE

    def collate(self, examples: list[_Masked]) -> MicroBatch:
        sequences = [example.sequence for example in examples]
        attributes, confidences = zip(*(_attributes(example.regions) for example in examples), strict=True)
        targets = LxmertTargets(
            rows_M=text_rows(sequences, [example.positions for example in examples]),
            ids_M=join([example.ids for example in examples]),
            labels_B=torch.tensor([example.label for example in examples]),
            objects_R=join([example.regions.object_ids_R.astype(np.int64) for example in examples]),
            object_confidence_R=_floats([example.regions.confidences() for example in examples]),
            attributes_R=join(list(attributes)),
            attribute_confidence_R=_floats(list(confidences)),
            features_RD=_floats([example.regions.features_RD for example in examples]),
            masked_R=torch.from_numpy(np.concatenate([example.masks.targets_R for example in examples])),
            answers_B=torch.tensor([example.answer for example in examples]),
        )
        regions = len(targets.objects_R)
        counts = {
            "mlm": len(targets.rows_M),
            "objects": regions,
            "attributes": int((targets.attributes_R != _NONE).sum()),
            "features": regions,
            "answers": int((targets.answers_B != _NONE).sum()),
        }
        return MicroBatch(
            objective=self.name,
            inputs=pack(sequences),
            targets=targets,
            count=len(examples),
            real_tokens=sum(sequence.length for sequence in sequences),
            term_counts=counts,
        )

    def pair(self, text: Sample, seen: Sample) -> Example:
        """A text with an image, nothing masked."""
        return self.rule.sequence(self.rule.text(text), seen)

    def scores(self, model: Lxmert, inputs: Inputs) -> Tensor:
        """(B,) how much more a match than not, for ranking."""
        logits_B2 = model.match_logits(model.pooled(model.encode(inputs), inputs)).float()
        return logits_B2[:, 1] - logits_B2[:, 0]

    def loss(self, model: Lxmert, batch: MicroBatch) -> Loss:
        targets: LxmertTargets = batch.targets
        streams = model.encode(batch.inputs)
        words_MW = model.word_logits(streams.text_PH[targets.rows_M]).float()
        pooled_BH = model.pooled(streams, batch.inputs)
        match_B2, answers_BN = model.match_logits(pooled_BH).float(), model.answer_logits(pooled_BH)
        scores = {name: values.float() for name, values in model.region_scores(streams.regions_RH).items()}
        terms = {
            "mlm": F.cross_entropy(words_MW, targets.ids_M, reduction="sum"),
            "objects": _weighted(scores["obj"], targets.objects_R, targets.object_confidence_R),
            "features": _masked_features(scores["feat"], targets),
        }
        if "attr" in scores:
            terms["attributes"] = _weighted(scores["attr"], targets.attributes_R, targets.attribute_confidence_R)
        parts = {
            "accuracy": (match_B2.argmax(1) == targets.labels_B).sum(),
            "mlm accuracy": (words_MW.argmax(1) == targets.ids_M).sum(),
            "objects accuracy": (scores["obj"].argmax(1) == targets.objects_R).sum(),
        }
        if answers_BN is not None:
            terms["answers"] = F.cross_entropy(
                answers_BN.float(), targets.answers_B, reduction="sum", ignore_index=_NONE
            )
            parts["answers accuracy"] = (answers_BN.argmax(1) == targets.answers_B).sum()
        return Loss(F.cross_entropy(match_B2, targets.labels_B, reduction="sum"), parts, terms)


def _weighted(logits_RK: Tensor, labels_R: Tensor, confidence_R: Tensor) -> Tensor:
    losses_R = F.cross_entropy(logits_RK, labels_R, reduction="none", ignore_index=_NONE)
    return (losses_R * confidence_R).sum() / MASK_RATE


def _masked_features(predicted_RD: Tensor, targets: LxmertTargets) -> Tensor:
    losses_R = F.smooth_l1_loss(predicted_RD, targets.features_RD, reduction="none").mean(1)
    return (losses_R * targets.masked_R).sum() / MASK_RATE


def _with_others_features(
    regions: RegionSample, others: RegionSample, replaced_R: NDArray[np.bool_], draw: np.random.Generator
) -> RegionSample:
    chosen = draw.integers(len(others.features_RD), size=int(replaced_R.sum()))
    features_RD = regions.features_RD.copy()  # the store is mapped read-only
    features_RD[replaced_R] = others.features_RD[chosen]
    return replace(regions, features_RD=features_RD)


def _attributes(regions: RegionSample) -> tuple[Ints, NDArray[np.float32]]:
    """(R,) likeliest attribute and its probability; -1 and 0 where the store has none."""
    if regions.attribute_probs_RA is None:
        count = len(regions.object_ids_R)
        return np.full(count, _NONE), np.zeros(count, np.float32)
    return regions.attribute_probs_RA.argmax(1), regions.attribute_probs_RA.max(1).astype(np.float32)


def _floats(parts: list[NDArray[np.float32]] | list[NDArray[np.float16] | NDArray[np.float32]]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts)).float()
