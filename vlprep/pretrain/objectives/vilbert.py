"""ViLBERT's three tasks, trained together: `vilbert` (facebookresearch/vilbert-multi-task vilbert.py:1490-1600,
datasets/concept_cap_dataset.py:230-700).

    loss    = align + mlm + regions
    align     mean over sequences of -log softmax(W dropout(text * image))[label], label 0 = aligned as published; half
              of the images get the text of another one
    mlm       mean over masked pieces of -log softmax(logits)[piece]
    regions   mean over masked regions of, by `target` (`--visual_target` 0, 1, 2),
              kl    KL(detector's distribution || softmax(logits)), background included
              mse   mean over dimensions of (prediction - feature)^2
              nce   -log of the own feature's share of exp(prediction . feature), with 254 others': 178 of other images
                    of the micro-batch, 76 of the same one (published as 255: 70 % and 30 %, rounded down)

Text: 15 %, 80-10-10, nothing forced. Regions: 15 %, 90 % zero, 10 % kept. As in the paper, regions that overlap a
masked one by an IoU above 0.4 are hidden too, without being targets; the code lists them, but leaves their features
as they are: `leak_protection = false`. A first region, the mean of those that are neither masked nor overlap, stands
for the image. With `only_matched` (the published command's `--objective 1`) nothing is learned from the masks of a
wrong pair.

Deviations: random pieces come from the words only; a wrong text is never one of the same image; the published mean adds
up all regions that are not zeroed, but divides by the number of those that do not overlap (padding included); the
published label id 0 is lost with `--objective 1`. Where nothing is masked the loss is 0, not NaN. An image alone in its
micro-batch, or a region alone in its image, has all of its 254 others from where there are any.

Shape suffixes: M masked pieces, N masked regions, W classes, D feature size, C candidates, B sequences, R regions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vlprep.errors import SettingsError
from vlprep.pretrain.base import Inputs, Loss, MicroBatch, RegionSample, Sample
from vlprep.pretrain.masking import Ints, mask_regions, mask_tokens
from vlprep.pretrain.models.parts import dot_products
from vlprep.pretrain.models.vilbert import Vilbert, VilbertSettings
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.packing import Example, join, pack, region_rows, text_rows
from vlprep.pretrain.settings import ModelSettings, ObjectiveSettings

_MOST_OVERLAP = 0.4
_ACROSS, _INSIDE = 178, 76


@dataclass(frozen=True, slots=True)
class VilbertTargets:
    text_rows_M: Tensor
    ids_M: Tensor
    region_rows_N: Tensor
    labels_B: Tensor
    """1 = aligned; the published head's classes are the other way round."""
    distributions_NW: Tensor | None = None
    """For `kl`."""
    candidates_NC: Tensor | None = None
    """For `nce`: rows of the region stream, the masked one's own first."""


