"""Which of a detector's regions are kept, in which order, with which boxes: rules apart from any network.

- `caffe`: the rule behind the published features (`generate_tsv.py` of peteanderson80/bottom-up-attention, then
  LXMERT, UNITER, ViLBERT, MILVLG): NMS of the proposals for each class, a threshold, least and most boxes.
- `max-class`: py-bottom-up-attention's and Hugging Face's `do_nms`: each region's best class only, its regressed box,
  an NMS threshold raised until enough are left.
- `given`: all, as they came.

Ties: a stable sort, so that of equal scores the first region wins (PyTorch's order; NumPy's reversed sort, in LXMERT,
prefers the last).

Shape suffixes: R regions, K classes, W words of bits, k regions kept; 4 x1, y1, x2, y2 in original pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vlprep.detect.base import Regions
from vlprep.detect.boxes import nms, pairwise_iou
from vlprep.errors import SettingsError

_WORD = 63
"""Bits of an int64 without its sign."""
_PAIRS_AT_ONCE = 1 << 27
"""Pairs of regions, class by class, that `settled_nms` holds: 128 MB, and as much twice more while it works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaffeRule:
    """Per-class NMS on the proposals themselves ("don't worry about the regression", says the original)."""

    min_boxes: int = 10
    max_boxes: int = 100
    threshold: float = 0.2
    """Least `max_conf` of a region, as long as `min_boxes` are left."""
    nms: float = 0.3
    plus_one: bool = True
    """Areas count the border pixels: the published rule, whatever the network's own convention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxClassRule:
    """NMS over best classes, its threshold raised from the first of `nms` to the last."""

    min_boxes: int = 36
    max_boxes: int = 36
    nms: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRule:
    """Keep every region: its box was given."""


SelectionRule = CaffeRule | MaxClassRule | GivenRule


@dataclass(frozen=True, slots=True)
class Selection:
    """The regions that one image keeps, in the rule's own order."""

    keep_k: Tensor
    """Rows of the `Regions`, int64."""
    max_conf_k: Tensor
    """The confidence that the rule decided by."""
    boxes_k4: Tensor


def rule_named(name: str, min_boxes: int, max_boxes: int) -> SelectionRule:
    """Return `caffe`, `max-class` or `given` with these numbers of boxes.

    `max-class` starts at the published threshold: 0.3 for a fixed number, 0.5 for a range.

    Raises:
        SettingsError: No such rule, or no such range.
    """
    if not 1 <= min_boxes <= max_boxes:
        raise SettingsError(f"--boxes {min_boxes}-{max_boxes}: expected 1 <= least <= most")
    match name:
        case "caffe":
            return CaffeRule(min_boxes=min_boxes, max_boxes=max_boxes)
        case "max-class":
            start = 3 if min_boxes == max_boxes else 5
            return MaxClassRule(min_boxes=min_boxes, max_boxes=max_boxes, nms=tuple(n / 10 for n in range(start, 10)))
        case "given":
            return GivenRule()
    raise SettingsError(f"no selection rule {name!r}: one of caffe, max-class, given")


def select(regions: Regions, rule: SelectionRule) -> Selection:
    """Return which regions of an image are kept.

    `caffe` keeps the regions' order when their number lies within its range, and sorts by confidence when it had to add
    or cut, as published; `max-class` sorts by confidence.
    """
    match rule:
        case CaffeRule():
            return _caffe(regions, rule)
        case MaxClassRule():
            return _max_class(regions, rule)
        case GivenRule():
            every = torch.arange(len(regions), device=regions.features_RD.device)
            return Selection(every, regions.class_probs_RK.amax(dim=1), regions.proposals_R4)


def _caffe(regions: Regions, rule: CaffeRule) -> Selection:
    overlaps_RR = pairwise_iou(regions.proposals_R4, plus_one=rule.plus_one) > rule.nms
    class_nms = settled_nms if overlaps_RR.is_cuda else rank_parallel_nms
    survives_RK = class_nms(regions.class_probs_RK, overlaps_RR)
    max_conf_R = torch.where(survives_RK, regions.class_probs_RK, 0).amax(dim=1)
    keep_k = (max_conf_R >= rule.threshold).nonzero().flatten()
    if not rule.min_boxes <= len(keep_k) <= rule.max_boxes:
        wanted = rule.min_boxes if len(keep_k) < rule.min_boxes else rule.max_boxes
        keep_k = max_conf_R.sort(descending=True, stable=True).indices[:wanted]
    return Selection(keep_k, max_conf_R[keep_k], regions.proposals_R4[keep_k])


