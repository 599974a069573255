"""The `detectron2:<config>` detectors: any detectron2 model with proposals and one box head, if that library is there.

Written against the public API of facebookresearch/detectron2 (commit 02b5c4e). The feature is what the box predictor
sees: the mean of res5 in a C4 model (`Res5ROIHeads`), the last linear layer's output in an FPN one
(`StandardROIHeads`). Weights are read by `vlprep.weights`, never by detectron2's own loader, which unpickles.

Shapes: R regions of one image, C class columns (background last), K foreground classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlprep.detect.base import Detector
from vlprep.detect.d2_stock import NOT_WEIGHTS, resize_shortest_edge
from vlprep.detect.loading import overridden, random_network
from vlprep.detect.two_stage import InputRule, Maps, TwoStageDetector
from vlprep.errors import MissingDependencyError, SettingsError
from vlprep.weights import PublicPlace, WeightsRecord, describe, is_random, load_arrays, resolve, sha256_of

_INSTALL = "pip install 'git+https://github.com/facebookresearch/detectron2'"
_DEFAULTS = {"post_nms": 300}


def build(config: str, *, weights: str | None, device: str, precision: str, overrides: Mapping[str, Any]) -> Detector:
    """The detector on its device.

    Args:
        config: A file of one's own, or a name in the model zoo such as `COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml`.
        weights: A path or `hf://`; None for the zoo's weights, or for the file's `MODEL.WEIGHTS`.
        device: Such as `cpu` or `cuda:0`.
        precision: `fp32`, `bf16` or `fp16`.
        overrides: `post_nms` (proposals an image).

    Raises:
        MissingDependencyError: Detectron2 is not installed.
        SettingsError: No such config or weights, or the model has no single box head with a softmax.
    """
    settings = overridden(_DEFAULTS, overrides, f"detectron2:{config}")
    cfg, place = _configuration(config)
    if weights is None and place is None:
        weights = cfg.MODEL.WEIGHTS or None
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = settings["post_nms"]
    digest = hashlib.sha256(cfg.dump().encode()).hexdigest()
    cfg.MODEL.DEVICE = device
    model, record = _model(cfg, place, weights)
    model.eval()
    predictor = _predictor(model, config)
    rule = InputRule(
        resize=partial(_network_input, cfg=cfg, mean=model.pixel_mean.cpu(), std=model.pixel_std.cpu()),
        short_side=cfg.INPUT.MIN_SIZE_TEST,
        long_side=cfg.INPUT.MAX_SIZE_TEST,
        multiple=max(1, model.backbone.size_divisibility),
    )
    return TwoStageDetector(
        _Parts(model),
        rule,
        name=f"detectron2:{config}",
        class_names=(*_class_names(cfg, predictor.num_classes), None),
        weights=record,
        device=device,
        precision=precision,
        settings={**settings, "config_sha256": digest},
    )


def _configuration(config: str) -> tuple[Any, PublicPlace | None]:
    """Detectron2's configuration, and where the weights for it are published."""
    try:
        from detectron2 import model_zoo
        from detectron2.config import get_cfg
    except ImportError as error:
        raise MissingDependencyError(
            f"--detector detectron2:{config} needs detectron2: {_INSTALL} "
            "(checkpoints of its stock R50 and R101 Faster R-CNNs load without it: --detector d2 --weights FILE)"
        ) from error
    cfg = get_cfg()
    if Path(config).is_file():
        cfg.merge_from_file(config)
        published = cfg.MODEL.WEIGHTS.startswith("https://")
        return cfg, _place(cfg.MODEL.WEIGHTS) if published else None
    try:
        cfg.merge_from_file(model_zoo.get_config_file(config))
        return cfg, _place(model_zoo.get_checkpoint_url(config))
    except RuntimeError as error:
        raise SettingsError(f"--detector detectron2:{config}: neither a file nor a name in the model zoo") from error


