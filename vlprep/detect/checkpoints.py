"""Published checkpoints of the bottom-up-attention family, into the network's own names and form.

The own form has background and "none" last, one logit an anchor, and norms folded into convolutions. Published are
py-bottom-up-attention's `.pkl`, Hugging Face's `pytorch_model.bin` (the same names) and MILVLG's `.pth`, in its `caffe`
and `d2` modes.

Shape suffixes: A anchors a cell, K classes, C channels.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from vlprep.detect.network import RegionNetwork
from vlprep.detect.spec import RegionSpec
from vlprep.errors import SettingsError

log = logging.getLogger(__name__)

_RENAMED = (
    (r"^proposal_generator\.anchor_generator\.cell_anchors\.0$", "rpn.anchors_A4"),
    (r"^proposal_generator\.rpn_head\.conv\.", "rpn.conv."),
    (r"^proposal_generator\.rpn_head\.objectness_logits\.", "rpn.objectness."),
    (r"^proposal_generator\.rpn_head\.anchor_deltas\.", "rpn.deltas."),
    (r"^roi_heads\.res5_bn\.", "res5_norm."),
    (r"^roi_heads\.res5\.", "res5."),
    (r"^roi_heads\.box_predictor\.", "predictor."),
    # MILVLG, caffe mode
    (r"^predictor\.cls_embed\.", "predictor.cls_embedding."),
    (r"^predictor\.attr_linear1\.", "predictor.fc_attr."),
    (r"^predictor\.attr_linear2\.", "predictor.attr_score."),
    # MILVLG, d2 mode
    (r"^roi_heads\.attribute_predictor\.obj_embed\.", "predictor.cls_embedding."),
    (r"^roi_heads\.attribute_predictor\.fc\.0\.", "predictor.fc_attr."),
    (r"^roi_heads\.attribute_predictor\.attr_score\.", "predictor.attr_score."),
    # norms as TensorFlow, and Hugging Face after it, once called them
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
)
_IGNORED = re.compile(r"num_batches_tracked$|^pixel_(mean|std)$")
_BACKGROUND_ROWS = (
    "cls_score.weight",
    "cls_score.bias",
    "cls_embedding.weight",
    "attr_score.weight",
    "attr_score.bias",
)
_SHOWN = 3
"""Names that a complaint lists."""


def load_checkpoint(network: RegionNetwork, arrays: Mapping[str, Tensor], spec: RegionSpec, label: str) -> None:
    """Fill `network` from a published checkpoint.

    Args:
        network: Built from `spec`.
        arrays: The file's arrays by name.
        spec: The family; says how its files are laid out.
        label: The file, for messages.

    Raises:
        SettingsError: An array is missing, unknown, or of another shape than the family's.
    """
    state = _renamed(arrays)
    if "rpn.anchors_A4" in state:
        log.info("%s: anchors from the file", label)
    else:
        log.info("%s: no anchors in the file, made by the %s convention", label, spec.anchors.convention)
        state["rpn.anchors_A4"] = network.rpn.anchors_A4
    _check_layout(state, spec, label)
    if spec.rpn_logits == 2:
        _merge_logits(state, len(spec.anchors))
    if spec.background_first:
        _background_last(state)
    if spec.preactivation:
        _shift_norms(state)
    layout = "background first" if spec.background_first else "background last"
    log.info("%s: read as %s (%s, %d logits an anchor)", label, spec.name, layout, spec.rpn_logits)
    state = _folded(state, spec.norm_eps)
    _check(state, network, spec, label)
    network.load_state_dict(state)


def _renamed(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = {}
    for name, array in arrays.items():
        if not _IGNORED.search(name):
            for pattern, replacement in _RENAMED:
                name = re.sub(pattern, replacement, name)
            state[name] = array.float()
    return state


def _check_layout(state: Mapping[str, Tensor], spec: RegionSpec, label: str) -> None:
    """Refuse a sister family's file, whose arrays have the same names but other columns in other orders."""
    logits = spec.rpn_logits * len(spec.anchors)
    boxes = 4 * (spec.classes + int(spec.background_first))
    for name, rows, what in (
        ("rpn.objectness.bias", logits, "objectness logits"),
        ("predictor.bbox_pred.bias", boxes, "box deltas"),
    ):
        if name in state and len(state[name]) != rows:
            raise SettingsError(
                f"{label}: not a checkpoint of --detector {spec.name}: {len(state[name])} {what}, not {rows};"
                " a sister family may fit (`vlprep detectors` lists them)"
            )


