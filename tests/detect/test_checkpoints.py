"""The published files: their envelopes, their names, and what is said of those that do not fit."""

from __future__ import annotations

import logging
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from detect.networks import FAMILIES, loaded, picture, published_weights, tiny
from torch import Tensor

from vlprep.detect.anchors import cell_anchors
from vlprep.detect.checkpoints import load_checkpoint
from vlprep.detect.detector import RegionDetector
from vlprep.detect.network import RegionNetwork
from vlprep.errors import SettingsError
from vlprep.weights import load_arrays

ANCHORS = "proposal_generator.anchor_generator.cell_anchors.0"


def features(detector: RegionDetector) -> Tensor:
    return detector.detect([detector.prepare(picture())])[0].features_RD


def as_published(weights: dict[str, Tensor], file: Path) -> Path:
    """Write the weights as their publishers do."""
    match file.name:
        case "faster_rcnn_from_caffe_attr.pkl":  # py-bottom-up-attention, Python 2's protocol
            arrays = {name: array.numpy() for name, array in weights.items() if "num_batches" not in name}
            file.write_bytes(pickle.dumps({"model": arrays, "__author__": "x", "matching_heuristics": True}, 2))
        case "pytorch_model.bin":  # Hugging Face, with TensorFlow's names for norms
            renamed = ((name.replace("norm.weight", "norm.gamma"), array) for name, array in weights.items())
            torch.save(OrderedDict((name.replace("norm.bias", "norm.beta"), array) for name, array in renamed), file)
        case "bua-caffe-frcn.pth":  # MILVLG: some files lack the counters
            kept = {name: array for name, array in weights.items() if "num_batches" not in name}
            torch.save({"model": kept, "iteration": 1}, file, _use_new_zipfile_serialization=False)
    return file


@pytest.mark.parametrize(
    ("family", "file"),
    [
        ("butd", "faster_rcnn_from_caffe_attr.pkl"),
        ("butd", "pytorch_model.bin"),
        ("butd-caffe", "bua-caffe-frcn.pth"),
        ("butd-caffe-r152", "bua-caffe-frcn.pth"),
        ("butd-d2", "bua-caffe-frcn.pth"),
    ],
)
def test_published_files(tmp_path: Path, family: str, file: str) -> None:
    spec = tiny(FAMILIES[family])
    weights = published_weights(spec)
    arrays = load_arrays(as_published(weights, tmp_path / file))
    assert torch.equal(features(loaded(spec, arrays)), features(loaded(spec, weights)))


def test_anchors_come_from_the_file(caplog: pytest.LogCaptureFixture) -> None:
    spec = tiny(FAMILIES["butd-caffe"])
    weights = published_weights(spec)
    weights[ANCHORS] = weights[ANCHORS] + 1
    network = RegionNetwork(spec)
    with caplog.at_level(logging.INFO):
        load_checkpoint(network, weights, spec, "x.pth")
        assert torch.equal(network.rpn.anchors_A4, cell_anchors(spec.anchors) + 1)
        del weights[ANCHORS]
        load_checkpoint(RegionNetwork(spec), weights, spec, "y.pth")
    assert "x.pth: anchors from the file" in caplog.text
    assert "y.pth: no anchors in the file, made by the caffe convention" in caplog.text
    assert "read as butd-caffe (background first, 2 logits an anchor)" in caplog.text


def test_anchors_are_made_where_the_file_has_none() -> None:
    spec = tiny(FAMILIES["butd"])
    weights = published_weights(spec)
    expected = features(loaded(spec, weights))
    del weights[ANCHORS]
    assert torch.equal(features(loaded(spec, weights)), expected)


@pytest.mark.parametrize(("file_of", "read_as"), [("butd", "butd-caffe"), ("butd-caffe", "butd"), ("butd-d2", "butd")])
def test_another_familys_file_is_refused(file_of: str, read_as: str) -> None:
    weights = published_weights(tiny(FAMILIES[file_of]))
    with pytest.raises(SettingsError, match=f"file.pth: not a checkpoint of --detector {read_as}:"):
        load_checkpoint(RegionNetwork(tiny(FAMILIES[read_as])), weights, tiny(FAMILIES[read_as]), "file.pth")


def test_complaints_name_arrays() -> None:
    spec = tiny(FAMILIES["butd"])
    weights = published_weights(spec)
    for name, problem, change in (
        ("backbone.res3.0.conv2.norm.running_var", r"unknown.*backbone\.res3\.0\.conv2\.norm", None),
        ("backbone.res3.0.conv2.weight", r"missing.*backbone\.res3\.0\.conv2\.weight", None),
        ("roi_heads.box_predictor.cls_score.bias", r"cls_score\.bias is \(20,\), not \(21,\)", slice(20)),
        ("roi_heads.mask_head.weight", r"1 unknown.*mask_head", torch.ones(1)),
    ):
        broken = dict(weights)
        if change is None:
            del broken[name]
        else:
            broken[name] = change if isinstance(change, Tensor) else broken[name][change]
        with pytest.raises(SettingsError, match=problem):
            load_checkpoint(RegionNetwork(spec), broken, spec, "x.pth")
