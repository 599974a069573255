from __future__ import annotations

import pytest
import torch
from torchvision.ops import roi_pool

from vlprep.detect.windows import distinct_windows, pool


def pooled(map_Chw: torch.Tensor, boxes_R4: torch.Tensor, bins: int = 14) -> torch.Tensor:
    windows = distinct_windows(boxes_R4, (map_Chw.shape[1], map_Chw.shape[2]), bins, 1 / 16)
    return pool(map_Chw.permute(1, 2, 0).contiguous(), windows)[windows.of_bin_RSS].permute(0, 3, 1, 2)


@pytest.mark.parametrize(("height", "width"), [(15, 23), (38, 63), (1, 1), (2, 70), (3, 1)])
def test_equals_torchvision_bit_for_bit(height: int, width: int) -> None:
    """On random boxes, some beyond the map, and with negative values, so that an empty bin's 0 shows."""
    generator = torch.Generator().manual_seed(height)
    map_Chw = torch.randn(8, height, width, generator=generator) - 3
    corners = torch.rand(200, 2, 2, generator=generator) * torch.tensor([width, height]) * 24 - 40
    boxes = torch.cat((corners.amin(dim=1), corners.amax(dim=1)), dim=1)
    assert torch.equal(pooled(map_Chw, boxes), roi_pool(map_Chw[None], [boxes], 14, 1 / 16))


def test_rounding_of_halves() -> None:
    """360 / 16 is 22.5: C rounds it to 23, Python to 22. Negative halves go down."""
    map_Chw = torch.arange(15 * 23.0).view(1, 15, 23)
    boxes = torch.tensor([[8.0, 8, 360, 200], [-8, -24, 344, 232], [200, 8, 360, 24], [24, 40, 24, 40]])
    assert torch.equal(pooled(map_Chw, boxes), roi_pool(map_Chw[None], [boxes], 14, 1 / 16))


def test_repeated_boxes_cost_no_windows() -> None:
    box = torch.tensor([[10.0, 10, 200, 150]])
    once = distinct_windows(box, (20, 20), 14, 1 / 16)
    often = distinct_windows(box.repeat(5, 1), (20, 20), 14, 1 / 16)
    assert len(often.corners_U4) == len(once.corners_U4) <= 14 * 14
