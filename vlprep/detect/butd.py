"""The bottom-up-attention families (arXiv 1707.07998), trained on Visual Genome: their specs, places and builder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch

from vlprep.detect.base import Detector
from vlprep.detect.checkpoints import load_checkpoint
from vlprep.detect.detector import RegionDetector
from vlprep.detect.loading import overridden, random_network
from vlprep.detect.network import RegionNetwork
from vlprep.detect.spec import AnchorSpec, RegionSpec
from vlprep.detect.vocabulary import attribute_names, class_names
from vlprep.weights import PublicPlace, WeightsRecord, describe, is_random, load_arrays, resolve, sha256_of

BUTD = RegionSpec(
    name="butd",
    resizer="hf_float",
    anchors=AnchorSpec(sizes=(64, 128, 256, 512), convention="detectron"),
    plus_one=False,
    box_weights=(10.0, 10.0, 5.0, 5.0),
    default_selection="max-class",
)
"""Hugging Face's unc-nlp/frcnn-vg-finetuned and the weights of py-bottom-up-attention that it came from."""

BUTD_PB = replace(BUTD, name="butd-pb", resizer="pb_pil")
"""The same network as py-bottom-up-attention itself feeds it."""

BUTD_CAFFE = RegionSpec(
    name="butd-caffe",
    resizer="caffe_cv2",
    anchors=AnchorSpec(sizes=(64, 128, 256, 512), convention="caffe"),
    plus_one=True,
    min_side=16.0,
    filter_first=True,
    box_weights=(1.0, 1.0, 1.0, 1.0),
    background_first=True,
    rpn_logits=2,
)
"""MILVLG's port of the Caffe original, k36 and k10-100: these two differ in their weights and in selection only."""

BUTD_CAFFE_R152 = replace(
    BUTD_CAFFE,
    name="butd-caffe-r152",
    pixel_mean=(0.0, 0.0, 0.0),
    blocks=(3, 8, 36, 3),
    stride_in="3x3",
    preactivation=True,
    norm_eps=2e-5,
    res5_stride=2,
    res5_dilation=1,
)
"""MILVLG's port of the larger Caffe model, a pre-activation ResNet that normalises its own pixels."""

BUTD_D2 = RegionSpec(
    name="butd-d2",
    resizer="caffe_cv2",
    pixel_mean=(103.53, 116.28, 123.675),
    stem_pool="padded",
    rpn_width=1024,
    anchors=AnchorSpec(sizes=(32, 64, 128, 256, 512), convention="detectron"),
    post_nms=1000,
    plus_one=False,
    box_weights=(10.0, 10.0, 5.0, 5.0),
    roi_op="align",
    sampling=2,
    res5_stride=2,
    res5_dilation=1,
    attribute_none=False,
)
"""MILVLG's own training in detectron2 (`mode=d2`, R101)."""

_MILVLG = "https://github.com/MILVLG/bottom-up-attention.pytorch#pre-trained-models"
_HUGGING_FACE = PublicPlace(
    file="butd/pytorch_model.bin",
    page="https://huggingface.co/unc-nlp/frcnn-vg-finetuned",
    url="hf://unc-nlp/frcnn-vg-finetuned/pytorch_model.bin",
)
_FAMILIES = {
    "butd": (BUTD, _HUGGING_FACE),
    "butd-pb": (BUTD_PB, _HUGGING_FACE),
    "butd-caffe": (BUTD_CAFFE, PublicPlace(file="butd-caffe/bua-caffe-frcn-r101-k10-100.pth", page=_MILVLG)),
    "butd-caffe-r152": (BUTD_CAFFE_R152, PublicPlace(file="butd-caffe/bua-caffe-frcn-r152.pth", page=_MILVLG)),
    "butd-d2": (BUTD_D2, PublicPlace(file="butd-d2/bua-d2-frcn-r101.pth", page=_MILVLG)),
}
_ADJUSTABLE = ("short_side", "long_side", "pre_nms", "post_nms", "rpn_nms", "resizer")
"""Fields of a spec that a user may change: they need no other weights."""


def build(family: str, *, weights: str | None, device: str, precision: str, overrides: Mapping[str, Any]) -> Detector:
    """The detector of one of this module's families on its device.

    Args:
        family: Such as `butd-caffe`.
        weights: See `vlprep.weights.resolve`; `random:SEED` for made-up ones.
        device: `cpu`, `cuda` or `cuda:N`.
        precision: See `vlprep.detect.arithmetic`.
        overrides: `short_side`, `long_side`, `pre_nms`, `post_nms`, `rpn_nms` and `resizer` of the spec, and `chunk`:
            regions through the head at once (0: what suits the device).

    Raises:
        SettingsError: The weights are neither here nor to be had, or do not fit; no such setting.
    """
    published, place = _FAMILIES[family]
    defaults = {name: getattr(published, name) for name in _ADJUSTABLE}
    settings = overridden({**defaults, "chunk": 0}, overrides, family)
    chunk = settings.pop("chunk")
    spec = replace(published, **settings)
    make = partial(RegionNetwork, spec)
    if is_random(weights):
        made_up, record = random_network(make, str(weights))
        network = cast(RegionNetwork, made_up)
    else:
        path = resolve(weights, default=place)
        network = make()
        load_checkpoint(network, load_arrays(path), spec, str(path))
        record = WeightsRecord(describe(weights, default=place), sha256_of(path))
    return RegionDetector(
        spec,
        network,
        weights=record,
        class_names=class_names(),
        attribute_names=attribute_names(),
        device=torch.device(device),
        precision=precision,
        chunk=chunk,
    )