@dataclass(frozen=True, slots=True)
class _MaskedPair:
    sequence: Example
    positions: Ints
    ids: Ints
    rows: Ints
    distributions: NDArray[np.float32] | None
    label: int
    draw: np.random.Generator
    """What `nce` draws others by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VilbertTaskSettings(ObjectiveSettings):
    leak_protection: bool = True
    """Hide what overlaps a masked region, as the paper says and its code does not."""
    only_matched: bool = True
    """Learn from the masks of matching pairs only (--objective 1)."""
    target: Literal["kl", "mse", "nce"] = "kl"
    """What a masked region is to be: its classes' distribution, its feature, or its feature among others'
    (--visual_target 0, 1, 2).
    """

    def require_fit(self, model: ModelSettings) -> None:
        if isinstance(model, VilbertSettings) and (self.target == "kl") != (model.region_outputs == "classes"):
            wanted = "classes" if self.target == "kl" else "features"
            raise SettingsError(f'objectives.vilbert.target {self.target} needs model.region_outputs = "{wanted}"')


@dataclass(frozen=True, slots=True, kw_only=True)
class VilbertTasks:
    """`vilbert`."""

    rule: SequenceRule
    settings: VilbertTaskSettings = VilbertTaskSettings()
    negatives: float = 0.5
    name: str = "vilbert"

    def extra_tokens(self, lengths_S: Ints, seen_S: Ints) -> int:
        """The region that stands for the image."""
        return 1

    def needs(self) -> frozenset[str]:
        return frozenset({"text", "regions", *(("class_probs",) if self.settings.target == "kl" else ())})

    def example(self, sample: Sample, draw: np.random.Generator, other: Sample | None = None) -> _MaskedPair:
        """`other` is a sample of another image, whose text is used for half of the draws."""
        assert other is not None
        regions, words = sample.regions, self.rule.words
        assert regions is not None
        mismatch = bool(draw.random() < self.negatives)
        ids = self.rule.text(other if mismatch else sample)
        masked, targets = mask_tokens(
            ids, draw, mask=words.mask, replacements=range(words.first_word, words.size), force_one=False
        )
        masks = mask_regions(len(regions.features_RD), draw, hidden=0.9)
        near = overlapping(regions.boxes_R4, masks.targets_R)
        hidden = masks.hidden_R | (near & ~masks.targets_R) if self.settings.leak_protection else masks.hidden_R
        seen = replace(sample, regions=with_global_region(regions, ~(masks.targets_R | near)))
        sequence = self.rule.sequence(masked, seen, masked_R=np.append(False, hidden))
        rows = np.flatnonzero(masks.targets_R)
        if mismatch and self.settings.only_matched:
            targets, rows = targets[:0], rows[:0]
        return _MaskedPair(
            sequence,
            targets + 1,  # [CLS] comes first,
            ids[targets],
            rows + 1,  # and the global region
            regions.distributions()[rows] if self.settings.target == "kl" else None,
            int(not mismatch),
            draw,
        )

    def collate(self, examples: list[_MaskedPair]) -> MicroBatch:
        sequences = [example.sequence for example in examples]
        distributions = [example.distributions for example in examples if example.distributions is not None]
        targets = VilbertTargets(
            text_rows(sequences, [example.positions for example in examples]),
            join([example.ids for example in examples]),
            region_rows(sequences, [example.rows for example in examples]),
            torch.tensor([example.label for example in examples]),
            distributions_NW=torch.from_numpy(np.concatenate(distributions)) if distributions else None,
            candidates_NC=_candidates(examples) if self.settings.target == "nce" else None,
        )
        return MicroBatch(
            objective=self.name,
            inputs=pack(sequences),
            targets=targets,
            count=len(examples),
            real_tokens=sum(sequence.length for sequence in sequences),
            term_counts={"mlm": len(targets.ids_M), "regions": len(targets.region_rows_N)},
        )

    def pair(self, text: Sample, seen: Sample) -> Example:
        """A text with an image, nothing masked."""
        assert seen.regions is not None
        regions = with_global_region(seen.regions, np.ones(len(seen.regions.features_RD), np.bool_))
        return self.rule.sequence(self.rule.text(text), replace(seen, regions=regions))

    def scores(self, model: Vilbert, inputs: Inputs) -> Tensor:
        """(B,) how much more aligned than not, for ranking."""
        logits_B2 = model.alignment_logits(model.encode(inputs), inputs).float()
        return logits_B2[:, 0] - logits_B2[:, 1]

    def loss(self, model: Vilbert, batch: MicroBatch) -> Loss:
        targets: VilbertTargets = batch.targets
        streams = model.encode(batch.inputs)
        words_MW = model.word_logits(streams.text_PH[targets.text_rows_M]).float()
        outputs_NW = model.region_outputs(streams.regions_RH[targets.region_rows_N]).float()
        align_B2 = model.alignment_logits(streams, batch.inputs).float()
        classes_B = 1 - targets.labels_B
        terms = {
            "mlm": F.cross_entropy(words_MW, targets.ids_M, reduction="sum"),
            "regions": _region_loss(outputs_NW, targets, batch.inputs),
        }
        parts = {
            "accuracy": (align_B2.argmax(1) == classes_B).sum(),
            "mlm accuracy": (words_MW.argmax(1) == targets.ids_M).sum(),
        }
        return Loss(F.cross_entropy(align_B2, classes_B, reduction="sum"), parts, terms)


def _region_loss(outputs_NW: Tensor, targets: VilbertTargets, inputs: Inputs) -> Tensor:
    if targets.distributions_NW is not None:
        return F.kl_div(F.log_softmax(outputs_NW, 1), targets.distributions_NW, reduction="sum")
    assert inputs.regions is not None
    features_RD = inputs.regions.features_RD.float()  # also of those that are hidden
    if targets.candidates_NC is None:
        return (outputs_NW - features_RD[targets.region_rows_N]).square().mean(1).sum()
    scores_NC = dot_products(outputs_NW, features_RD).gather(1, targets.candidates_NC)
    return -scores_NC.log_softmax(1)[:, 0].sum()


def _candidates(examples: list[_MaskedPair]) -> Tensor:
    """(N, C) rows of the region stream: each masked region's own, then those drawn to be told from it; the first region
    of an image, which stands for all of it, never.

    Raises `SettingsError` where there is no other region.
    """
    counts_B = np.array([example.sequence.num_visual for example in examples])
    starts_B = np.cumsum(counts_B) - counts_B
    regions = np.setdiff1d(np.arange(counts_B.sum()), starts_B)
    drawn = [np.empty((0, 1 + _ACROSS + _INSIDE), np.int64)]
    for example, start, count in zip(examples, starts_B.tolist(), counts_B.tolist(), strict=True):
        across = regions[(regions < start) | (regions >= start + count)]
        for own in (start + example.rows).tolist():
            inside = np.setdiff1d(np.arange(start + 1, start + count), own)
            if not len(across) and not len(inside):
                raise SettingsError(
                    "a lone region cannot be told from others: raise batches.tokens or data.min_regions"
                )
            number = _ACROSS if len(across) and len(inside) else (_ACROSS + _INSIDE) * bool(len(across))
            others = [
                example.draw.choice(pool, size)
                for pool, size in ((across, number), (inside, _ACROSS + _INSIDE - number))
                if size
            ]
            drawn.append(np.concatenate([[own], *others])[None])
    return torch.from_numpy(np.concatenate(drawn))


def overlapping(boxes_R4: NDArray[np.float32], targets_R: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(R,) bool: boxes whose IoU with a masked one is above 0.4; the masked ones themselves are."""
    targets_N4 = boxes_R4[targets_R]
    corner_RN2 = np.maximum(boxes_R4[:, None, :2], targets_N4[None, :, :2])
    opposite_RN2 = np.minimum(boxes_R4[:, None, 2:], targets_N4[None, :, 2:])
    shared_RN = (opposite_RN2 - corner_RN2).clip(min=0).prod(2)
    areas_R = (boxes_R4[:, 2:] - boxes_R4[:, :2]).prod(1)
    united_RN = areas_R[:, None] + areas_R[targets_R][None] - shared_RN
    near: NDArray[np.bool_] = (shared_RN > _MOST_OVERLAP * united_RN).any(1) | targets_R
    return near


def with_global_region(regions: RegionSample, seen_R: NDArray[np.bool_]) -> RegionSample:
    """The regions behind one more, the whole image, whose feature is the mean of those that may be seen (0 if none)."""
    features_RD = regions.features_RD
    mean_D = features_RD[seen_R].mean(0, dtype=np.float32) if seen_R.any() else np.zeros(features_RD.shape[1])
    return RegionSample(
        features_RD=np.concatenate([mean_D[None].astype(features_RD.dtype), features_RD]),
        boxes_R4=np.concatenate([np.array([[0, 0, 1, 1]], np.float32), regions.boxes_R4]),
        object_ids_R=np.append(np.uint16(0), regions.object_ids_R),
    )
