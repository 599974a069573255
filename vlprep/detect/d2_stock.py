"""The `d2` detector: checkpoints of detectron2's stock Faster R-CNNs (R50, R101; C4, FPN) without detectron2 installed.

The architecture is read off the checkpoint's own names. Other detectron2 models need the library itself: see
`vlprep.detect.detectron2_adapter`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vlprep.detect.base import Detector
from vlprep.detect.d2_network import c4_network, fpn_network
from vlprep.detect.loading import load_network, overridden, random_network
from vlprep.detect.torchvision_coco import CLASS_NAMES
from vlprep.detect.torchvision_faster_rcnn import torchvision_detector
from vlprep.errors import SettingsError
from vlprep.weights import PublicPlace, describe, is_random, load_arrays, resolve

_ZOO = "https://dl.fbaipublicfiles.com/detectron2/COCO-Detection"
_PLACE = PublicPlace(
    file="detectron2/faster_rcnn_R_50_FPN_3x.pkl",
    page="https://github.com/facebookresearch/detectron2/blob/main/MODEL_ZOO.md",
    url=f"{_ZOO}/faster_rcnn_R_50_FPN_3x/137849458/model_final_280758.pkl",
)
_DEFAULTS = {"post_nms": 300, "short_side": 800, "long_side": 1333}
_COCO_NAMES = tuple(name for name in CLASS_NAMES if name is not None)
_PIXEL_MEAN_BGR = (103.53, 116.28, 123.675)
_DEPTHS = {6: 50, 23: 101}
"""By the number of blocks in res4."""
NOT_WEIGHTS = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.")
"""Buffers in some files; stock models all have the same."""
_NEW_NAMES = (
    ("backbone.bottom_up.", "backbone.body."),
    ("roi_heads.res5.", "roi_heads.box_head.res5."),
    ("stem.conv1.norm.", "bn1."),
    ("stem.conv1.", "conv1."),
    (".shortcut.norm.", ".downsample.1."),
    (".shortcut.", ".downsample.0."),
    *((f".conv{n}.norm.", f".bn{n}.") for n in (1, 2, 3)),
    *((f".res{n}.", f".layer{n - 1}.") for n in (2, 3, 4, 5)),
    *((f".fpn_lateral{n}.", f".fpn.inner_blocks.{n - 2}.0.") for n in (2, 3, 4, 5)),
    *((f".fpn_output{n}.", f".fpn.layer_blocks.{n - 2}.0.") for n in (2, 3, 4, 5)),
    ("proposal_generator.rpn_head.conv.", "rpn.head.conv.0.0."),
    ("proposal_generator.rpn_head.objectness_logits.", "rpn.head.cls_logits."),
    ("proposal_generator.rpn_head.anchor_deltas.", "rpn.head.bbox_pred."),
    (".box_head.fc1.", ".box_head.fc6."),
    (".box_head.fc2.", ".box_head.fc7."),
)


def build(*, weights: str | None, device: str, precision: str, overrides: Mapping[str, Any]) -> Detector:
    """The detector on its device; by default with the model zoo's `faster_rcnn_R_50_FPN_3x`.

    A model of 80 classes is taken to have COCO's; others get numbers for names. Overrides: `post_nms` (proposals an
    image), `short_side` and `long_side` in pixels.

    Raises:
        SettingsError: The weights cannot be had, or are of another architecture.
    """
    sizes = overridden(_DEFAULTS, overrides, "d2")
    if is_random(weights):
        architecture, classes, depth = "fpn", len(_COCO_NAMES), 50
        network, record = random_network(partial(fpn_network, depth=depth, classes=classes, **sizes), str(weights))
    else:
        path = resolve(weights, default=_PLACE)
        arrays = load_arrays(path)
        depth = _depth(arrays, path)
        classes = len(arrays["roi_heads.box_predictor.cls_score.bias"]) - 1
        architecture = "fpn" if "backbone.fpn_lateral2.weight" in arrays else "c4"
        make = partial(fpn_network if architecture == "fpn" else c4_network, depth=depth, classes=classes, **sizes)
        arrays = _torchvision_names(arrays)
        network, record = load_network(make, arrays, path=path, source=describe(weights, default=_PLACE))
    names = _COCO_NAMES if classes == len(_COCO_NAMES) else tuple(f"class {number}" for number in range(classes))
    return torchvision_detector(
        network,
        name="d2",
        class_names=(*names, None),
        weights=record,
        device=device,
        precision=precision,
        settings={"architecture": f"{architecture}-r{depth}"},
        resize=partial(_network_input, short_side=sizes["short_side"], long_side=sizes["long_side"]),
    )


def resize_shortest_edge(image_HW3: NDArray[np.uint8], *, short_side: int, long_side: int) -> NDArray[np.uint8]:
    """Detectron2's `ResizeShortestEdge`: both sides rounded half up, Pillow's bilinear filter on uint8."""
    height, width = image_HW3.shape[:2]
    scale = short_side / min(height, width)
    shrink = min(1.0, long_side / (scale * max(height, width)))
    new_width, new_height = (int(scale * side * shrink + 0.5) for side in (width, height))
    return np.asarray(Image.fromarray(image_HW3).resize((new_width, new_height), Image.Resampling.BILINEAR))


def _network_input(image_HW3: NDArray[np.uint8], *, short_side: int, long_side: int) -> Tensor:
    resized = resize_shortest_edge(image_HW3, short_side=short_side, long_side=long_side)
    bgr = torch.tensor(resized).permute(2, 0, 1).flip(0).float()
    return bgr - torch.tensor(_PIXEL_MEAN_BGR)[:, None, None]


def _depth(arrays: Mapping[str, Tensor], path: Path) -> int:
    blocks = {name.partition(".res4.")[2].partition(".")[0] for name in arrays if ".res4." in name}
    if len(blocks) not in _DEPTHS or "roi_heads.box_predictor.cls_score.bias" not in arrays:
        raise SettingsError(
            f"{path}: not a Faster R-CNN R50 or R101 of detectron2's model zoo; "
            "for its other models install detectron2 and use --detector detectron2:CONFIG"
        )
    return _DEPTHS[len(blocks)]


def _torchvision_names(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights as torchvision's modules name them; background, last here, has no box regressor and gets zeros."""
    renamed = {}
    for name, tensor in arrays.items():
        if name.startswith(NOT_WEIGHTS):
            continue
        for old, new in _NEW_NAMES:
            name = name.replace(old, new)
        if name.startswith("roi_heads.box_predictor.bbox_pred."):
            tensor = torch.cat([tensor, torch.zeros_like(tensor[:4])])
        renamed[name] = tensor
    return renamed
