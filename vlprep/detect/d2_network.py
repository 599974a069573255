"""Detectron2's stock Faster R-CNNs (R50 and R101, C4 and FPN) rebuilt on torchvision's parts, detectron2 not needed.

What differs from torchvision's own Faster R-CNN, each as in facebookresearch/detectron2 (commit 02b5c4e): the stride
sits in a block's first 1x1 convolution (`STRIDE_IN_1X1`); anchors are not rounded, are ordered by size and then ratio,
and step by the level's nominal stride; RoIAlign has the half-pixel correction (`ROIAlignV2`, `sampling_ratio` 0) and
picks its level by detectron2's rule.

Shapes: A anchors a cell, N anchors, R regions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FrozenBatchNorm2d, box_area, roi_align

_RATIOS = (0.5, 1.0, 2.0)
_SIZES = (32, 64, 128, 256, 512)


def c4_network(*, depth: int, classes: int, short_side: int, long_side: int, post_nms: int) -> nn.Module:
    """`faster_rcnn_R_{50,101}_C4`: one map of stride 16, res5 on every region, its mean the 2048-d feature."""
    resnet = _resnet(depth)
    body: Any = nn.Sequential()  # torchvision wants an attribute on it
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
        body.add_module(name, getattr(resnet, name))
    body.out_channels = 1024
    head = nn.Sequential()
    head.add_module("layer4", resnet.layer4)
    head.add_module("mean", _SpatialMean())
    network: Any = FasterRCNN(
        body,
        min_size=short_side,
        max_size=long_side,
        size_divisible=1,
        rpn_anchor_generator=_Anchors([_SIZES], strides=[16]),
        rpn_head=RPNHead(1024, len(_SIZES) * len(_RATIOS)),
        rpn_pre_nms_top_n_test=6000,
        rpn_post_nms_top_n_test=post_nms,
        box_head=head,
        box_predictor=FastRCNNPredictor(2048, classes + 1),
    )
    network.roi_heads.box_roi_pool = _RoIAlignV2({"0": 16}, output_size=14)
    return network  # type: ignore[no-any-return]


def fpn_network(*, depth: int, classes: int, short_side: int, long_side: int, post_nms: int) -> nn.Module:
    """`faster_rcnn_R_{50,101}_FPN`: maps of stride 4 to 64; the second linear layer's output is the 1024-d feature."""
    backbone = resnet_fpn_backbone(
        backbone_name=f"resnet{depth}", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=0
    )
    _stride_in_1x1(backbone.body)
    network: Any = FasterRCNN(
        backbone,
        min_size=short_side,
        max_size=long_side,
        size_divisible=32,
        rpn_anchor_generator=_Anchors([(size,) for size in _SIZES], strides=[4, 8, 16, 32, 64]),
        rpn_head=RPNHead(256, len(_RATIOS)),
        rpn_pre_nms_top_n_test=1000,
        rpn_post_nms_top_n_test=post_nms,
        box_head=TwoMLPHead(256 * 7 * 7, 1024),
        box_predictor=FastRCNNPredictor(1024, classes + 1),
    )
    network.roi_heads.box_roi_pool = _RoIAlignV2({"0": 4, "1": 8, "2": 16, "3": 32}, output_size=7)
    return network  # type: ignore[no-any-return]


def _resnet(depth: int) -> Any:
    resnet = torchvision.models.get_model(f"resnet{depth}", weights=None, norm_layer=FrozenBatchNorm2d)
    _stride_in_1x1(resnet)
    return resnet


def _stride_in_1x1(resnet: Any) -> None:
    for stage in (resnet.layer2, resnet.layer3, resnet.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)


class _SpatialMean(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))


class _Anchors(AnchorGenerator):  # type: ignore[misc]
    """Anchors centred on the cells' upper left corners, ordered row, column, size, ratio; unrounded."""

    def __init__(self, sizes: Sequence[Sequence[int]], strides: Sequence[int]) -> None:
        super().__init__(sizes=tuple(map(tuple, sizes)), aspect_ratios=(_RATIOS,) * len(sizes))
        self._strides = strides
        self._cells = [torch.tensor([_cell(size, ratio) for size in level for ratio in _RATIOS]) for level in sizes]

    def forward(self, image_list: ImageList, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        levels = []
        for cells_A4, stride, level in zip(self._cells, self._strides, feature_maps, strict=True):
            rows, columns = (torch.arange(n, device=level.device) * float(stride) for n in level.shape[-2:])
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            corners = torch.stack((x, y, x, y), dim=-1).reshape(-1, 1, 4)
            levels.append((corners + cells_A4.to(level.device)).reshape(-1, 4))
        anchors_N4 = torch.cat(levels)
        return [anchors_N4 for _ in image_list.image_sizes]


def _cell(size: int, ratio: float) -> tuple[float, float, float, float]:
    width = math.sqrt(size**2 / ratio)
    height = ratio * width
    return -width / 2, -height / 2, width / 2, height / 2


class _RoIAlignV2(nn.Module):
    """Half-pixel RoIAlign; a box of 224 by 224 pixels is taken from stride 16, one level further each doubling."""

    def __init__(self, strides: Mapping[str, int], *, output_size: int) -> None:
        super().__init__()
        self._strides, self._output_size = dict(strides), output_size

    def forward(self, maps: Mapping[str, Tensor], boxes: list[Tensor], image_sizes: object) -> Tensor:
        index = torch.cat([own.new_full((len(own), 1), i) for i, own in enumerate(boxes)])
        boxes_R4 = torch.cat(boxes)
        rois_R5 = torch.cat([index, boxes_R4], dim=1)
        first = int(math.log2(next(iter(self._strides.values()))))
        level_R = torch.floor(4 + torch.log2(box_area(boxes_R4).sqrt() / 224 + 1e-8))
        level_R = level_R.clamp(first, first + len(self._strides) - 1).long() - first
        channels = next(iter(maps.values())).shape[1]
        pooled = boxes_R4.new_zeros(len(boxes_R4), channels, self._output_size, self._output_size)
        for level, (name, stride) in enumerate(self._strides.items()):
            rows = (level_R == level).nonzero()[:, 0]
            pooled[rows] = roi_align(maps[name], rois_R5[rows], self._output_size, 1 / stride, -1, aligned=True)
        return pooled
