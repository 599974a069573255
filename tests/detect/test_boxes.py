from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import box_iou

from vlprep.detect.anchors import cell_anchors, map_anchors
from vlprep.detect.boxes import clip, decode, longer_than, nms, pairwise_iou
from vlprep.detect.butd import BUTD, BUTD_CAFFE

ONES = (1.0, 1.0, 1.0, 1.0)


def test_caffe_anchors() -> None:
    """As `generate_anchors(scales=(4, 8, 16, 32))` of py-faster-rcnn prints them: ratio-major, centred on 7.5."""
    anchors = cell_anchors(BUTD_CAFFE.anchors)
    assert anchors.shape == (12, 4)
    assert anchors[[0, 3, 4, 11]].tolist() == [
        [-38, -16, 53, 31],
        [-360, -184, 375, 199],
        [-24, -24, 39, 39],
        [-168, -344, 183, 359],
    ]


def test_detectron_anchors() -> None:
    """Size-major, centred on 0."""
    anchors = cell_anchors(BUTD.anchors)
    torch.testing.assert_close(anchors[0], torch.tensor([-45.2548, -22.6274, 45.2548, 22.6274]))
    torch.testing.assert_close(anchors[1], torch.tensor([-32.0, -32, 32, 32]))
    torch.testing.assert_close(anchors[4], torch.tensor([-64.0, -64, 64, 64]))


def test_map_anchors_are_rows_first_and_cells_last() -> None:
    cell = torch.tensor([[0.0, 0, 1, 1], [0, 0, 2, 2]])
    anchors = map_anchors(cell, 2, 3)
    assert anchors.shape == (12, 4)
    assert anchors[1].tolist() == [0, 0, 2, 2]
    assert anchors[2].tolist() == [16, 0, 17, 1]
    assert anchors[6].tolist() == [0, 16, 1, 17]


def test_decode_moves_and_grows() -> None:
    box = torch.tensor([[10.0, 20, 30, 60]])
    same = decode(box, torch.zeros(1, 4), weights=ONES, plus_one=False)
    torch.testing.assert_close(same, box)
    moved = decode(box, torch.tensor([[1.0, -5, 5 * math.log(2), 0]]), weights=(10, 10, 5, 5), plus_one=False)
    torch.testing.assert_close(moved, torch.tensor([[2.0, 0, 42, 40]]))


def test_decode_with_plus_one_counts_the_border() -> None:
    """Side 21 about 20.5 and so to 31: one more than it came with, as in Caffe."""
    same = decode(torch.tensor([[10.0, 20, 30, 60]]), torch.zeros(1, 4), weights=ONES, plus_one=True)
    torch.testing.assert_close(same, torch.tensor([[10.0, 20, 31, 61]]))


def test_growth_is_limited() -> None:
    grown = decode(torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([[0.0, 0, 99, 99]]), weights=ONES, plus_one=False)
    torch.testing.assert_close(grown, torch.tensor([[-492.0, -492, 508, 508]]))


def test_clip() -> None:
    box = torch.tensor([[-5.0, -5, 105, 55]])
    assert clip(box, 50, 100, plus_one=False).tolist() == [[0, 0, 100, 50]]
    assert clip(box, 50, 100, plus_one=True).tolist() == [[0, 0, 99, 49]]


def test_longer_than() -> None:
    boxes = torch.tensor([[0.0, 0, 15, 15], [0, 0, 16, 16], [0, 0, 0, 20], [0, 0, 20, 15]])
    assert longer_than(boxes, (16, 16), plus_one=True).tolist() == [False, True, False, False]
    assert longer_than(boxes, (0, 0), plus_one=False).tolist() == [True, True, False, True]


def test_pairwise_iou() -> None:
    boxes = torch.rand(20, 4).cumsum(dim=1)
    torch.testing.assert_close(pairwise_iou(boxes, plus_one=False), box_iou(boxes, boxes))
    pair = torch.tensor([[0.0, 0, 9, 9], [5, 0, 14, 9]])
    assert pairwise_iou(pair, plus_one=True)[0, 1].item() == pytest.approx(50 / 150)
    assert pairwise_iou(pair, plus_one=False)[0, 1].item() == pytest.approx(36 / 126)


def test_nms_plus_one_suppresses_at_the_threshold() -> None:
    """Areas of 10 by 10 with the border: 60 of 140 in common, exactly 3/7; without the border it is 45/117."""
    boxes = torch.tensor([[0.0, 0, 9, 9], [4, 0, 13, 9]])
    scores = torch.tensor([0.5, 0.9])
    tie = float(torch.tensor(60.0) / 140)
    assert nms(boxes, scores, tie, plus_one=True).tolist() == [1]
    assert nms(boxes, scores, tie + 1e-6, plus_one=True).tolist() == [1, 0]
    assert nms(boxes, scores, 0.4, plus_one=False).tolist() == [1, 0]
    assert nms(boxes, scores, 0.4, plus_one=True).tolist() == [1]