def _merge_logits(state: dict[str, Tensor], anchors: int) -> None:
    """Background and foreground logits of each anchor to their difference: softmax of two is its sigmoid."""
    for name in ("rpn.objectness.weight", "rpn.objectness.bias"):
        if name in state:
            state[name] = state[name][anchors:] - state[name][:anchors]


def _background_last(state: dict[str, Tensor]) -> None:
    """Move each first row (background, "none") to the end; deltas of the background are dropped."""
    for name in (f"predictor.{rows}" for rows in _BACKGROUND_ROWS):
        if name in state:
            state[name] = state[name].roll(-1, dims=0)
    for name in ("predictor.bbox_pred.weight", "predictor.bbox_pred.bias"):
        if name in state:
            state[name] = state[name][4:]


def _shift_norms(state: dict[str, Tensor]) -> None:
    """Pre-activation: a norm before conv2 or conv3 is a norm after the convolution ahead of it, and folds there.

    The norm before the last stage is applied to the whole map, before proposals and pooling, in MILVLG's `rcnn.py`.
    """
    for name in sorted(state):  # conv2's norm leaves for conv1 before conv3's takes its name
        ahead = re.sub(r"\.conv([23])\.norm\.", lambda found: f".conv{int(found[1]) - 1}.norm.", name)
        ahead = re.sub(r"^res5\.0\.norm\.", "backbone.norm.", ahead)
        if ahead != name:
            state[ahead] = state.pop(name)


def _folded(state: Mapping[str, Tensor], eps: float) -> dict[str, Tensor]:
    """Fold each norm into the convolution that bears it; norms on their own become factor and offset."""
    folded = dict(state)
    for mean_name in [name for name in state if name.endswith("norm.running_mean")]:
        prefix = mean_name.removesuffix("running_mean")
        names = [prefix + part for part in ("weight", "bias", "running_mean", "running_var")]
        if any(name not in state for name in names):
            continue  # `_check` will name what is left over
        weight, bias, mean, variance = (folded.pop(name).double() for name in names)
        factor = weight / (variance + eps).sqrt()
        offset = bias - mean * factor
        owner = prefix.removesuffix("norm.")
        if (convolution := owner + "weight") in state:
            folded[convolution] = (state[convolution].double() * factor[:, None, None, None]).float()
            folded[owner + "bias"] = offset.float()
        else:
            folded[prefix + "weight"], folded[prefix + "bias"] = factor.float(), offset.float()
    for name in state:  # convolutions that no norm follows have no bias in pre-activation networks
        if re.search(r"\.(conv\d|shortcut)\.weight$", name):
            folded.setdefault(name.removesuffix("weight") + "bias", torch.zeros(len(state[name])))
    return folded


def _check(state: Mapping[str, Tensor], network: RegionNetwork, spec: RegionSpec, label: str) -> None:
    expected = {name: tuple(array.shape) for name, array in network.state_dict().items()}
    problems = [
        f"{len(names)} {what} ({', '.join(sorted(names)[:_SHOWN])}, ...)"
        for what, names in (("missing", expected.keys() - state.keys()), ("unknown", state.keys() - expected.keys()))
        if names
    ]
    problems += list(_misshapen(state, expected))[:_SHOWN]
    if problems:
        raise SettingsError(f"{label}: not a checkpoint of --detector {spec.name}: {'; '.join(problems)}")


def _misshapen(state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> Iterable[str]:
    for name in sorted(state.keys() & expected.keys()):
        if tuple(state[name].shape) != expected[name]:
            yield f"{name} is {tuple(state[name].shape)}, not {expected[name]}"
