"""The fifth stage on regions: pooling, convolutions, one feature a region; and how regions are streamed through it.

The head is nine tenths of the work, so regions of several images go through it together, in chunks of fixed size.
`ConvolutionHead` is the plain form, for every spec, type and device; `vlprep.detect.matmul_head` is a faster equal.

Shape suffixes: R regions, C channels, h, w sides of the map, S bins a side, D feature size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align, roi_pool

from vlprep.detect.anchors import STRIDE
from vlprep.detect.network import RegionNetwork
from vlprep.detect.spec import RegionSpec

Piece = TypeVar("Piece")
"""Some regions of one image, pooled, in the head's own form."""


class RegionHead(Protocol[Piece]):
    """Turns boxes on a map into features."""

    chunk: int
    """Regions that it takes at once."""

    def pooler(self, map_Chw: Tensor, boxes_R4: Tensor) -> Callable[[slice], Piece]:
        """Return what pools a range of these boxes (network pixels)."""

    def features(self, pieces: Sequence[Piece]) -> Tensor:
        """Return (R, D) float32 features of the regions of all pieces, in order."""


def stream(head: RegionHead[Piece], maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
    """Return the (R, D) features of each image's boxes; chunks are full whatever image their regions come from.

    Args:
        head: Pools and computes.
        maps: (C, h, w) each, of any sides.
        boxes: (R, 4) each, in network pixels.
    """
    done: list[Tensor] = []
    waiting: list[Piece] = []
    room = head.chunk
    for map_Chw, boxes_R4 in zip(maps, boxes, strict=True):
        if len(boxes_R4) == 0:
            continue
        pool = head.pooler(map_Chw, boxes_R4)
        start = 0
        while start < len(boxes_R4):
            stop = min(start + room, len(boxes_R4))
            waiting.append(pool(slice(start, stop)))
            room -= stop - start
            start = stop
            if room == 0:
                done.append(head.features(waiting))
                waiting, room = [], head.chunk
    if waiting:
        done.append(head.features(waiting))
    counts = [len(boxes_R4) for boxes_R4 in boxes]
    if not done:
        return [maps[0].new_empty((0, 2 * len(maps[0])), dtype=torch.float32) for _ in counts]
    return list(torch.split(torch.cat(done), counts))


class ConvolutionHead:
    """Any spec, in the network's own type. Pooling is done in float32 (exact for maxima), as is the mean."""

    def __init__(self, network: RegionNetwork, spec: RegionSpec, *, chunk: int) -> None:
        self.chunk = chunk
        self._res5 = network.res5
        self._norm = network.res5_norm
        self._dtype = next(network.res5.parameters()).dtype
        self._spec = spec

    def pooler(self, map_Chw: Tensor, boxes_R4: Tensor) -> Callable[[slice], Tensor]:
        map_1Chw = map_Chw[None].float().contiguous()
        rois_R5 = F.pad(boxes_R4, (1, 0))  # all on image 0

        def pool(rows: slice) -> Tensor:
            size = self._spec.roi_size
            if self._spec.roi_op == "max":
                pooled = roi_pool(map_1Chw, rois_R5[rows], size, 1 / STRIDE)
            else:
                pooled = roi_align(map_1Chw, rois_R5[rows], size, 1 / STRIDE, self._spec.sampling, aligned=True)
            rows_RCSS: Tensor = pooled.to(self._dtype, memory_format=torch.channels_last)
            return rows_RCSS

        return pool

    def features(self, pieces: Sequence[Tensor]) -> Tensor:
        out_RDSS: Tensor = self._res5(pieces[0] if len(pieces) == 1 else torch.cat(list(pieces)))
        if self._norm is not None:
            out_RDSS = F.relu_(self._norm(out_RDSS))
        return out_RDSS.mean(dim=(2, 3), dtype=torch.float32)
