"""Small networks in every family's form, and what a reference output is compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from detect.published import PublishedNetwork
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vlprep.detect.butd import BUTD, BUTD_CAFFE, BUTD_CAFFE_R152, BUTD_D2, BUTD_PB
from vlprep.detect.checkpoints import load_checkpoint
from vlprep.detect.detector import RegionDetector
from vlprep.detect.network import RegionNetwork
from vlprep.detect.spec import AnchorSpec, RegionSpec
from vlprep.weights import WeightsRecord

FAMILIES = {spec.name: spec for spec in (BUTD, BUTD_PB, BUTD_CAFFE, BUTD_CAFFE_R152, BUTD_D2)}
GOLDEN_FOLDERS = {"butd": "butd", "butd-caffe": "butd_caffe"}

LAST = ("objectness_logits", "anchor_deltas", "cls_score", "bbox_pred", "attr_score", "attr_linear2")
"""Layers that would saturate on activations of this size."""


def tiny(spec: RegionSpec) -> RegionSpec:
    """The family's form at a width of 8 and on small pictures."""
    sizes = (16, 32, 64)
    return replace(
        spec,
        blocks=(1, 1, 2, 2),
        width=8,
        rpn_width=16,
        anchors=AnchorSpec(sizes=sizes, convention=spec.anchors.convention),
        min_side=min(spec.min_side, 4.0),
        post_nms=24,
        short_side=96,
        long_side=160,
        classes=20,
        attributes=6,
    )


def published_weights(spec: RegionSpec, seed: int = 0) -> dict[str, Tensor]:
    """A checkpoint of the family with lively statistics, by published names."""
    generator = torch.Generator().manual_seed(seed)
    state = PublishedNetwork(spec).state_dict()
    for name, array in state.items():
        if name.endswith("running_var"):
            array.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("bias", "running_mean")):
            array.normal_(0, 0.1, generator=generator)
        elif name.endswith("norm.weight") or "res5_bn.weight" in name:
            array.uniform_(0.8, 1.2, generator=generator)
        elif array.dim() > 1 and "cell_anchors" not in name:
            last = name.split(".")[-2] in LAST
            array.normal_(0, (0.01 if last else 1.0) * (2 / array[0].numel()) ** 0.5, generator=generator)
    if spec.preactivation:  # pixels are grey levels
        state["backbone.stem.norm.running_mean"].fill_(110)
        state["backbone.stem.norm.running_var"].fill_(5000)
    else:
        state["backbone.stem.conv1.weight"] /= 32
    return state


def detector_of(
    spec: RegionSpec, network: RegionNetwork, precision: str = "fp32", chunk: int = 0, device: str = "cpu"
) -> RegionDetector:
    return RegionDetector(
        spec,
        network,
        weights=WeightsRecord("test", ""),
        class_names=(),
        attribute_names=(),
        device=torch.device(device),
        precision=precision,
        chunk=chunk,
    )


def loaded(spec: RegionSpec, arrays: dict[str, Tensor], **options: Any) -> RegionDetector:
    network = RegionNetwork(spec)
    load_checkpoint(network, arrays, spec, "test")
    return detector_of(spec, network, **options)


def picture(height: int = 120, width: int = 150, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours with edges: neither flat nor noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class GoldenCase:
    """One reference file with the network that it was made with."""

    spec: RegionSpec
    weights: dict[str, Tensor]
    image: NDArray[np.uint8]
    arrays: dict[str, NDArray[Any]]
