"""The `coco` detector: torchvision's Faster R-CNN R50-FPN trained on COCO, the one that downloads by itself.

Versions: `v1` (torchvision's `fasterrcnn_resnet50_fpn`; Ren et al., 2015, with FPN) and `v2`
(`fasterrcnn_resnet50_fpn_v2`; Li et al., 2021). Both score 91 columns: background, the 80 classes that COCO annotates
and 10 ids that it left out ("N/A"). The softmax stays over all 91, as trained; the probability on "N/A" columns, which
no training example ever had, is counted as background, so that a row and its background still sum to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import (
    FasterRCNN,
    FasterRCNN_ResNet50_FPN_V2_Weights,
    FasterRCNN_ResNet50_FPN_Weights,
    fasterrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from vlprep.detect.base import Detector
from vlprep.detect.loading import load_network, overridden, random_network
from vlprep.detect.torchvision_faster_rcnn import torchvision_detector
from vlprep.errors import SettingsError
from vlprep.weights import PublicPlace, describe, is_random, load_arrays, resolve

_PUBLISHED = {
    "v1": FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    "v2": FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
}
_DEFAULTS = {"version": "v1", "post_nms": 300, "short_side": 800, "long_side": 1333}
_COLUMNS = tuple(_PUBLISHED["v1"].meta["categories"])
CLASS_NAMES: tuple[str | None, ...] = tuple(None if name in ("__background__", "N/A") else name for name in _COLUMNS)
"""One entry a score column, None for background and the ids that COCO left out."""


def build(*, weights: str | None, device: str, precision: str, overrides: Mapping[str, Any]) -> Detector:
    """The detector on its device.

    Overrides: `version` (`v1` or `v2`), `post_nms` (proposals an image), `short_side` and `long_side` in pixels
    (as published, 800 and 1333).

    Raises:
        SettingsError: The weights are neither here nor to be had, or do not fit.
    """
    settings = overridden(_DEFAULTS, overrides, "coco")
    version = settings["version"]
    if version not in _PUBLISHED:
        raise SettingsError(f"version={version!r} for --detector coco: one of {', '.join(_PUBLISHED)}")
    make = partial(_network, **settings)
    if is_random(weights):
        network, record = random_network(make, str(weights))
    else:
        place = _place(version)
        path = _cached(place, weights) or resolve(weights, default=place)
        network, record = load_network(make, load_arrays(path), path=path, source=describe(weights, default=place))
    return torchvision_detector(
        network,
        name="coco",
        class_names=CLASS_NAMES,
        weights=record,
        device=device,
        precision=precision,
        settings={"version": version},
    )


def _network(*, version: str, post_nms: int, short_side: int, long_side: int) -> nn.Module:
    sizes = {"rpn_post_nms_top_n_test": post_nms, "min_size": short_side, "max_size": long_side}
    network: nn.Module
    if version == "v2":
        network = fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=len(_COLUMNS), **sizes)
        return network
    # The published v1 weights come from normalisations without epsilon; torchvision, too, sets it to 0 on loading.
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=partial(FrozenBatchNorm2d, eps=0.0), trainable_layers=0
    )
    network = FasterRCNN(backbone, num_classes=len(_COLUMNS), **sizes)
    return network


def _place(version: str) -> PublicPlace:
    url = _PUBLISHED[version].url
    file = url.rpartition("/")[2]
    digits = file.removesuffix(".pth").rpartition("-")[
        2
    ]  # the first digits of the file's SHA-256, torchvision's custom
    return PublicPlace(file=file, page=url, url=url, sha256=digits)


def _cached(place: PublicPlace, weights: str | None) -> Path | None:
    """Where torchvision itself has downloaded the file before, if it has."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / place.file
    return path if weights is None and path.is_file() else None
