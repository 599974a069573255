"""Image-text matching with word-region alignment: `itm`, `itm+wra` (UNITER data/itm.py, model/pretrain.py:156-199).

Half of the texts get another image (never the text). Nothing is masked.

    itm  mean of -log softmax(W tanh-pooled [CLS])[label], label 1 = match
    wra  (sum over matches of D - sum over mismatches of D) / sequences; D the optimal-transport distance between text
         states ([CLS] and [SEP] included) and region states; total = itm + 0.1 * wra

The paper has only the distance of matches; the code, followed here, also pushes mismatches apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vlprep.pretrain.base import Inputs, Loss, MicroBatch, Sample
from vlprep.pretrain.models.single_stream import SingleStream
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.objectives.transport import transport_distance
from vlprep.pretrain.packing import Example, pack
from vlprep.pretrain.settings import ObjectiveSettings


@dataclass(frozen=True, slots=True)
class MatchTargets:
    labels_B: Tensor
    """1 = match."""


@dataclass(frozen=True, slots=True)
class Pair:
    sequence: Example
    label: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchingSettings(ObjectiveSettings):
    wra: float = 0.0
    """Weight of the optimal-transport term; 0.1 in every published run (itm_ot_lambda)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTextMatching:
    """`itm`; with `wra` > 0 the alignment term, times this, is added."""

    rule: SequenceRule
    settings: MatchingSettings = MatchingSettings()
    beta: float = 0.5
    steps: int = 50
    negatives: float = 0.5
    name: str = "itm"

    def needs(self) -> frozenset[str]:
        return frozenset({"text", "regions"})

    def example(self, sample: Sample, draw: np.random.Generator, other: Sample | None = None) -> Pair:
        """`other` is a sample of another image; used for half of the draws."""
        assert other is not None
        mismatch = draw.random() < self.negatives
        return Pair(self.pair(sample, other if mismatch else sample), int(not mismatch))

    def collate(self, examples: list[Pair]) -> MicroBatch:
        return collate_pairs(self.name, examples)

    def pair(self, text: Sample, seen: Sample) -> Example:
        """A text with an image, nothing masked."""
        return self.rule.sequence(self.rule.text(text), seen)

    def scores(self, model: SingleStream, inputs: Inputs) -> Tensor:
        """(B,) how much more a match than not, for ranking."""
        return match_scores(model, inputs)

    def loss(self, model: SingleStream, batch: MicroBatch) -> Loss:
        states_TH = model.encode(batch.inputs)
        labels_B = batch.targets.labels_B
        logits_B2 = model.match_logits(model.pooled(states_TH, batch.inputs)).float()
        matching = F.cross_entropy(logits_B2, labels_B, reduction="sum")
        parts = {"accuracy": (logits_B2.argmax(1) == labels_B).sum()}
        if not self.settings.wra:
            return Loss(matching, parts)
        distance_B = self.distances(states_TH, batch.inputs)
        alignment = (distance_B * (2 * labels_B - 1)).sum()
        return Loss(
            matching + self.settings.wra * alignment, {**parts, "itm": matching.detach(), "wra": alignment.detach()}
        )

    def distances(self, states_TH: Tensor, inputs: Inputs) -> Tensor:
        """(B,) optimal-transport distance between each sequence's text and region states."""
        assert inputs.text is not None
        assert inputs.regions is not None
        text = _unpack(states_TH, inputs.text.slots_P, inputs.lengths_B)
        regions = _unpack(states_TH, inputs.regions.slots_R, inputs.lengths_B)
        return transport_distance(*text, *regions, beta=self.beta, steps=self.steps)


def collate_pairs(objective: str, examples: Sequence[Pair]) -> MicroBatch:
    sequences = [example.sequence for example in examples]
    return MicroBatch(
        objective=objective,
        inputs=pack(sequences),
        targets=MatchTargets(torch.tensor([example.label for example in examples])),
        count=len(examples),
        real_tokens=sum(sequence.length for sequence in sequences),
    )


def match_scores(model: SingleStream, inputs: Inputs) -> Tensor:
    """(B,) difference of the two match logits."""
    logits_B2 = model.match_logits(model.pooled(model.encode(inputs), inputs)).float()
    return logits_B2[:, 1] - logits_B2[:, 0]


def _unpack(states_TH: Tensor, slots_N: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
    """States at these slots as (B, L, H), and which of them are real (B, L)."""
    ends_B = lengths_B.cumsum(0).to(slots_N.device)
    sequence_N = torch.searchsorted(ends_B, slots_N, right=True)
    counts_B = torch.bincount(sequence_N, minlength=len(ends_B))
    place_N = torch.arange(len(slots_N), device=slots_N.device) - (counts_B.cumsum(0) - counts_B)[sequence_N]
    padded_BLH = states_TH.new_zeros(len(ends_B), int(counts_B.max()), states_TH.shape[1])
    padded_BLH = padded_BLH.index_put((sequence_N, place_N), states_TH[slots_N])
    real_BL = torch.arange(padded_BLH.shape[1], device=slots_N.device) < counts_B[:, None]
    return padded_BLH, real_BL
