"""Anchor boxes: those of one cell in the two published conventions, and all of a map.

Shape suffixes: A anchors a cell, N = h·w·A anchors of a map, 4 x1, y1, x2, y2 in network pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlprep.detect.spec import AnchorSpec

STRIDE = 16


def cell_anchors(spec: AnchorSpec) -> Tensor:
    """Return (A, 4) anchors of the cell at the origin.

    Sources: `generate_anchors.py` of py-faster-rcnn (`caffe`), `anchor_generator.py` of detectron2 (`detectron`).
    """
    if spec.convention == "detectron":
        boxes = []
        for size in spec.sizes:
            for ratio in spec.ratios:
                width = (size**2 / ratio) ** 0.5
                height = ratio * width
                boxes.append((-width / 2, -height / 2, width / 2, height / 2))
        return torch.tensor(boxes)
    centre = (STRIDE - 1) / 2
    boxes = []
    for ratio in spec.ratios:
        width = round((STRIDE**2 / ratio) ** 0.5)  # rounded before the sizes multiply it, as published
        height = round(width * ratio)
        for size in spec.sizes:
            scale = size / STRIDE
            half_w, half_h = (width * scale - 1) / 2, (height * scale - 1) / 2
            boxes.append((centre - half_w, centre - half_h, centre + half_w, centre + half_h))
    return torch.tensor(boxes)


def map_anchors(cell_A4: Tensor, height: int, width: int) -> Tensor:
    """Return (h·w·A, 4) anchors of a map with these sides, rows first, the cell's anchors last."""
    y = torch.arange(height, device=cell_A4.device) * STRIDE
    x = torch.arange(width, device=cell_A4.device) * STRIDE
    shift_y, shift_x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack((shift_x, shift_y, shift_x, shift_y), dim=-1).float()
    return (shifts[:, :, None] + cell_A4).reshape(-1, 4)
