"""A test of the tests: each confusion of conventions that is easily made fails the comparison with the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from detect.networks import GoldenCase, detector_of
from detect.test_golden import parity

from vlprep.detect.checkpoints import load_checkpoint
from vlprep.detect.network import RegionNetwork

Case = tuple[GoldenCase, RegionNetwork]


@pytest.fixture(scope="module")
def case(golden_case: Callable[[str, str], GoldenCase]) -> Case:
    case = golden_case("butd-caffe", "quick_000000132417.npz")
    network = RegionNetwork(case.spec)
    load_checkpoint(network, case.weights, case.spec, "golden")
    return case, network


def test_colour_order(case: Case) -> None:
    golden, network = case
    with pytest.raises(AssertionError):
        parity(detector_of(golden.spec, network), golden, image=golden.image[:, :, ::-1].copy())


@pytest.mark.parametrize("mutation", [{"resizer": "pb_pil"}, {"resizer": "hf_float"}, {"plus_one": False}], ids=str)
def test_resizer_and_box_convention(case: Case, mutation: dict[str, object]) -> None:
    golden, network = case
    with pytest.raises(AssertionError):
        parity(detector_of(replace(golden.spec, **mutation), network), golden)


def test_anchor_order(case: Case) -> None:
    """Size-major for ratio-major: the boxes are all there, but each channel gets another's."""
    golden, network = case
    right = network.rpn.anchors_A4
    network.rpn.anchors_A4 = right.view(3, 4, 4).transpose(0, 1).reshape(12, 4)
    with pytest.raises(AssertionError):
        parity(detector_of(golden.spec, network), golden)
    network.rpn.anchors_A4 = right


def test_background_index(case: Case) -> None:
    golden, network = case
    right = network.predictor
    swapped = RegionNetwork(golden.spec)
    weights = dict(golden.weights)
    bbox = "roi_heads.box_predictor.bbox_pred."
    weights[bbox + "weight"], weights[bbox + "bias"] = weights[bbox + "weight"][:-4], weights[bbox + "bias"][:-4]
    load_checkpoint(swapped, weights, replace(golden.spec, background_first=False), "golden")
    network.predictor = swapped.predictor
    with pytest.raises(AssertionError):
        parity(detector_of(golden.spec, network), golden)
    network.predictor = right
