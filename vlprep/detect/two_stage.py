"""A `Detector` out of any two-stage network that can be taken apart: backbone, proposals, region heads.

Networks give final detections only; here every proposal comes out with the feature it was classified by, its whole
class distribution and its regressed box. Each image is padded at the right and bottom to the network's own multiple, as
its authors pad a single image, and never further: a result does not depend on its batch.

Shapes: B images, R regions of one image, C class columns, K foreground classes, D features; sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import clip_boxes_to_image

from vlprep.detect.base import PreparedImage, Regions
from vlprep.errors import ItemError, SettingsError
from vlprep.networks.exact import exact
from vlprep.weights import WeightsRecord

Maps = Mapping[str, Tensor]
_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class TwoStageNetwork(Protocol):
    """A loaded network on its device, in parts. `mixed` is the context in which convolutions and linear layers run."""

    feature_dim: int

    def maps(self, pixels: Tensor) -> Maps:
        """(B, 3, h, w) to the backbone's maps by level."""

    def propose(
        self, pixels: Tensor, maps: Maps, size: tuple[int, int], mixed: torch.autocast
    ) -> tuple[Tensor, Tensor]:
        """For one image: boxes (R, 4) in network pixels and their objectness (R), best first."""

    def describe(
        self, maps: Maps, boxes_R4: Tensor, size: tuple[int, int], mixed: torch.autocast
    ) -> tuple[Tensor, Tensor, Tensor]:
        """For one image's boxes: features (R, D), probabilities (R, C), regressed boxes (R, C or fewer or 1, 4).

        Regressed boxes have the columns of the probabilities as far as they go; one alone stands for all classes.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRule:
    """What becomes of a picture before the network."""

    resize: Callable[[NDArray[np.uint8]], Tensor]
    """From (H, W, 3) RGB to (3, h, w) float32, without padding."""
    short_side: int
    long_side: int
    """In network pixels: what `resize` aims at, and what the long side may not pass."""
    multiple: int
    """Of which the padded sides are."""


class TwoStageDetector:
    """A `vlprep.detect.base.Detector`. Convolutions and box head run in `precision`; boxes, scores and NMS in fp32."""

    attribute_names: tuple[str, ...] = ()
    default_selection = "max-class"

    def __init__(
        self,
        network: TwoStageNetwork,
        rule: InputRule,
        *,
        name: str,
        class_names: Sequence[str | None],
        weights: WeightsRecord,
        device: str,
        precision: str,
        settings: Mapping[str, Any],
    ) -> None:
        """Wrap a network.

        Args:
            network: On `device`, in evaluation mode.
            rule: How its input is made.
            name: The family.
            class_names: One entry a column of the class scores; None marks background and columns without a class,
                whose probabilities together are `Regions.background_R`.
            weights: Their record.
            device: Such as `cpu` or `cuda:0`.
            precision: `fp32`, `bf16` or `fp16`.
            settings: What else changes the numbers.
        """
        if precision not in _AUTOCAST:
            raise SettingsError(f"--precision {precision}: one of {', '.join(_AUTOCAST)}")
        self.name = name
        self.weights = weights
        self.class_names = tuple(known for known in class_names if known is not None)
        self.feature_dim = network.feature_dim
        self._network = network
        self._rule = rule
        self._device = torch.device(device)
        self._precision = precision
        self._settings = dict(settings)
        known = torch.tensor([name is not None for name in class_names], device=self._device)
        self._class_columns_K, self._other_columns = known.nonzero()[:, 0], (~known).nonzero()[:, 0]

    def settings(self) -> dict[str, Any]:
        sides = {"short_side": self._rule.short_side, "long_side": self._rule.long_side}
        return {"family": self.name, **sides, "precision": self._precision, **self._settings}

    def prepare(self, image_HW3: NDArray[np.uint8]) -> PreparedImage:
        height, width = image_HW3.shape[:2]
        scale = min(self._rule.short_side / min(height, width), self._rule.long_side / max(height, width))
        if min(height, width) * scale < 1:
            raise ItemError(f"{width}x{height} pixels: too narrow, less than one pixel wide at the network's size")
        pixels = self._rule.resize(image_HW3)
        h, w = pixels.shape[1:]
        padded = F.pad(pixels, (0, -w % self._rule.multiple, 0, -h % self._rule.multiple))
        return PreparedImage(pixels=padded, height=height, width=width, scale_xy=(w / width, h / height))

    @exact()
    def detect(
        self, images: Sequence[PreparedImage], given: Sequence[NDArray[np.float32] | None] | None = None
    ) -> list[Regions]:
        pixels = torch.stack([image.pixels for image in images])
        pixels = pixels.to(self._device, memory_format=torch.channels_last)
        with self._mixed():
            maps = self._network.maps(pixels)
        regions = []
        for index, (image, boxes) in enumerate(zip(images, given or [None] * len(images), strict=True)):
            own_maps = {level: values[index : index + 1].float() for level, values in maps.items()}
            if boxes is None:
                size = _network_size(image)
                found = self._network.propose(pixels[index : index + 1], own_maps, size, self._mixed())
                regions.append(self._describe(image, own_maps, *found))
            else:
                given_R4 = torch.tensor(boxes, dtype=torch.float32, device=self._device).reshape(-1, 4)
                described = self._describe(
                    image, own_maps, given_R4 * self._scale(image), torch.ones_like(given_R4[:, 0])
                )
                regions.append(replace(described, proposals_R4=given_R4))
        return regions

    def _mixed(self) -> torch.autocast:
        dtype = _AUTOCAST[self._precision]
        return torch.autocast(self._device.type, dtype=dtype, enabled=dtype is not None)

    def _describe(self, image: PreparedImage, maps: Maps, boxes_R4: Tensor, objectness_R: Tensor) -> Regions:
        features_RD, probs_RC, regressed_RC4 = self._network.describe(
            maps, boxes_R4, _network_size(image), self._mixed()
        )
        class_probs_RK = probs_RC[:, self._class_columns_K]
        best_R = self._class_columns_K[class_probs_RK.argmax(dim=1)]
        if regressed_RC4.shape[1] == 1:
            best_R = torch.zeros_like(best_R)
        return Regions(
            proposals_R4=self._original(boxes_R4, image),
            objectness_R=objectness_R,
            features_RD=features_RD,
            class_probs_RK=class_probs_RK,
            background_R=probs_RC[:, self._other_columns].sum(dim=1),
            regressed_R4=self._original(regressed_RC4[torch.arange(len(best_R), device=best_R.device), best_R], image),
        )

    def _scale(self, image: PreparedImage) -> Tensor:
        return torch.tensor(image.scale_xy * 2, device=self._device)

    def _original(self, boxes_R4: Tensor, image: PreparedImage) -> Tensor:
        clipped: Tensor = clip_boxes_to_image(boxes_R4 / self._scale(image), (image.height, image.width))
        return clipped


def _network_size(image: PreparedImage) -> tuple[int, int]:
    """Height and width of the resized image, without its padding."""
    return round(image.height * image.scale_xy[1]), round(image.width * image.scale_xy[0])
