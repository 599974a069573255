"""The network of every bottom-up-attention family: ResNet up to its fourth stage, proposals, fifth stage on regions.

Normalisations are folded into the convolutions when a checkpoint is loaded (`vlprep.detect.checkpoints`), so that the
modules here are convolutions with biases. A pre-activation ResNet keeps those norms that no convolution can take in.

Architecture: C4 Faster R-CNN (arXiv 1506.01497) with a class and an attribute head (arXiv 1707.07998); ResNet
arXiv 1512.03385 and, for pre-activation, arXiv 1603.05027.

Shape suffixes: B images, R regions, C channels, h, w sides of the stride-16 map, A anchors a cell, K classes,
D feature size.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlprep.detect.anchors import cell_anchors
from vlprep.detect.spec import RegionSpec

CLASS_EMBEDDING = 256
ATTRIBUTE_HIDDEN = 512


class Affine(nn.Module):
    """A frozen normalisation: one factor and one offset a channel."""

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))

    def forward(self, x_BChw: Tensor) -> Tensor:
        return x_BChw * self.weight[:, None, None] + self.bias[:, None, None]


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 with a shortcut; pre-activation if it has a `norm` or the spec says that its input had one."""

    def __init__(
        self, spec: RegionSpec, inputs: int, middle: int, *, stride: int = 1, dilation: int = 1, norm: bool = True
    ) -> None:
        super().__init__()
        outputs = 4 * middle
        first, second = (stride, 1) if spec.stride_in == "1x1" else (1, stride)
        self.preactivation = spec.preactivation
        self.norm = Affine(inputs) if spec.preactivation and norm else None
        self.conv1 = nn.Conv2d(inputs, middle, 1, first)
        self.conv2 = nn.Conv2d(middle, middle, 3, second, padding=dilation, dilation=dilation)
        self.conv3 = nn.Conv2d(middle, outputs, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if inputs != outputs else None

    def forward(self, x_BChw: Tensor) -> Tensor:
        entry = x_BChw if self.norm is None else F.relu_(self.norm(x_BChw))
        out = F.relu_(self.conv1(entry))
        out = self.conv3(F.relu_(self.conv2(out)))
        out += x_BChw if self.shortcut is None else self.shortcut(entry)
        return out if self.preactivation else F.relu_(out)


def _stage(spec: RegionSpec, number: int, *, stride: int, dilation: int = 1, first_norm: bool = True) -> nn.Sequential:
    """Stage `number` (2 to 5) of the ResNet."""
    middle = spec.width * 2 ** (number - 2)
    inputs = spec.width if number == 2 else 2 * middle
    blocks = [Bottleneck(spec, inputs, middle, stride=stride, dilation=dilation, norm=first_norm)]
    blocks += [Bottleneck(spec, 4 * middle, middle, dilation=dilation) for _ in range(spec.blocks[number - 2] - 1)]
    return nn.Sequential(*blocks)


class Stem(nn.Module):
    """7×7 with stride 2, ReLU, and one of two ways to pool."""

    def __init__(self, spec: RegionSpec) -> None:
        super().__init__()
        self.norm = Affine(3) if spec.preactivation else None
        self.conv1 = nn.Conv2d(3, spec.width, 7, 2, padding=3)
        self._caffe_pool = spec.stem_pool == "caffe"

    def forward(self, x_B3HW: Tensor) -> Tensor:
        if self.norm is not None:
            x_B3HW = self.norm(x_B3HW)
        x = F.relu_(self.conv1(x_B3HW))
        return F.max_pool2d(x, 3, 2, padding=0 if self._caffe_pool else 1, ceil_mode=self._caffe_pool)


class Backbone(nn.Module):
    """Pixels to the stride-16 map that proposals and regions share."""

    def __init__(self, spec: RegionSpec) -> None:
        super().__init__()
        self.stem = Stem(spec)
        self.res2 = _stage(spec, 2, stride=1)
        self.res3 = _stage(spec, 3, stride=2)
        self.res4 = _stage(spec, 4, stride=2)
        self.norm = Affine(16 * spec.width) if spec.preactivation else None

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        map_BChw = self.res4(self.res3(self.res2(self.stem(pixels_B3HW))))
        return cast(Tensor, map_BChw if self.norm is None else F.relu_(self.norm(map_BChw)))


class ProposalHead(nn.Module):
    """One logit and four deltas an anchor."""

    anchors_A4: Tensor

    def __init__(self, spec: RegionSpec) -> None:
        super().__init__()
        anchors = len(spec.anchors)
        self.conv = nn.Conv2d(16 * spec.width, spec.rpn_width, 3, padding=1)
        self.objectness = nn.Conv2d(spec.rpn_width, anchors, 1)
        self.deltas = nn.Conv2d(spec.rpn_width, 4 * anchors, 1)
        self.register_buffer("anchors_A4", cell_anchors(spec.anchors))

    def forward(self, map_BChw: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 logits (B, h·w·A) and deltas (B, h·w·A, 4), anchors of a cell side by side."""
        hidden = F.relu_(self.conv(map_BChw))
        logits = self.objectness(hidden).permute(0, 2, 3, 1).flatten(1)
        deltas = self.deltas(hidden).permute(0, 2, 3, 1).reshape(*logits.shape, 4)
        return logits.float(), deltas.float()


class Predictions(NamedTuple):
    """What the predictor says of R regions."""

    class_probs_RK: Tensor
    """All columns, background last."""
    attribute_probs_RA: Tensor | None
    """All columns, "none" last where the family has it."""
    deltas_R4: Tensor
    """Of the most probable foreground class."""


class Predictor(nn.Module):
    """Classes, attributes and box deltas from a region's feature; always float32."""

    def __init__(self, spec: RegionSpec) -> None:
        super().__init__()
        self.cls_score = nn.Linear(spec.feature_dim, spec.classes + 1)
        self.bbox_pred = nn.Linear(spec.feature_dim, 4 * spec.classes)
        self.has_attributes = spec.attributes > 0
        if self.has_attributes:
            self.cls_embedding = nn.Embedding(spec.classes + 1, CLASS_EMBEDDING)
            self.fc_attr = nn.Linear(spec.feature_dim + CLASS_EMBEDDING, ATTRIBUTE_HIDDEN)
            self.attr_score = nn.Linear(ATTRIBUTE_HIDDEN, spec.attribute_columns)

    def forward(self, features_RD: Tensor) -> Predictions:
        logits_RK = self.cls_score(features_RD)
        attributes = None
        if self.has_attributes:
            # The class that the attribute head is told may be background, as in the Caffe original.
            told_RE = self.cls_embedding(logits_RK.argmax(dim=1))
            hidden = F.relu_(self.fc_attr(torch.cat((features_RD, told_RE), dim=1)))
            attributes = self.attr_score(hidden).softmax(dim=1)
        return Predictions(logits_RK.softmax(dim=1), attributes, self._deltas(features_RD, logits_RK))

    def _deltas(self, features_RD: Tensor, logits_RK: Tensor) -> Tensor:
        """Only the four rows of each region's best class are multiplied, not the 6400 of all classes."""
        best_R = logits_RK[:, :-1].argmax(dim=1)
        rows_R4D = self.bbox_pred.weight.view(-1, 4, features_RD.shape[1])[best_R]
        return torch.einsum("rd,rjd->rj", features_RD, rows_R4D) + self.bbox_pred.bias.view(-1, 4)[best_R]


class RegionNetwork(nn.Module):
    """All parameters of a family, by the names that `vlprep.detect.checkpoints` gives them."""

    def __init__(self, spec: RegionSpec) -> None:
        super().__init__()
        self.backbone = Backbone(spec)
        self.rpn = ProposalHead(spec)
        self.res5 = _stage(spec, 5, stride=spec.res5_stride, dilation=spec.res5_dilation, first_norm=False)
        self.res5_norm = Affine(spec.feature_dim) if spec.preactivation else None
        self.predictor = Predictor(spec)
