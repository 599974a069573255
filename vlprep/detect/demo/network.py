"""The `demo` network: a Faster R-CNN (Ren et al., 2015) of a million weights for rendered scenes.

Torchvision's parts with a small backbone of our own: one map of stride 8, square anchors of the sizes that shapes have
once a picture's short side is 160 pixels, and a box head whose 256-d output is the region feature.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from vlprep.media.scenes import CLASS_NAMES

FEATURE_DIM = 256
_SHORT_SIDE, _LONG_SIDE = 160, 480
_CHANNELS = 96
_STEM_CHANNELS = 24
_ANCHOR_SIDES = (20, 32, 48, 72)
_POOLED = 5


class _Backbone(nn.Module):
    """(B, 3, h, w) to (B, 96, h / 8, w / 8), for sides that are multiples of 8.

    A quarter of the channels are the first layer's, averaged: told only by the deep ones, which learn to find objects
    of any colour, the box head never gets to know the colour (tried: 75 % of colours right, against all shapes).
    """

    out_channels = _CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(3, _STEM_CHANNELS, stride=2)
        self.deep = nn.Sequential(
            _convolution(_STEM_CHANNELS, 48, stride=2),
            _convolution(48, 64),
            _convolution(64, 96, stride=2),
            _convolution(96, 96),
            _convolution(96, 96),
            _convolution(96, _CHANNELS - _STEM_CHANNELS),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        early = self.stem(pixels)
        return torch.cat([nn.functional.avg_pool2d(early, 4), self.deep(early)], dim=1)


def _convolution(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


def demo_network(*, post_nms: int = 100) -> nn.Module:
    """A fresh network with torch's own initialisation; background is class 0, then `CLASS_NAMES` in order."""
    network: nn.Module = FasterRCNN(
        _Backbone(),
        min_size=_SHORT_SIDE,
        max_size=_LONG_SIDE,
        size_divisible=8,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.25, 0.25, 0.25],
        rpn_anchor_generator=AnchorGenerator(sizes=(_ANCHOR_SIDES,), aspect_ratios=((1.0,),)),
        rpn_head=RPNHead(_CHANNELS, num_anchors=len(_ANCHOR_SIDES)),
        rpn_pre_nms_top_n_train=400,
        rpn_post_nms_top_n_train=100,
        rpn_pre_nms_top_n_test=600,
        rpn_post_nms_top_n_test=post_nms,
        rpn_batch_size_per_image=64,
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=_POOLED, sampling_ratio=2),
        box_head=TwoMLPHead(_CHANNELS * _POOLED**2, FEATURE_DIM),
        box_predictor=FastRCNNPredictor(FEATURE_DIM, 1 + len(CLASS_NAMES)),
        box_batch_size_per_image=48,
    )
    return network