def _max_class(regions: Regions, rule: MaxClassRule) -> Selection:
    best_R = regions.class_probs_RK.amax(dim=1)
    keep_k = torch.zeros(0, dtype=torch.long, device=best_R.device)
    for threshold in rule.nms:
        keep_k = nms(regions.regressed_R4, best_R, threshold, plus_one=False)[: rule.max_boxes]
        if len(keep_k) >= rule.min_boxes:
            break
    return Selection(keep_k, best_R[keep_k], regions.regressed_R4[keep_k])


def rank_parallel_nms(scores_RK: Tensor, overlaps_RR: Tensor) -> Tensor:
    """Greedy NMS for all classes in one pass; returns (R, K) bool, which regions survive in which class.

    All classes share the boxes and so one overlap matrix. Step r settles the region of rank r in every class at once:
    R steps instead of K·R, with the outcome of K loops, bit for bit.

    Args:
        scores_RK: Ranks the regions of each class.
        overlaps_RR: Which pairs overlap by more than the threshold.
    """
    order_RK = scores_RK.t().sort(dim=1, descending=True, stable=True).indices.t().contiguous()
    others_RR = overlaps_RR & ~torch.eye(len(overlaps_RR), dtype=torch.bool, device=overlaps_RR.device)
    victims_RW = _packed(others_RR)
    dead_KW = victims_RW.new_zeros(scores_RK.shape[1], victims_RW.shape[1])
    words_RK, bits_RK = order_RK // _WORD, order_RK % _WORD
    for region_K, word_K, bit_K in zip(order_RK, words_RK, bits_RK, strict=True):
        # A dead region kills nothing; a live one cannot kill a live one of higher rank, which would have killed it.
        is_dead_K1 = (dead_KW.gather(1, word_K[:, None]) >> bit_K[:, None]) & 1
        dead_KW |= victims_RW[region_K] & (is_dead_K1 - 1)
    return ~_unpacked(dead_KW, len(overlaps_RR)).t()


def settled_nms(scores_RK: Tensor, overlaps_RR: Tensor) -> Tensor:
    """The same in a few large steps: on a GPU two thousand small ones take longer than the network.

    A region survives in a class unless a survivor of higher rank overlaps it. Begun with all of them, each step says so
    of every region anew; ranks settle from the highest down, and what no longer changes is what the loop finds.
    """
    rank_KR = scores_RK.t().sort(dim=1, descending=True, stable=True).indices.argsort(dim=1)
    classes = max(1, _PAIRS_AT_ONCE // max(1, len(overlaps_RR)) ** 2)
    return torch.cat([_settled(ranks, overlaps_RR) for ranks in torch.split(rank_KR, classes)]).t()


def _settled(rank_KR: Tensor, overlaps_RR: Tensor) -> Tensor:
    """(K, R) bool, which regions survive."""
    threatens_KRR = (rank_KR[:, None, :] < rank_KR[:, :, None]) & overlaps_RR
    alive_KR = torch.ones_like(rank_KR, dtype=torch.bool)
    while True:
        settled_KR = ~(threatens_KRR & alive_KR[:, None, :]).any(dim=2)
        if torch.equal(settled_KR, alive_KR):
            return alive_KR
        alive_KR = settled_KR


def _packed(flags_RR: Tensor) -> Tensor:
    """Rows of flags to words of bits, (R, W) int64: an eighth of the memory that a step of the NMS has to touch."""
    words = -(-flags_RR.shape[1] // _WORD)
    padded = F.pad(flags_RR, (0, words * _WORD - flags_RR.shape[1])).view(len(flags_RR), words, _WORD)
    return (padded.long() << torch.arange(_WORD, device=flags_RR.device)).sum(dim=2)


def _unpacked(words_KW: Tensor, count: int) -> Tensor:
    bits = (words_KW[:, :, None] >> torch.arange(_WORD, device=words_KW.device)) & 1
    return bits.flatten(1)[:, :count].bool()
