"""The networks as their authors' repositories run them, to hold ours against: norms apart, NCHW, one image at a time.

Parameter names are the published ones, so a `state_dict` of these modules is a checkpoint. Written for comparison and
for timing ("the usual way" in benchmarks), not for use.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align, roi_pool

from vlprep.detect.anchors import cell_anchors, map_anchors
from vlprep.detect.base import Regions
from vlprep.detect.boxes import nms
from vlprep.detect.proposals import propose
from vlprep.detect.spec import RegionSpec


class Normed(nn.Conv2d):
    """A convolution that bears its norm: behind it, or ahead of it with a ReLU (MILVLG's `Conv2dv2`)."""

    def __init__(self, *sizes: int, eps: float, ahead: bool = False, norm: bool = True, **options: int) -> None:
        super().__init__(*sizes, bias=False, **options)
        self.ahead = ahead
        self.norm = nn.BatchNorm2d(sizes[0] if ahead else sizes[1], eps=eps) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        if self.ahead:
            return super().forward(x if self.norm is None else F.relu_(self.norm(x)))
        x = super().forward(x)
        return x if self.norm is None else self.norm(x)


class Block(nn.Module):
    def __init__(self, spec: RegionSpec, inputs: int, middle: int, stride: int, dilation: int) -> None:
        super().__init__()
        eps, v2 = spec.norm_eps, spec.preactivation
        first, second = (stride, 1) if spec.stride_in == "1x1" else (1, stride)
        plain = {"eps": eps, "norm": not v2}
        self.shortcut = Normed(inputs, 4 * middle, 1, stride, **plain) if inputs != 4 * middle else None
        self.conv1 = Normed(inputs, middle, 1, first, **plain)
        self.conv2 = Normed(middle, middle, 3, second, padding=dilation, dilation=dilation, eps=eps, ahead=v2)
        self.conv3 = Normed(middle, 4 * middle, 1, eps=eps, ahead=v2)
        self.norm = nn.BatchNorm2d(inputs, eps=eps) if v2 else None

    def forward(self, x: Tensor) -> Tensor:
        if self.norm is not None:
            return self.after_norm(F.relu_(self.norm(x)), x)
        out = self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(x)))))
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)

    def after_norm(self, x: Tensor, identity: Tensor) -> Tensor:
        out = self.conv3(self.conv2(self.conv1(x)))
        out += identity if self.shortcut is None else self.shortcut(x)
        return out


def stage(spec: RegionSpec, number: int, stride: int, dilation: int = 1) -> nn.Sequential:
    middle = spec.width * 2 ** (number - 2)
    inputs = spec.width if number == 2 else 2 * middle
    return nn.Sequential(
        *(
            Block(spec, 4 * middle if index else inputs, middle, 1 if index else stride, dilation)
            for index in range(spec.blocks[number - 2])
        )
    )


def tree(**children: nn.Module) -> nn.Module:
    return nn.ModuleDict(children)


