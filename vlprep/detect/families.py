"""The detectors by name. Only the one that is asked for is imported."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlprep.errors import SettingsError

if TYPE_CHECKING:  # a listing of names needs no torch
    from vlprep.detect.base import Detector


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Who builds a detector."""

    builder: str
    """`module:function`, called as `function(*bound, weights=, device=, precision=, overrides=)`."""
    bound: tuple[str, ...] = ()
    variant: str | None = None
    """What follows a colon in the name, if the family wants that; it is handed on after `bound`."""
    description: str


_BUTD = "vlprep.detect.butd:build"
_FAMILIES = {
    "butd": Family(
        builder=_BUTD,
        bound=("butd",),
        description="bottom-up attention, R101, Visual Genome: Hugging Face's frcnn-vg-finetuned",
    ),
    "butd-pb": Family(
        builder=_BUTD,
        bound=("butd-pb",),
        description="the same network, photographs resized as in py-bottom-up-attention (.pkl)",
    ),
    "butd-caffe": Family(
        builder=_BUTD,
        bound=("butd-caffe",),
        description="the Caffe original's features: MILVLG's R101 (k36 and k10-100, .pth)",
    ),
    "butd-caffe-r152": Family(
        builder=_BUTD,
        bound=("butd-caffe-r152",),
        description="MILVLG's port of the R152 Caffe model (.pth)",
    ),
    "butd-d2": Family(
        builder=_BUTD,
        bound=("butd-d2",),
        description="MILVLG's R101 trained in detectron2, 1000 proposals (.pth)",
    ),
    "coco": Family(
        builder="vlprep.detect.torchvision_coco:build",
        description="torchvision's Faster R-CNN R50-FPN, COCO's 80 classes; downloads by itself",
    ),
    "d2": Family(
        builder="vlprep.detect.d2_stock:build",
        description="checkpoints of detectron2's stock R50 and R101 Faster R-CNNs, without detectron2",
    ),
    "detectron2": Family(
        builder="vlprep.detect.detectron2_adapter:build",
        variant="CONFIG",
        description="any detectron2 model, by config name or file; needs detectron2",
    ),
    "demo": Family(
        builder="vlprep.detect.demo:build",
        description="a small network for rendered scenes, shipped with its weights",
    ),
}


def families() -> dict[str, str]:
    """One line about each family, by the name that `--detector` takes."""
    return {f"{name}:{of.variant}" if of.variant else name: of.description for name, of in _FAMILIES.items()}


def build_detector(
    name: str,
    *,
    weights: str | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    overrides: Mapping[str, Any] | None = None,
) -> Detector:
    """Return a loaded detector on its device.

    Args:
        name: A family; `family:variant` where it has variants, as `detectron2:CONFIG`.
        weights: See `vlprep.weights.resolve`; None for the family's public place.
        device: `cpu`, `cuda` or `cuda:N`.
        precision: `fp32`, `bf16` or `fp16`.
        overrides: The family's own settings, such as `short_side` or `post_nms`.

    Raises:
        SettingsError: No such family, weights that cannot be had or do not fit, or an unknown setting.
    """
    stem, colon, variant = name.partition(":")
    family = _FAMILIES.get(stem)
    if family is None or bool(colon) != (family.variant is not None):
        raise SettingsError(f"--detector {name}: one of {', '.join(families())}")
    module, _, function = family.builder.partition(":")
    build = getattr(importlib.import_module(module), function)
    bound = (*family.bound, variant) if family.variant else family.bound
    detector: Detector = build(*bound, weights=weights, device=device, precision=precision, overrides=overrides or {})
    return detector