def _place(url: str) -> PublicPlace:
    return PublicPlace(file="detectron2/" + "-".join(url.split("/")[-3:]), page=url, url=url)


def _model(cfg: Any, place: PublicPlace | None, weights: str | None) -> tuple[Any, WeightsRecord]:
    from detectron2.modeling import build_model

    if is_random(weights):
        return random_network(partial(build_model, cfg), str(weights))
    path = resolve(weights, default=place)
    model = build_model(cfg)
    # Missing names are errors; left-over ones too, except buffers that newer versions of detectron2 no longer keep.
    missing, unexpected = model.load_state_dict(load_arrays(path), strict=False)
    wrong = [*missing, *(name for name in unexpected if not name.startswith(NOT_WEIGHTS))]
    if wrong:
        raise SettingsError(f"{path}: not weights of this configuration ({len(wrong)} names differ, as {wrong[0]})")
    return model, WeightsRecord(source=describe(weights, default=place), sha256=sha256_of(path))


def _predictor(model: Any, config: str) -> Any:
    predictor = getattr(getattr(model, "roi_heads", None), "box_predictor", None)
    if not hasattr(predictor, "cls_score") or getattr(predictor, "use_sigmoid_ce", False):
        raise SettingsError(f"--detector detectron2:{config}: not a model with one box head and a softmax over classes")
    return predictor


def _class_names(cfg: Any, classes: int) -> tuple[str, ...]:
    from detectron2.data import MetadataCatalog

    for dataset in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        names: tuple[str, ...] = tuple(MetadataCatalog.get(dataset).get("thing_classes", None) or ())
        if len(names) == classes:
            return names
    return tuple(f"class {number}" for number in range(classes))


def _network_input(image_HW3: NDArray[np.uint8], *, cfg: Any, mean: Tensor, std: Tensor) -> Tensor:
    resized = resize_shortest_edge(image_HW3, short_side=cfg.INPUT.MIN_SIZE_TEST, long_side=cfg.INPUT.MAX_SIZE_TEST)
    pixels = torch.tensor(resized).permute(2, 0, 1).float()
    return ((pixels.flip(0) if cfg.INPUT.FORMAT == "BGR" else pixels) - mean) / std


class _Parts:
    """A `TwoStageNetwork`. Objectness is a logit."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.feature_dim: int = model.roi_heads.box_predictor.cls_score.in_features

    def maps(self, pixels: Tensor) -> Maps:
        maps: Maps = self._model.backbone(pixels)
        return maps

    def propose(
        self, pixels: Tensor, maps: Maps, size: tuple[int, int], mixed: torch.autocast
    ) -> tuple[Tensor, Tensor]:
        from detectron2.structures import ImageList

        (found,), _ = self._model.proposal_generator(ImageList(pixels, [size]), maps, None)
        return found.proposal_boxes.tensor, found.objectness_logits

    def describe(
        self, maps: Maps, boxes_R4: Tensor, size: tuple[int, int], mixed: torch.autocast
    ) -> tuple[Tensor, Tensor, Tensor]:
        from detectron2.structures import Boxes, Instances

        heads = self._model.roi_heads
        regions = Instances(size, proposal_boxes=Boxes(boxes_R4))
        if hasattr(heads, "res5"):
            pooled = heads.pooler([maps[level] for level in heads.in_features], [regions.proposal_boxes])
            with mixed:
                features_RD = heads.res5(pooled).mean(dim=(2, 3))
        else:
            pooled = heads.box_pooler([maps[level] for level in heads.box_in_features], [regions.proposal_boxes])
            with mixed:
                features_RD = heads.box_head(pooled)
        features_RD = features_RD.float()
        predictions = heads.box_predictor(features_RD)
        (probs_RC,) = heads.box_predictor.predict_probs(predictions, [regions])
        (regressed,) = heads.box_predictor.predict_boxes(predictions, [regions])
        return features_RD, probs_RC, regressed.reshape(len(boxes_R4), max(1, regressed.shape[1] // 4), 4)
