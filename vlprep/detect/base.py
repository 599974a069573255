"""What a region detector takes and gives: the seam between networks, selection rules and the stage.

Shape suffixes: R regions of one image, K foreground classes, D feature size, A attributes; boxes are x1, y1, x2, y2 in
pixels of the image as a person sees it (EXIF applied).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vlprep.weights import WeightsRecord


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image as its network takes it; images of equal `pixels.shape` may share a batch, nothing is ever padded."""

    pixels: Tensor
    """(3, h, w) float32 on the CPU: resized, channels in the network's order, mean subtracted."""
    height: int
    """Of the original image, in pixels."""
    width: int
    scale_xy: tuple[float, float]
    """Original pixels times this are network pixels."""


@dataclass(frozen=True, slots=True)
class Regions:
    """All that a detector says of one image, before selection. Tensors share one device and are float32."""

    proposals_R4: Tensor
    """The boxes that the features were pooled from, original pixels."""
    objectness_R: Tensor
    features_RD: Tensor
    class_probs_RK: Tensor
    """Softmax over all classes, background column taken away (so rows sum to 1 - background)."""
    background_R: Tensor
    regressed_R4: Tensor
    """The regressed box of each region's most probable foreground class, clipped to the image, original pixels."""
    attribute_probs_RA: Tensor | None = None

    def __len__(self) -> int:
        return len(self.features_RD)

    def rows(self, index: Tensor) -> Regions:
        """The same image with only these rows, in this order."""
        columns = ((field.name, getattr(self, field.name)) for field in fields(self))
        picked: dict[str, Any] = {name: None if value is None else value[index] for name, value in columns}
        return Regions(**picked)


class Detector(Protocol):
    """A loaded network on its device. `prepare` is thread-safe and runs in decoding threads; `detect` is not."""

    name: str
    feature_dim: int
    class_names: tuple[str, ...]
    """Foreground classes, in column order of `class_probs_RK`."""
    attribute_names: tuple[str, ...]
    """Empty where the family has no attributes."""
    weights: WeightsRecord
    default_selection: str
    """`caffe` or `max-class`."""

    def settings(self) -> dict[str, Any]:
        """All that changes the numbers, JSON-ready; it becomes part of the store's fingerprint."""

    def prepare(self, image_HW3: NDArray[np.uint8]) -> PreparedImage:
        """From RGB pixels to the network's input, to the pixel as the family's own resizer does it."""

    def detect(
        self, images: Sequence[PreparedImage], given: Sequence[NDArray[np.float32] | None] | None = None
    ) -> list[Regions]:
        """Run images of one shape together. `given` boxes (n, 4), original pixels, take the proposals' place."""
