"""Box arithmetic in both conventions: plain corners, and Caffe's, where a side is x2 - x1 + 1.

Shape suffixes: R boxes, 4 x1, y1, x2, y2 (or dx, dy, dw, dh).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms as torchvision_nms

_LARGEST_LOG_SCALE = math.log(1000 / 16)
"""A box may not grow more than from 16 to 1000 pixels (detectron2)."""


def decode(
    boxes_R4: Tensor, deltas_R4: Tensor, *, weights: tuple[float, float, float, float], plus_one: bool
) -> Tensor:
    """Return `boxes_R4` moved by `deltas_R4` (Faster R-CNN, eq. 2), deltas divided by `weights` first."""
    one = float(plus_one)
    width = boxes_R4[:, 2] - boxes_R4[:, 0] + one
    height = boxes_R4[:, 3] - boxes_R4[:, 1] + one
    dx, dy, dw, dh = (deltas_R4 / deltas_R4.new_tensor(weights)).unbind(1)
    centre_x = boxes_R4[:, 0] + 0.5 * width + dx * width
    centre_y = boxes_R4[:, 1] + 0.5 * height + dy * height
    half_w = 0.5 * width * dw.clamp(max=_LARGEST_LOG_SCALE).exp()
    half_h = 0.5 * height * dh.clamp(max=_LARGEST_LOG_SCALE).exp()
    # Caffe keeps x2 = centre + half: its decoded boxes are one pixel wider than its own convention would have them.
    return torch.stack((centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h), dim=1)


def clip(boxes_R4: Tensor, height: float, width: float, *, plus_one: bool) -> Tensor:
    """Return the boxes cut to the image: 0..w, or 0..w - 1 with `plus_one`."""
    limits = boxes_R4.new_tensor((width, height, width, height)) - float(plus_one)
    return torch.minimum(boxes_R4.clamp(min=0), limits)


def longer_than(boxes_R4: Tensor, side_xy: tuple[float, float], *, plus_one: bool) -> Tensor:
    """Return which boxes are not empty and have sides longer than `side_xy`."""
    sides = boxes_R4[:, 2:] - boxes_R4[:, :2]
    return ((sides > 0) & (sides + float(plus_one) > sides.new_tensor(side_xy))).all(dim=1)


def nms(boxes_R4: Tensor, scores_R: Tensor, threshold: float, *, plus_one: bool) -> Tensor:
    """Return the rows that survive, by descending score.

    With `plus_one`, areas count the border pixels and an overlap equal to the threshold suppresses, as in
    `nms_cpu.cpp` of MILVLG/bottom-up-attention.pytorch.
    """
    if plus_one:
        boxes_R4 = boxes_R4 + boxes_R4.new_tensor((0, 0, 1, 1))
        threshold = float(np.nextafter(np.float32(threshold), np.float32(0)))
    kept: Tensor = torchvision_nms(boxes_R4, scores_R, threshold)
    return kept


def pairwise_iou(boxes_R4: Tensor, *, plus_one: bool) -> Tensor:
    """Return (R, R) intersection over union."""
    one = float(plus_one)
    low = torch.maximum(boxes_R4[:, None, :2], boxes_R4[None, :, :2])
    high = torch.minimum(boxes_R4[:, None, 2:], boxes_R4[None, :, 2:])
    common = (high - low + one).clamp(min=0).prod(dim=2)
    area = (boxes_R4[:, 2:] - boxes_R4[:, :2] + one).prod(dim=1)
    return common / (area[:, None] + area[None, :] - common)
