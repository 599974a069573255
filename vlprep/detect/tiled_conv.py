"""The 3×3 convolutions of a backbone as matrix products, tile by tile: half the time where rounding may be larger.

What `vlprep.detect.toom_cook` does to small grids, done to maps of any size. A map that went through 26 such
convolutions differs by some 1e-5 of its maximum, so this is for the low precisions.

Shape suffixes: B images, C, D channels in and out, H, W sides of the map, h, w tiles a side, n inputs and m outputs of
a tile along one side, T = h·w tiles, F = n² products a tile.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlprep.detect.toom_cook import Matrix, tile_transforms

_LEAST_CHANNELS = 128
"""With fewer, transforming costs more than the products that it saves (measured)."""


def tile_convolutions(network: nn.Module, tile: int) -> None:
    """Replace the convolutions of `network` that gain by it: 3×3, stride 1, padding 1, float32, wide enough."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d) and _gains(child):
                setattr(module, name, TiledConvolution(child, tile))


def _gains(conv: nn.Conv2d) -> bool:
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    return shape == ((3, 3), (1, 1), (1, 1), (1, 1)) and conv.in_channels >= _LEAST_CHANNELS


class TiledConvolution(nn.Module):
    """A `Conv2d` of that shape, in tiles of `tile`² outputs."""

    def __init__(self, conv: nn.Conv2d, tile: int) -> None:
        super().__init__()
        assert conv.bias is not None
        matrices = tile_transforms(tile)
        like = conv.weight
        self._tile = tile
        self._bias_D = conv.bias.detach()
        self._filter_FCD = filter_at_points(conv, matrices.filter_n3)
        self._input_FF, self._output_PF = (
            torch.from_numpy(matrix).to(like.device, torch.float32)
            for matrix in (matrices.input_FP, matrices.output_PF)
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Image by image: what lies between stays in the cache."""
        maps = [self._one(map_HWC) for map_HWC in x_BCHW.permute(0, 2, 3, 1)]
        return torch.stack(maps).permute(0, 3, 1, 2)

    def _one(self, map_HWC: Tensor) -> Tensor:
        height, width, channels = map_HWC.shape
        m, n = self._tile, self._tile + 2
        h, w = -(-height // m), -(-width // m)
        padded = F.pad(map_HWC, (0, 0, 1, w * m + 1 - width, 1, h * m + 1 - height))
        row, column, _ = padded.stride()
        tiles_nnhwC = padded.as_strided((n, n, h, w, channels), (row, column, m * row, m * column, 1))
        spread = self._input_FF @ tiles_nnhwC.reshape(n * n, -1)
        products_FTD = torch.bmm(spread.view(n * n, h * w, channels), self._filter_FCD)
        out_mmhwD = (self._output_PF @ products_FTD.flatten(1)).view(m, m, h, w, -1)
        out_HWD = out_mmhwD.permute(2, 0, 3, 1, 4).reshape(h * m, w * m, -1)
        return out_HWD[:height, :width] + self._bias_D


def filter_at_points(conv: nn.Conv2d, filter_n3: Matrix) -> Tensor:
    """A 3×3 convolution's weight at all products of a tile, (F, inputs, outputs)."""
    weight = conv.weight.detach().cpu().double().numpy()
    spread = np.einsum("iy,jx,ocyx->ijco", filter_n3, filter_n3, weight, optimize=True)
    filters = torch.from_numpy(spread.reshape(-1, *spread.shape[2:]).astype(np.float32))
    return filters.contiguous().to(conv.weight.device)
