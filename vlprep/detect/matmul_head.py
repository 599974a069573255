"""The dilated, stride-1 fifth stage as matrix products only: the same numbers as its convolutions, in half the time.

Four observations, each exact but for rounding:

1. With stride 1 and dilation 2, a 14×14 grid is four 7×7 grids that never meet (even and odd rows and columns), each
   convolved without dilation. Everything else in the stage is pointwise.
2. A 3×3 convolution of a 7×7 grid is three matrix products with far fewer multiplications (`vlprep.detect.toom_cook`).
   With positions first, channels last in memory, no data moves between them.
3. Pooled bins repeat (`vlprep.detect.windows`), and the first block's 1×1 convolutions act bin by bin: they are
   computed once for each distinct window of an image, then gathered.
4. relu(x + c) = max(x, -c) + c: the residual stream is kept without its biases. The product then adds straight into the
   stream, a clamp finishes the block, and the constants go into the next product's bias.

Shape suffixes: R regions, P = 49 positions of a grid, N = 4R grids, M = P·N rows, C channels, D feature size,
F products a grid (see `toom_cook`), U distinct windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vlprep.detect.anchors import STRIDE
from vlprep.detect.network import Bottleneck, RegionNetwork
from vlprep.detect.spec import RegionSpec
from vlprep.detect.tiled_conv import filter_at_points
from vlprep.detect.toom_cook import transforms
from vlprep.detect.windows import distinct_windows, pool

_SIDE = 7
_PHASES = 2
_WINDOWS_AT_ONCE = 4096
"""Rows of the first product, so that its output stays in the cache until it is rectified."""


class Grids(NamedTuple):
    """Pooled regions of one image after the first block's 1×1 convolutions."""

    hidden_PNC: Tensor
    stream_PND: Tensor
    """The shortcut, without its bias."""


class _Block(NamedTuple):
    entry_DC: Tensor | None
    """1×1 into the block; None for the first, which was applied to distinct windows."""
    entry_bias_C: Tensor
    filter_FCC: Tensor
    floor_C: Tensor
    """Minus the 3×3 convolution's bias."""
    exit_CD: Tensor
    stream_floor_D: Tensor
    """Minus all that the stream lacks after this block."""


def applies_to(spec: RegionSpec) -> bool:
    """Whether a family's fifth stage has the form that this head computes."""
    return (
        spec.roi_op == "max"
        and (spec.res5_stride, spec.res5_dilation) == (1, _PHASES)
        and spec.roi_size == _SIDE * _PHASES
        and not spec.preactivation
    )


