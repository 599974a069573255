from __future__ import annotations

import pytest
import torch
from torch import nn

from vlprep.detect.tiled_conv import TiledConvolution, tile_convolutions


@pytest.mark.parametrize("size", [(1, 1), (4, 8), (13, 22)])
@pytest.mark.parametrize("tile", [4, 7])
def test_is_the_convolution(size: tuple[int, int], tile: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 24, 3, padding=1).requires_grad_(False)
    x = torch.randn(2, 16, *size).contiguous(memory_format=torch.channels_last)
    found = TiledConvolution(conv, tile)(x)
    expected = conv(x)
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, atol=2e-3 if tile == 7 else 5e-5, rtol=0)


def test_replaces_what_gains_by_it() -> None:
    wide, narrow, strided, dilated, pointwise = (
        nn.Conv2d(128, 8, 3, padding=1),
        nn.Conv2d(64, 8, 3, padding=1),
        nn.Conv2d(128, 8, 3, 2, padding=1),
        nn.Conv2d(128, 8, 3, padding=2, dilation=2),
        nn.Conv2d(128, 8, 1),
    )
    network = nn.Sequential(wide, nn.Sequential(narrow, strided, wide), dilated, pointwise).requires_grad_(False)
    tile_convolutions(network, 4)
    flat = [module for module in network.modules() if isinstance(module, nn.Conv2d | TiledConvolution)]
    assert [type(module) for module in flat] == [
        TiledConvolution,
        nn.Conv2d,
        nn.Conv2d,
        TiledConvolution,
        nn.Conv2d,
        nn.Conv2d,
    ]
