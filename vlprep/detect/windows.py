"""Max RoI pooling by distinct windows.

Proposals overlap, so that of the 300·14·14 bins of an image most repeat: 58 800 bins of a full-size reference image are
8 000 distinct windows of its map. Each is pooled once, and whatever follows bin by bin (a 1×1 convolution) can be
computed once too. Values equal `torchvision.ops.roi_pool` bit for bit.

Shape suffixes: R regions, S bins a side, U distinct windows, h, w sides of the map, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Windows(NamedTuple):
    """Which cells each bin of each region covers."""

    corners_U4: Tensor
    """y0, x0, y1, x1 of each distinct window, ends excluded."""
    of_bin_RSS: Tensor
    """The window of each bin."""


def distinct_windows(boxes_R4: Tensor, size_hw: tuple[int, int], bins: int, scale: float) -> Windows:
    """Return the windows of `bins`² bins a box (x1, y1, x2, y2; times `scale` in cells), by RoIPool's rounding."""
    height, width = size_hw
    x0_RS, x1_RS = _axis_bins(boxes_R4[:, 0] * scale, boxes_R4[:, 2] * scale, width, bins)
    y0_RS, y1_RS = _axis_bins(boxes_R4[:, 1] * scale, boxes_R4[:, 3] * scale, height, bins)
    y_RS, x_RS = y0_RS * (height + 1) + y1_RS, x0_RS * (width + 1) + x1_RS
    keys = y_RS[:, :, None] * (width + 1) ** 2 + x_RS[:, None, :]
    distinct_U, of_bin_RSS = torch.unique(keys, return_inverse=True)
    y_U, x_U = distinct_U // (width + 1) ** 2, distinct_U % (width + 1) ** 2
    corners = (y_U // (height + 1), x_U // (width + 1), y_U % (height + 1), x_U % (width + 1))
    return Windows(torch.stack(corners, dim=1), of_bin_RSS)


def pool(map_hwC: Tensor, windows: Windows) -> Tensor:
    """Return (U, C) maxima of the distinct windows; an empty window is 0.

    A table of maxima over windows of 1, 2, 4, … cells a side answers any window by four lookups.
    """
    height, width, channels = map_hwC.shape
    y0, x0, y1, x1 = windows.corners_U4.unbind(1)
    tall, wide = (y1 - y0).clamp(min=0), (x1 - x0).clamp(min=0)
    level_y, level_x = _floor_log2(tall), _floor_log2(wide)
    levels_x = int(level_x.max()) + 1
    tables = []
    columns = map_hwC
    for step_y in range(int(level_y.max()) + 1):
        cells = columns
        for step_x in range(levels_x):
            tables.append(cells)
            cells = _maxima_of_pairs(cells, 1, 2**step_x)
        columns = _maxima_of_pairs(columns, 0, 2**step_y)
    table = torch.stack(tables).view(-1, channels)

    base = (level_y * levels_x + level_x) * height * width
    empty = (tall == 0) | (wide == 0)
    top, bottom = (base + y * width for y in (y0, y1 - 2**level_y))
    left, right = x0, x1 - 2**level_x
    top, bottom, left, right = (index.masked_fill(empty, 0) for index in (top, bottom, left, right))
    maxima_UC = table[top + left]
    for index in (top + right, bottom + left, bottom + right):
        torch.maximum(maxima_UC, table[index], out=maxima_UC)
    return maxima_UC.masked_fill_(empty[:, None], 0)


def _axis_bins(low_R: Tensor, high_R: Tensor, cells: int, bins: int) -> tuple[Tensor, Tensor]:
    first, last = _round_away(low_R), _round_away(high_R)
    size_R1 = ((last - first + 1).clamp(min=1) / bins)[:, None]
    number_S = torch.arange(bins, device=low_R.device)
    start = torch.floor(number_S * size_R1) + first[:, None]
    stop = torch.ceil((number_S + 1) * size_R1) + first[:, None]
    return start.clamp(0, cells).long(), stop.clamp(0, cells).long()


def _round_away(x: Tensor) -> Tensor:
    """Halves away from zero, as C's `round`; PyTorch's goes to even."""
    whole = x.trunc()
    return whole + torch.where((x - whole).abs() >= 0.5, x.sign(), torch.zeros_like(x))


def _floor_log2(x: Tensor) -> Tensor:
    return torch.log2(x.clamp(min=1).float()).floor().long()


def _maxima_of_pairs(x_hwC: Tensor, dim: int, step: int) -> Tensor:
    """Maxima of cells `step` apart along `dim`; the last `step` cells have no partner and stay."""
    out = x_hwC.clone()
    pairs = x_hwC.shape[dim] - step
    if pairs > 0:
        torch.maximum(x_hwC.narrow(dim, 0, pairs), x_hwC.narrow(dim, step, pairs), out=out.narrow(dim, 0, pairs))
    return out