class MatmulHead:
    """Float32, for specs that `applies_to` accepts."""

    def __init__(self, network: RegionNetwork, *, tile: int, chunk: int) -> None:
        """`tile`: outputs a side of the 3×3 convolutions' tiles, 4 (error 3e-6) or 7 (1e-4, faster)."""
        self.chunk = chunk
        blocks = [block for block in network.res5.children() if isinstance(block, Bottleneck)]
        matrices = transforms(_SIDE, tile)
        like = blocks[0].conv1.weight
        self._input_FP, self._output_PF = (
            torch.from_numpy(matrix).to(like.device, torch.float32)
            for matrix in (matrices.input_FP, matrices.output_PF)
        )
        # Kept, since fresh memory costs more than what is computed in it: the system clears it page by page.
        size = len(self._input_FP) * _PHASES**2 * chunk * blocks[0].conv2.out_channels
        self._scratch = torch.empty(2, size, device=like.device)
        first = blocks[0]
        assert first.shortcut is not None
        self._first_CC = _transposed(first.conv1)
        self._shortcut_CD = _transposed(first.shortcut)
        self._blocks = []
        lacking_D = _bias(first.shortcut)
        for block in blocks:
            entry, leave = _transposed(block.conv1), _transposed(block.conv3)
            is_first = block is first
            entry_bias = _bias(block.conv1) + (0 if is_first else lacking_D @ entry)
            lacking_D = lacking_D + _bias(block.conv3) + _bias(block.conv2) @ leave
            self._blocks.append(
                _Block(
                    entry_DC=None if is_first else entry,
                    entry_bias_C=entry_bias,
                    filter_FCC=filter_at_points(block.conv2, matrices.filter_n3),
                    floor_C=-_bias(block.conv2),
                    exit_CD=leave,
                    stream_floor_D=-lacking_D,
                )
            )

    def pooler(self, map_Chw: Tensor, boxes_R4: Tensor) -> Callable[[slice], Grids]:
        map_hwC = map_Chw.permute(1, 2, 0).contiguous()
        windows = distinct_windows(boxes_R4, (map_hwC.shape[0], map_hwC.shape[1]), _SIDE * _PHASES, 1 / STRIDE)
        bins_UC = pool(map_hwC, windows)
        hidden_UC = torch.cat(
            [
                torch.addmm(self._blocks[0].entry_bias_C, rows, self._first_CC).relu_()
                for rows in torch.split(bins_UC, _WINDOWS_AT_ONCE)
            ]
        )
        stream_UD = bins_UC @ self._shortcut_CD
        # (R, 14, 14) to positions, regions, phases: the four grids of a region lie side by side.
        phased = windows.of_bin_RSS.view(-1, _SIDE, _PHASES, _SIDE, _PHASES)
        index_PR4 = phased.permute(1, 3, 0, 2, 4).reshape(_SIDE**2, -1, _PHASES**2)

        def gather(rows: slice) -> Grids:
            index = index_PR4[:, rows].reshape(-1)
            return Grids(*(table[index].view(_SIDE**2, -1, table.shape[1]) for table in (hidden_UC, stream_UD)))

        return gather

    def features(self, pieces: Sequence[Grids]) -> Tensor:
        hidden_PNC, stream_PND = pieces[0] if len(pieces) == 1 else Grids(*map(_joined, zip(*pieces, strict=True)))
        hidden_MC, stream_MD = hidden_PNC.flatten(0, 1), stream_PND.flatten(0, 1)
        for block in self._blocks:
            if block.entry_DC is not None:
                torch.addmm(block.entry_bias_C, stream_MD, block.entry_DC, out=hidden_MC).relu_()
            self._convolve(hidden_MC, block.filter_FCC)
            torch.maximum(hidden_MC, block.floor_C, out=hidden_MC)
            stream_MD.addmm_(hidden_MC, block.exit_CD)
            torch.maximum(stream_MD, block.stream_floor_D, out=stream_MD)
        stream_MD.sub_(self._blocks[-1].stream_floor_D)  # before the mean, so that what is 0 everywhere stays exactly 0
        # The outer sum first: it runs along memory, several times as fast as one sum over both axes.
        grids_R4D = stream_MD.view(_SIDE**2, -1, _PHASES**2, stream_MD.shape[1]).sum(dim=0)
        return grids_R4D.sum(dim=1) / (_SIDE * _PHASES) ** 2

    def _convolve(self, hidden_MC: Tensor, filter_FCC: Tensor) -> None:
        """The 3×3 convolution without its bias, in place."""
        grids_PX = hidden_MC.view(_SIDE**2, -1)
        size = len(self._input_FP) * grids_PX.shape[1]
        spread, products = (scratch[:size] for scratch in self._scratch)
        torch.mm(self._input_FP, grids_PX, out=spread.view(len(self._input_FP), -1))
        tiles = (len(filter_FCC), -1, hidden_MC.shape[1])
        torch.bmm(spread.view(tiles), filter_FCC, out=products.view(tiles))
        torch.mm(self._output_PF, products.view(len(self._input_FP), -1), out=grids_PX)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts), dim=1)


def _transposed(conv: nn.Conv2d) -> Tensor:
    """A 1×1 convolution's weight as (inputs, outputs)."""
    return conv.weight.detach().flatten(1).t().contiguous()


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias.detach()
