from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from detect.published import max_conf_by_loop
from torchvision.ops import nms

from vlprep.detect.base import Regions
from vlprep.detect.boxes import pairwise_iou
from vlprep.detect.selection import (
    CaffeRule,
    GivenRule,
    MaxClassRule,
    rank_parallel_nms,
    rule_named,
    select,
    settled_nms,
)
from vlprep.errors import SettingsError


def regions(boxes: torch.Tensor, probs: torch.Tensor) -> Regions:
    return Regions(
        proposals_R4=boxes,
        objectness_R=torch.zeros(len(boxes)),
        features_RD=torch.zeros(len(boxes), 1),
        class_probs_RK=probs,
        background_R=1 - probs.sum(dim=1),
        regressed_R4=boxes + 1,
    )


def random_regions(count: int, classes: int, seed: int) -> Regions:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator) * 100
    boxes = torch.cat((corners.amin(dim=1), corners.amax(dim=1) + 20), dim=1)
    probs = (3 * torch.randn(count, classes + 1, generator=generator)).softmax(dim=1)
    return regions(boxes, probs[:, :-1])


@pytest.mark.parametrize("count", [1, 5, 62, 63, 64, 150])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("class_nms", [rank_parallel_nms, settled_nms])
def test_all_classes_together_are_the_loop(
    class_nms: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    count: int,
    ties: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also past the bits of one word, with a part of the classes at once, and with equal scores (the first wins)."""
    monkeypatch.setattr("vlprep.detect.selection._PAIRS_AT_ONCE", 7 * count**2)
    found = random_regions(count, 40, count)
    scores = (found.class_probs_RK * 20).round() / 20 if ties else found.class_probs_RK
    overlaps = pairwise_iou(found.proposals_R4, plus_one=False) > 0.3
    survives = class_nms(scores, overlaps)
    for column in range(scores.shape[1]):
        alone = torch.zeros(count, dtype=torch.bool)
        left = scores[:, column].sort(descending=True, stable=True).indices.tolist()
        while left:
            best = left.pop(0)
            alone[best] = True
            left = [row for row in left if not overlaps[best, row]]
        assert torch.equal(survives[:, column], alone)


@pytest.mark.parametrize("plus_one", [False, True])
def test_confidences_are_those_of_the_loop_over_classes(plus_one: bool) -> None:
    found = random_regions(80, 60, 1)
    selection = select(found, CaffeRule(min_boxes=80, plus_one=plus_one))
    best = max_conf_by_loop(found, 0.3, plus_one=plus_one)
    assert torch.equal(selection.max_conf_k, best[selection.keep_k])


def test_caffe_order() -> None:
    """Rows in order while their number is within the range, by confidence when some were added or cut."""
    boxes = torch.arange(5.0)[:, None] * 100 + torch.tensor([0.0, 0, 50, 50])
    found = regions(boxes, torch.tensor([[0.3], [0.1], [0.9], [0.2], [0.5]]))
    within = select(found, CaffeRule(min_boxes=2, max_boxes=4))
    assert within.keep_k.tolist() == [0, 2, 3, 4]
    assert select(found, CaffeRule(min_boxes=5, max_boxes=5)).keep_k.tolist() == [2, 4, 0, 3, 1]
    assert select(found, CaffeRule(min_boxes=1, max_boxes=2)).keep_k.tolist() == [2, 4]
    assert select(found, CaffeRule(min_boxes=10, max_boxes=10)).keep_k.tolist() == [2, 4, 0, 3, 1]
    assert torch.equal(within.boxes_k4, found.proposals_R4[within.keep_k])


def test_a_box_without_a_class_of_its_own_has_no_confidence() -> None:
    same = torch.tensor([[0.0, 0, 50, 50]]).repeat(2, 1)
    found = regions(same, torch.tensor([[0.6, 0.3], [0.5, 0.2]]))
    assert select(found, CaffeRule(min_boxes=2)).max_conf_k.tolist() == pytest.approx([0.6, 0])


def test_tied_proposals_go_to_the_first(golden: Path) -> None:
    """Two proposals pooled from the same cells, so that all their classes tie; PyTorch's order, as MILVLG's."""
    with np.load(golden / "butd/caffe_rule_ties.npz") as ties:
        found = regions(torch.from_numpy(ties["boxes"]), torch.from_numpy(ties["cls_prob"]))
        best = max_conf_by_loop(found, 0.3, plus_one=True)
        selection = select(found, CaffeRule(min_boxes=50))
        assert torch.equal(selection.max_conf_k, best[selection.keep_k])


def test_max_class_raises_its_threshold_until_enough_are_left() -> None:
    found = random_regions(60, 30, 2)
    best = found.class_probs_RK.amax(dim=1)
    counts = {n / 10: len(nms(found.regressed_R4, best, n / 10)) for n in range(3, 10)}
    wanted = counts[0.6]
    assert counts[0.5] < wanted
    selection = select(found, MaxClassRule(min_boxes=wanted, max_boxes=wanted))
    assert torch.equal(selection.keep_k, nms(found.regressed_R4, best, 0.6)[:wanted])
    assert torch.equal(selection.boxes_k4, found.regressed_R4[selection.keep_k])
    assert len(select(found, MaxClassRule(min_boxes=61, max_boxes=100)).keep_k) == counts[0.9]


def test_given_keeps_all() -> None:
    found = random_regions(4, 3, 3)
    selection = select(found, GivenRule())
    assert selection.keep_k.tolist() == [0, 1, 2, 3]
    assert torch.equal(selection.max_conf_k, found.class_probs_RK.amax(dim=1))


@pytest.mark.parametrize("rule", [CaffeRule(), MaxClassRule(), GivenRule()])
def test_no_regions(rule: CaffeRule | MaxClassRule | GivenRule) -> None:
    selection = select(random_regions(3, 5, 0).rows(torch.zeros(0, dtype=torch.long)), rule)
    assert (len(selection.keep_k), len(selection.max_conf_k), selection.boxes_k4.shape) == (0, 0, (0, 4))


def test_rules_by_name() -> None:
    assert rule_named("caffe", 10, 100) == CaffeRule()
    assert rule_named("max-class", 36, 36) == MaxClassRule()
    assert rule_named("max-class", 10, 100) == MaxClassRule(min_boxes=10, max_boxes=100, nms=(0.5, 0.6, 0.7, 0.8, 0.9))
    assert rule_named("given", 1, 1) == GivenRule()
    with pytest.raises(SettingsError, match="max-class"):
        rule_named("best", 1, 1)
    with pytest.raises(SettingsError, match="--boxes 5-4"):
        rule_named("caffe", 5, 4)