class PublishedNetwork(nn.Module):
    """A checkpoint's tree of names, and one image from pixels to `Regions`."""

    def __init__(self, spec: RegionSpec) -> None:
        super().__init__()
        self.spec = spec
        eps, d, anchors = spec.norm_eps, spec.feature_dim, len(spec.anchors)
        stem = tree(conv1=Normed(3, spec.width, 7, 2, padding=3, eps=eps))
        if spec.preactivation:
            stem["norm"] = nn.BatchNorm2d(3, eps=eps)
        self.backbone = tree(stem=stem, res2=stage(spec, 2, 1), res3=stage(spec, 3, 2), res4=stage(spec, 4, 2))
        generator = nn.Module()
        generator.cell_anchors = nn.Module()
        generator.cell_anchors.register_buffer("0", cell_anchors(spec.anchors))
        self.proposal_generator = tree(
            anchor_generator=generator,
            rpn_head=tree(
                conv=nn.Conv2d(d // 2, spec.rpn_width, 3, padding=1),
                objectness_logits=nn.Conv2d(spec.rpn_width, spec.rpn_logits * anchors, 1),
                anchor_deltas=nn.Conv2d(spec.rpn_width, 4 * anchors, 1),
            ),
        )
        boxes = spec.classes + spec.background_first
        predictor = tree(cls_score=nn.Linear(d, spec.classes + 1), bbox_pred=nn.Linear(d, 4 * boxes))
        embedding, hidden, score = (
            nn.Embedding(spec.classes + 1, 256),
            nn.Linear(d + 256, 512),
            nn.Linear(512, spec.attribute_columns),
        )
        self.roi_heads = tree(res5=stage(spec, 5, spec.res5_stride, spec.res5_dilation), box_predictor=predictor)
        if spec.preactivation:
            self.roi_heads["res5_bn"] = nn.BatchNorm2d(d, eps=eps)
        if spec.roi_op == "align":
            self.roi_heads["attribute_predictor"] = tree(
                obj_embed=embedding, fc=nn.Sequential(hidden, nn.ReLU()), attr_score=score
            )
        elif spec.background_first:
            predictor.update({"cls_embed": embedding, "attr_linear1": hidden, "attr_linear2": score})
        else:
            predictor.update({"cls_embedding": embedding, "fc_attr": hidden, "attr_score": score})
        self.attributes = [embedding, hidden, score]

    def features(self, map_1Chw: Tensor, boxes_R4: Tensor) -> Tensor:
        """(R, D) of boxes in network pixels."""
        spec, heads = self.spec, self.roi_heads
        if spec.roi_op == "max":
            x = roi_pool(map_1Chw, [boxes_R4], spec.roi_size, 1 / 16)
        else:
            x = roi_align(map_1Chw, [boxes_R4], spec.roi_size, 1 / 16, spec.sampling, aligned=True)
        if spec.preactivation:
            x = heads["res5"][0].after_norm(x, x)
            x = F.relu_(heads["res5_bn"](heads["res5"][1:](x)))
        else:
            x = heads["res5"](x)
        return x.mean(dim=(2, 3))

    def map(self, pixels_3hw: Tensor) -> Tensor:
        stem, spec = self.backbone["stem"], self.spec
        x = pixels_3hw[None]
        x = F.relu_(stem["conv1"](stem["norm"](x) if spec.preactivation else x))
        caffe = spec.stem_pool == "caffe"
        x = F.max_pool2d(x, 3, 2, padding=0 if caffe else 1, ceil_mode=caffe)
        x = self.backbone["res4"](self.backbone["res3"](self.backbone["res2"](x)))
        return F.relu_(self.roi_heads["res5"][0].norm(x)) if spec.preactivation else x

    def rpn(self, map_1Chw: Tensor) -> tuple[Tensor, Tensor]:
        """Foreground logits (h·w·A) relative to background, and deltas."""
        head = self.proposal_generator["rpn_head"]
        hidden = F.relu_(head["conv"](map_1Chw))
        logits = head["objectness_logits"](hidden).permute(0, 2, 3, 1)
        if self.spec.rpn_logits == 2:
            background, foreground = logits.chunk(2, dim=-1)
            logits = torch.stack((background, foreground)).softmax(dim=0)[1].logit()
        return logits.flatten(), head["anchor_deltas"](hidden).permute(0, 2, 3, 1).reshape(-1, 4)

    def scores(self, features_RD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Softmax over all classes and attributes, and all deltas, in the published column order."""
        predictor = self.roi_heads["box_predictor"]
        logits = predictor["cls_score"](features_RD)
        embedding, hidden, score = self.attributes
        told = torch.cat((features_RD, embedding(logits.argmax(dim=1))), dim=1)
        return logits.softmax(1), score(F.relu_(hidden(told))).softmax(1), predictor["bbox_pred"](features_RD)

    @torch.inference_mode()
    def forward(self, pixels_3hw: Tensor, scale_xy: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Proposals (original pixels), features, class and attribute probabilities in the published column order."""
        map_1Chw = self.map(pixels_3hw)
        logits, deltas = self.rpn(map_1Chw)
        cell = self.proposal_generator["anchor_generator"].cell_anchors.get_buffer("0")
        anchors = map_anchors(cell, *map_1Chw.shape[2:])
        boxes, _ = propose(logits, deltas, anchors, self.spec, tuple(pixels_3hw.shape[1:]), scale_xy)
        features = self.features(map_1Chw, boxes)
        classes, attributes, _ = self.scores(features)
        return boxes / boxes.new_tensor(scale_xy * 2), features, classes, attributes


def max_conf_by_loop(regions: Regions, threshold: float, *, plus_one: bool) -> Tensor:
    """The Caffe rule's confidences, class after class as published."""
    best = torch.zeros(len(regions))
    for scores in regions.class_probs_RK.t():
        keep = nms(regions.proposals_R4, scores.contiguous(), threshold, plus_one=plus_one)
        best[keep] = torch.maximum(best[keep], scores[keep])
    return best
