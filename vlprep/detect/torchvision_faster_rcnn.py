"""Any torchvision `FasterRCNN` as a `Detector`: the parts inside its `forward`, called one by one.

Shapes: R regions of one image, C class columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers

from vlprep.detect.base import Detector
from vlprep.detect.two_stage import InputRule, Maps, TwoStageDetector
from vlprep.weights import WeightsRecord


def torchvision_detector(
    network: Any,  # a FasterRCNN, which carries no types
    *,
    name: str,
    class_names: Sequence[str | None],
    weights: WeightsRecord,
    device: str,
    precision: str,
    settings: Mapping[str, Any],
    resize: Callable[[NDArray[np.uint8]], Tensor] | None = None,
) -> Detector:
    """Wrap a loaded network; arguments as in `TwoStageDetector`.

    `resize` defaults to torchvision's: float, bilinear without antialiasing, mean and standard deviation.
    """
    network = network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    transform, rpn = network.transform, network.rpn

    def torchvision_resize(image_HW3: NDArray[np.uint8]) -> Tensor:
        pixels = torch.tensor(image_HW3).permute(2, 0, 1).float() / 255
        resized: Tensor = transform.resize(transform.normalize(pixels))[0]
        return resized

    rule = InputRule(
        resize=resize or torchvision_resize,
        short_side=transform.min_size[-1],
        long_side=transform.max_size,
        multiple=transform.size_divisible,
    )
    return TwoStageDetector(
        _Parts(network),
        rule,
        name=name,
        class_names=class_names,
        weights=weights,
        device=device,
        precision=precision,
        settings={"post_nms": rpn.post_nms_top_n(), "rpn_nms": rpn.nms_thresh, **settings},
    )


class _Parts:
    """A `TwoStageNetwork`. Objectness is the foreground probability."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self.feature_dim: int = network.roi_heads.box_predictor.cls_score.in_features

    def maps(self, pixels: Tensor) -> Maps:
        maps = self._network.backbone(pixels)
        return {"0": maps} if isinstance(maps, Tensor) else maps

    def propose(
        self, pixels: Tensor, maps: Maps, size: tuple[int, int], mixed: torch.autocast
    ) -> tuple[Tensor, Tensor]:
        rpn, levels = self._network.rpn, list(maps.values())
        with mixed:
            logits, deltas = rpn.head(levels)
        anchors = rpn.anchor_generator(ImageList(pixels, [size]), levels)
        per_level = [level[0].numel() for level in logits]
        flat_logits, flat_deltas = concat_box_prediction_layers(logits, deltas)
        boxes = rpn.box_coder.decode(flat_deltas.float(), anchors).view(1, -1, 4)
        kept, scores = rpn.filter_proposals(boxes, flat_logits.float(), [size], per_level)
        return kept[0], scores[0]

    def describe(
        self, maps: Maps, boxes_R4: Tensor, size: tuple[int, int], mixed: torch.autocast
    ) -> tuple[Tensor, Tensor, Tensor]:
        heads = self._network.roi_heads
        pooled = heads.box_roi_pool(maps, [boxes_R4], [size])
        with mixed:
            features_RD = heads.box_head(pooled)
        features_RD = features_RD.float()
        logits_RC, deltas = heads.box_predictor(features_RD)
        regressed_RC4 = heads.box_coder.decode(deltas, [boxes_R4]).reshape(*logits_RC.shape, 4)
        return features_RD, F.softmax(logits_RC, dim=1), regressed_RC4
