"""Masked region modelling: `mrfr`, `mrc`, `mrc-kl` (UNITER data/mrm.py, model/pretrain.py:135-227).

15 % of the regions, at least one, have their feature set to zero and the mask vector added; the text is seen whole.

    mrfr    mean over regions and dimensions of (prediction - feature)^2
    mrc     mean over regions of -log softmax(logits)[the detector's most probable foreground class]
    mrc-kl  KL(detector's distribution || softmax(logits)) over all classes, background (first) included

The published `mrc-kl` is the mean over regions *and* classes, so that it is the KL of a region divided by 1601
(F.kl_div with reduction "none", then mean; reference/training.md §1.1). `reduction="region"` gives the KL itself, as
mmf does. `mrfr` under "region" sums over the dimensions likewise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vlprep.pretrain.base import Loss, MicroBatch, RegionSample, Sample
from vlprep.pretrain.masking import Ints, mask_rows
from vlprep.pretrain.models.single_stream import SingleStream
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.packing import Example, pack, visual_slots
from vlprep.pretrain.settings import ObjectiveSettings

Reduction = Literal["element", "region"]


@dataclass(frozen=True, slots=True)
class RegionTargets:
    slots_M: Tensor
    values_MX: Tensor
    """Features (mrfr), distributions with the background first (mrc-kl), or (M,) foreground classes (mrc)."""


@dataclass(frozen=True, slots=True)
class _MaskedRegions:
    sequence: Example
    rows: Ints
    values: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedRegionSettings(ObjectiveSettings):
    reduction: Reduction = "element"
    """The mean is one over elements (UNITER) or over regions (mmf)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _MaskedRegionTask(ABC):
    """What the three tasks share: who is masked, and how examples are packed."""

    rule: SequenceRule
    name: str
    settings: MaskedRegionSettings = MaskedRegionSettings()

    def needs(self) -> frozenset[str]:
        return frozenset({"text", "regions"})

    def example(self, sample: Sample, draw: np.random.Generator, other: Sample | None = None) -> _MaskedRegions:
        regions = sample.regions
        assert regions is not None
        masked = mask_rows(len(regions.features_RD), draw)
        rows = np.flatnonzero(masked)
        sequence = self.rule.sequence(self.rule.text(sample), sample, masked_R=masked)
        return _MaskedRegions(sequence, rows, self._values(regions, rows))

    def collate(self, examples: list[_MaskedRegions]) -> MicroBatch:
        sequences = [example.sequence for example in examples]
        slots = visual_slots(sequences, [example.rows for example in examples])
        values = torch.from_numpy(np.concatenate([example.values for example in examples]))
        return MicroBatch(
            objective=self.name,
            inputs=pack(sequences),
            targets=RegionTargets(slots, values),
            count=values.numel() if self.settings.reduction == "element" else len(slots),
            real_tokens=sum(sequence.length for sequence in sequences),
        )

    @abstractmethod
    def _values(self, regions: RegionSample, rows: Ints) -> np.ndarray:
        """What the masked rows should give back."""

    def _masked_states(self, model: SingleStream, batch: MicroBatch) -> Tensor:
        return model.encode(batch.inputs)[batch.targets.slots_M]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionFeatures(_MaskedRegionTask):
    """`mrfr`."""

    name: str = "mrfr"

    def _values(self, regions: RegionSample, rows: Ints) -> np.ndarray:
        return regions.features_RD[rows]

    def loss(self, model: SingleStream, batch: MicroBatch) -> Loss:
        predicted_MD = model.region_features(self._masked_states(model, batch)).float()
        return Loss(F.mse_loss(predicted_MD, batch.targets.values_MX.float(), reduction="sum"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionClasses(_MaskedRegionTask):
    """`mrc`; always a mean over regions. Needs the detector's classes only, which imported features have too."""

    name: str = "mrc"
    settings: MaskedRegionSettings = MaskedRegionSettings(reduction="region")

    def _values(self, regions: RegionSample, rows: Ints) -> np.ndarray:
        return regions.object_ids_R[rows].astype(np.int64)

    def loss(self, model: SingleStream, batch: MicroBatch) -> Loss:
        logits_MW = model.region_logits(self._masked_states(model, batch)).float()
        # background, class 0, may be the likeliest, yet is never a target; its logit stays in the softmax
        target_M = batch.targets.values_MX + 1
        correct = (logits_MW[:, 1:].argmax(1) + 1 == target_M).sum()
        return Loss(F.cross_entropy(logits_MW, target_M, reduction="sum"), {"accuracy": correct})


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionDistributions(_MaskedRegionTask):
    """`mrc-kl`."""

    name: str = "mrc-kl"

    def needs(self) -> frozenset[str]:
        return frozenset({"text", "regions", "class_probs"})

    def _values(self, regions: RegionSample, rows: Ints) -> np.ndarray:
        return regions.distributions()[rows]

    def loss(self, model: SingleStream, batch: MicroBatch) -> Loss:
        logits_MW = model.region_logits(self._masked_states(model, batch)).float()
        return Loss(F.kl_div(F.log_softmax(logits_MW, 1), batch.targets.values_MX.float(), reduction="sum"))
