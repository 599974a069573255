"""Any torchvision `FasterRCNN` as a `Detector`: the parts that its `forward` hides, called one by one.

Torchvision's own `forward` gives final detections only. Here every proposal comes out with the feature it was
classified by, its whole class distribution and its regressed box. Each image is padded at the right and bottom to the
network's own multiple, as torchvision pads a single image, and never further: a result does not depend on its batch.

Shapes: B images, R regions of one image, C class columns, K foreground classes, D features; sizes are (height, width).
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
from torchvision.ops import clip_boxes_to_image

from vlprep.detect.base import PreparedImage, Regions
from vlprep.errors import ItemError, SettingsError
from vlprep.weights import WeightsRecord

Resizer = Callable[[NDArray[np.uint8]], Tensor]
"""From (H, W, 3) RGB to the network's (3, h, w) float32 input, before padding."""

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class FasterRCNNDetector:
    """A `vlprep.detect.base.Detector`. Convolutions and box head run in `precision`; boxes, scores, NMS in fp32."""

    attribute_names: tuple[str, ...] = ()
    default_selection = "max-class"

    def __init__(
        self,
        network: Any,  # torchvision's FasterRCNN, which carries no types
        *,
        name: str,
        class_names: Sequence[str | None],
        weights: WeightsRecord,
        device: str,
        precision: str,
        settings: Mapping[str, Any],
        resize: Resizer | None = None,
    ) -> None:
        """Wrap a loaded network.

        Args:
            network: In any mode, on any device.
            class_names: One entry a column of the class scores; None marks background and columns without a class,
                whose probabilities together are `Regions.background_R`.
            settings: What the family adds to `settings()`.
            resize: The family's own resizer; torchvision's (bilinear, no antialiasing, mean and std) by default.
        """
        if precision not in _AUTOCAST:
            raise SettingsError(f"--precision {precision}: one of {', '.join(_AUTOCAST)}")
        self.name = name
        self.weights = weights
        self.class_names = tuple(known for known in class_names if known is not None)
        self.feature_dim: int = network.roi_heads.box_predictor.cls_score.in_features
        self._device = torch.device(device)
        self._network = network.eval().requires_grad_(False).to(self._device, memory_format=torch.channels_last)
        self._columns_K = torch.tensor([i for i, known in enumerate(class_names) if known is not None]).to(self._device)
        self._other_columns = torch.tensor([i for i, known in enumerate(class_names) if known is None]).to(self._device)
        self._precision = precision
        self._settings = dict(settings)
        self._resize = resize or self._torchvision_resize

    def settings(self) -> dict[str, Any]:
        rpn, transform = self._network.rpn, self._network.transform
        return {
            "family": self.name,
            "proposals": rpn.post_nms_top_n(),
            "rpn_nms": rpn.nms_thresh,
            "short_side": transform.min_size[-1],
            "long_side": transform.max_size,
            "precision": self._precision,
            **self._settings,
        }

    def prepare(self, image_HW3: NDArray[np.uint8]) -> PreparedImage:
        height, width = image_HW3.shape[:2]
        transform = self._network.transform
        shrinking = min(transform.min_size[-1] / min(height, width), transform.max_size / max(height, width))
        if min(height, width) * shrinking < 1:
            raise ItemError(f"{width}x{height} pixels: too narrow, less than one pixel wide at the network's size")
        pixels = self._resize(image_HW3)
        scale_xy = (pixels.shape[2] / width, pixels.shape[1] / height)
        padded = transform.batch_images([pixels], transform.size_divisible)[0]
        return PreparedImage(pixels=padded, height=height, width=width, scale_xy=scale_xy)

    def _torchvision_resize(self, image_HW3: NDArray[np.uint8]) -> Tensor:
        pixels = torch.tensor(image_HW3).permute(2, 0, 1).float() / 255
        transform = self._network.transform
        resized: Tensor = transform.resize(transform.normalize(pixels))[0]
        return resized

    @torch.inference_mode()
    def detect(
        self, images: Sequence[PreparedImage], given: Sequence[NDArray[np.float32] | None] | None = None
    ) -> list[Regions]:
        if given is None:
            given = [None] * len(images)
        pixels = torch.stack([image.pixels for image in images]).to(self._device, memory_format=torch.channels_last)
        with self._autocast():
            maps = self._network.backbone(pixels)
        maps = {level: values.float() for level, values in (maps if isinstance(maps, dict) else {"0": maps}).items()}
        regions = []
        for index, (image, boxes) in enumerate(zip(images, given, strict=True)):
            own_maps = {level: values[index : index + 1] for level, values in maps.items()}
            if boxes is None:
                proposals_R4, objectness_R = self._propose(pixels[index : index + 1], own_maps, _network_size(image))
                regions.append(self._describe(image, own_maps, proposals_R4, objectness_R, None))
            else:
                boxes_R4 = torch.tensor(boxes, dtype=torch.float32, device=self._device).reshape(-1, 4)
                scaled_R4 = boxes_R4 * self._scale(image)
                regions.append(self._describe(image, own_maps, scaled_R4, boxes_R4.new_ones(len(boxes_R4)), boxes_R4))
        return regions

    def _autocast(self) -> torch.autocast:
        dtype = _AUTOCAST[self._precision]
        return torch.autocast(self._device.type, dtype=dtype, enabled=dtype is not None)

    def _scale(self, image: PreparedImage) -> Tensor:
        return torch.tensor(image.scale_xy * 2, device=self._device)

    def _propose(self, pixels: Tensor, maps: Mapping[str, Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Boxes (R, 4) in network pixels and foreground probabilities (R), best first."""
        rpn, levels = self._network.rpn, list(maps.values())
        with self._autocast():
            logits, deltas = rpn.head(levels)
        anchors = rpn.anchor_generator(ImageList(pixels, [size]), levels)
        per_level = [level[0].numel() for level in logits]
        flat_logits, flat_deltas = concat_box_prediction_layers(logits, deltas)
        boxes = rpn.box_coder.decode(flat_deltas.float(), anchors).view(1, -1, 4)
        kept, scores = rpn.filter_proposals(boxes, flat_logits.float(), [size], per_level)
        return kept[0], scores[0]

    def _describe(
        self,
        image: PreparedImage,
        maps: dict[str, Tensor],
        boxes_R4: Tensor,
        objectness_R: Tensor,
        given_R4: Tensor | None,
    ) -> Regions:
        heads, size = self._network.roi_heads, _network_size(image)
        pooled = heads.box_roi_pool(maps, [boxes_R4], [size])
        with self._autocast():
            features_RD = heads.box_head(pooled).float()
        logits_RC, deltas = heads.box_predictor(features_RD)
        probs_RC = F.softmax(logits_RC, dim=1)
        class_probs_RK = probs_RC[:, self._columns_K]
        decoded_RC4 = heads.box_coder.decode(deltas, [boxes_R4]).reshape(*probs_RC.shape, 4)
        best_R = self._columns_K[class_probs_RK.argmax(dim=1)]
        regressed_R4 = decoded_RC4[torch.arange(len(best_R), device=self._device), best_R]
        return Regions(
            proposals_R4=self._original(boxes_R4, image) if given_R4 is None else given_R4,
            objectness_R=objectness_R,
            features_RD=features_RD,
            class_probs_RK=class_probs_RK,
            background_R=probs_RC[:, self._other_columns].sum(dim=1),
            regressed_R4=self._original(regressed_R4, image),
        )

    def _original(self, boxes_R4: Tensor, image: PreparedImage) -> Tensor:
        clipped: Tensor = clip_boxes_to_image(boxes_R4 / self._scale(image), (image.height, image.width))
        return clipped


def _network_size(image: PreparedImage) -> tuple[int, int]:
    """Height and width of the resized image, without its padding."""
    return round(image.height * image.scale_xy[1]), round(image.width * image.scale_xy[0])
