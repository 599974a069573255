"""The bottom-up-attention detector: photographs to regions.

Shape suffixes: B images of one shape, R regions of an image, K classes, D feature size; boxes are x1, y1, x2, y2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlprep.detect.anchors import map_anchors
from vlprep.detect.arithmetic import arithmetic_for
from vlprep.detect.base import PreparedImage, Regions
from vlprep.detect.boxes import clip, decode
from vlprep.detect.head import ConvolutionHead, RegionHead, stream
from vlprep.detect.matmul_head import MatmulHead, applies_to
from vlprep.detect.network import Predictions, RegionNetwork
from vlprep.detect.proposals import propose
from vlprep.detect.resize import resize
from vlprep.detect.spec import RegionSpec
from vlprep.detect.tiled_conv import tile_convolutions
from vlprep.errors import ItemError
from vlprep.networks.exact import exact
from vlprep.weights import WeightsRecord

_CHUNK = {"cpu": 16, "cuda": 256}
"""Regions through the head at once: what fits a CPU's cache, what fills a GPU."""
_LEAST_SIDE = 4
"""Of the network's input, in pixels: the stem needs as many."""


class _Located(NamedTuple):
    """One image before the region head."""

    map_Chw: Tensor
    boxes_R4: Tensor
    """Network pixels: what regions are pooled from."""
    proposals_R4: Tensor
    """The same in original pixels."""
    objectness_R: Tensor
    """Logits; 0 for given boxes."""


