"""A detector with arithmetic in the network's place, given by name as a user's own would be.

Its regions depend on the pixels alone; a picture's top left red value may make it misbehave (see `_act`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlprep.detect.base import Detector, PreparedImage, Regions
from vlprep.errors import ItemError, SettingsError
from vlprep.weights import WeightsRecord

KILL, HANG, RAISE, REFUSE, NOT_FINITE = 250, 251, 252, 253, 254
"""Red values of the top left pixel."""


def build(*, weights: str | None, device: str, precision: str, overrides: Mapping[str, Any]) -> Detector:
    if weights == "missing":
        raise SettingsError("--weights missing: no such file")
    torch.set_num_threads(1)  # threads cost more than these tensors are worth
    return DummyDetector(device, **overrides)


class DummyDetector:
    name = "dummy"
    class_names = tuple(f"class {number}" for number in range(20))
    attribute_names = ("red", "green", "blue")
    default_selection = "max-class"
    weights = WeightsRecord(source="none", sha256="0" * 64)

    def __init__(self, device: str, feature_dim: int = 16, seconds: float = 0.0, side: int = 0) -> None:
        self.feature_dim, self._seconds, self._side, self._device = feature_dim, seconds, side, device

    def settings(self) -> dict[str, Any]:
        return {"feature_dim": self.feature_dim}

    def prepare(self, image_HW3: NDArray[np.uint8]) -> PreparedImage:
        _act(int(image_HW3[0, 0, 0]))
        pixels = torch.from_numpy(image_HW3).permute(2, 0, 1).float()
        if self._side:
            pixels = torch.nn.functional.interpolate(pixels[None], size=(self._side, self._side))[0]
        height, width = image_HW3.shape[:2]
        return PreparedImage(pixels, height, width, (1.0, 1.0))

    def detect(
        self, images: Sequence[PreparedImage], given: Sequence[NDArray[np.float32] | None] | None = None
    ) -> list[Regions]:
        assert len({image.pixels.shape for image in images}) == 1
        time.sleep(self._seconds * len(images))
        boxes = given or [None] * len(images)
        return [self._regions(image, box) for image, box in zip(images, boxes, strict=True)]

    def _regions(self, image: PreparedImage, boxes: NDArray[np.float32] | None) -> Regions:
        seed = int(image.pixels.double().sum()) % 2**31
        generator = torch.Generator().manual_seed(seed)
        count = 30 + seed % 20 if boxes is None else len(boxes)
        corners_R22 = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values
        proposals_R4 = (corners_R22 * torch.tensor([image.width, image.height])).reshape(count, 4)
        if boxes is not None:
            proposals_R4 = torch.from_numpy(boxes)
        probs_RK1 = torch.softmax(4 * torch.randn(count, 21, generator=generator), dim=1)
        features_RD = torch.rand(count, self.feature_dim, generator=generator)
        if int(image.pixels[0, 0, 0]) == NOT_FINITE:
            features_RD[:] = torch.nan
        return Regions(
            proposals_R4=proposals_R4,
            objectness_R=torch.rand(count, generator=generator),
            features_RD=features_RD,
            class_probs_RK=probs_RK1[:, :20],
            background_R=probs_RK1[:, 20],
            regressed_R4=proposals_R4,
            attribute_probs_RA=torch.rand(count, 3, generator=generator),
        )


def _act(red: int) -> None:
    match red:
        case 250:
            os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(60)
        case 251:
            time.sleep(600)
        case 252:
            raise ValueError("cannot add apples")
        case 253:
            raise ItemError("too red")