class RegionDetector:
    """A `vlprep.detect.base.Detector` for one `RegionSpec`."""

    def __init__(
        self,
        spec: RegionSpec,
        network: RegionNetwork,
        *,
        weights: WeightsRecord,
        class_names: tuple[str, ...],
        attribute_names: tuple[str, ...],
        device: torch.device,
        precision: str,
        chunk: int = 0,
    ) -> None:
        """Take over `network` (float32), and move it to the device and its number type.

        `chunk`: regions through the head at once, 0 for what suits the device.
        """
        self.name = spec.name
        self.spec = spec
        self.feature_dim = spec.feature_dim
        self.class_names = class_names
        self.attribute_names = attribute_names
        self.weights = weights
        self.default_selection: str = spec.default_selection
        self._precision = precision
        self._device = device
        arithmetic = arithmetic_for(precision, device)
        self._dtype = arithmetic.dtype
        self.network = network.requires_grad_(False).eval().to(device)
        self._anchors_A4 = network.rpn.anchors_A4.clone()  # stays float32
        for part in (network.backbone, network.rpn, network.res5, network.res5_norm):
            if part is not None:
                part.to(arithmetic.dtype).to(memory_format=torch.channels_last)
        if arithmetic.map_tile is not None:
            tile_convolutions(network.backbone, arithmetic.map_tile)
            tile_convolutions(network.rpn, arithmetic.map_tile)
        chunk = chunk or _CHUNK[device.type]
        self.head: RegionHead[Any]
        if arithmetic.tile is not None and applies_to(spec):
            self.head = MatmulHead(network, tile=arithmetic.tile, chunk=chunk)
        else:
            self.head = ConvolutionHead(network, spec, chunk=chunk)

    def settings(self) -> dict[str, Any]:
        """The spec's fields and the precision; the weights are recorded beside them."""
        return {**asdict(self.spec), "precision": self._precision}

    def prepare(self, image_HW3: NDArray[np.uint8]) -> PreparedImage:
        """From RGB pixels to the network's input, by the family's own resizer.

        Raises:
            ItemError: The picture is so elongated that nothing would be left of its short side.
        """
        height, width = image_HW3.shape[:2]
        resized = resize(image_HW3, self.spec)
        if min(resized.pixels_3hw.shape[1:]) < _LEAST_SIDE:
            raise ItemError(f"a picture of {width} by {height} pixels is too narrow for --detector {self.name}")
        return PreparedImage(resized.pixels_3hw, height, width, resized.scale_xy)

    def detect(
        self, images: Sequence[PreparedImage], given: Sequence[NDArray[np.float32] | None] | None = None
    ) -> list[Regions]:
        """Return the regions of each image; images of equal shape share the backbone, all share the head.

        Args:
            images: Of any shapes. Nothing is padded.
            given: Boxes (n, 4) in original pixels that take the proposals' place, or None, for each image.
        """
        given = given or [None] * len(images)
        with exact():
            located: dict[int, _Located] = {}
            for rows in _by_shape(images):
                group = self._locate([images[row] for row in rows], [given[row] for row in rows])
                located.update(zip(rows, group, strict=True))
            in_order = [located[row] for row in range(len(images))]
            features = stream(self.head, [of.map_Chw for of in in_order], [of.boxes_R4 for of in in_order])
            return [self._regions(*of_image) for of_image in zip(images, in_order, features, strict=True)]

    def _locate(
        self, images: Sequence[PreparedImage], given: Sequence[NDArray[np.float32] | None]
    ) -> Iterator[_Located]:
        """Maps and boxes of images of one shape."""
        map_BChw = self._backbone(images)
        anchors_N4 = map_anchors(self._anchors_A4, *map_BChw.shape[2:])
        if any(boxes_R4 is None for boxes_R4 in given):
            logits_BN, deltas_BN4 = self.network.rpn(map_BChw)
        for row, (image, boxes) in enumerate(zip(images, given, strict=True)):
            factors = torch.tensor(image.scale_xy * 2, device=self._device)
            if boxes is not None:
                proposals_R4 = torch.tensor(boxes, device=self._device)
                yield _Located(map_BChw[row], proposals_R4 * factors, proposals_R4, proposals_R4.new_zeros(len(boxes)))
            else:
                boxes_R4, objectness_R = propose(
                    logits_BN[row], deltas_BN4[row], anchors_N4, self.spec, _size(image), image.scale_xy
                )
                proposals_R4 = clip(boxes_R4 / factors, image.height, image.width, plus_one=False)
                yield _Located(map_BChw[row], boxes_R4, proposals_R4, objectness_R)

    def _backbone(self, images: Sequence[PreparedImage]) -> Tensor:
        pixels_B3hw = torch.stack([image.pixels for image in images]).to(self._device, self._dtype)
        map_BChw: Tensor = self.network.backbone(pixels_B3hw.contiguous(memory_format=torch.channels_last))
        return map_BChw

    def _regions(self, image: PreparedImage, located: _Located, features_RD: Tensor) -> Regions:
        predictions: Predictions = self.network.predictor(features_RD)
        # Decoded in original pixels: Caffe's + 1 is one of those, and without it scale does not matter.
        regressed_R4 = decode(
            located.proposals_R4, predictions.deltas_R4, weights=self.spec.box_weights, plus_one=self.spec.plus_one
        )
        attributes = predictions.attribute_probs_RA
        return Regions(
            proposals_R4=located.proposals_R4,
            objectness_R=located.objectness_R,
            features_RD=features_RD,
            class_probs_RK=predictions.class_probs_RK[:, :-1],
            background_R=predictions.class_probs_RK[:, -1],
            regressed_R4=clip(regressed_R4, *_covered(image), plus_one=self.spec.plus_one),
            attribute_probs_RA=None if attributes is None else attributes[:, : self.spec.attributes],
        )


def _size(image: PreparedImage) -> tuple[int, int]:
    return image.pixels.shape[1], image.pixels.shape[2]


def _covered(image: PreparedImage) -> tuple[float, float]:
    """The part of the original that the network saw: Caffe's resizer rounds the size but not the scale."""
    height, width = _size(image)
    return min(height / image.scale_xy[1], image.height), min(width / image.scale_xy[0], image.width)


def _by_shape(images: Sequence[PreparedImage]) -> list[list[int]]:
    """Rows of equal shape together, in order of appearance."""
    groups: dict[tuple[int, int], list[int]] = {}
    for row, image in enumerate(images):
        groups.setdefault(_size(image), []).append(row)
    return list(groups.values())
