"""Held against the reference outputs of the public implementations, tolerances as in their `tolerances.json`.

`parity` is also what `test_mutations.py` expects to fail when something is swapped.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from detect.networks import GoldenCase, loaded
from numpy.typing import ArrayLike
from torch import Tensor

from vlprep.detect.base import Regions
from vlprep.detect.detector import RegionDetector
from vlprep.detect.selection import CaffeRule, SelectionRule, rule_named, select

Cases = Callable[[str, str], GoldenCase]


def close(found: ArrayLike, expected: ArrayLike, *, over_max: float | None = None, absolute: float = 0.0) -> None:
    expected = np.asarray(expected, dtype=np.float64)
    limit = absolute if over_max is None else over_max * np.abs(expected).max()
    assert np.asarray(found).shape == expected.shape
    np.testing.assert_array_less(np.abs(np.asarray(found, dtype=np.float64) - expected), limit)


def columns(probs: np.ndarray, case: GoldenCase) -> np.ndarray:
    """To background last."""
    return np.roll(probs, -1, axis=1) if case.spec.background_first else probs


def parity(detector: RegionDetector, case: GoldenCase, image: np.ndarray | None = None) -> None:
    """Everything that the reference tells about one image."""
    expected = case.arrays
    prepared = detector.prepare(case.image if image is None else image)
    given = detector.detect([prepared], [expected["given_boxes"]])[0]
    close(prepared.pixels[:, -4:, -4:], expected["input_corner"], absolute=2e-3)
    close(given.features_RD, expected["given_features"], over_max=1e-5)
    close(_all_classes(given), columns(expected["given_cls_prob"], case), absolute=1e-4)
    close(given.attribute_probs_RA, columns(expected["given_attr_prob"], case)[:, :-1], absolute=1e-4)

    found = detector.detect([prepared])[0]
    factors = np.asarray(prepared.scale_xy * 2)
    close(found.proposals_R4.numpy() * factors, expected["proposals"], absolute=0.01)
    if case.spec.rpn_logits == 2:
        close(found.objectness_R.sigmoid(), expected["objectness"], absolute=1e-5)
        close(found.regressed_R4, expected["reg_boxes"], absolute=0.01)
    else:
        close(found.objectness_R, expected["objectness"], over_max=2e-5)
        close(found.regressed_R4.numpy() * factors, expected["reg_boxes"], absolute=0.01)
    half = expected["features"].dtype == np.float16 or expected["features"].shape[0] > 100
    close(found.features_RD, expected["features"], over_max=1e-3 if half else 1e-5)
    close(_all_classes(found), columns(expected["cls_prob"], case), absolute=1e-4)
    close(found.attribute_probs_RA, columns(expected["attr_prob"], case)[:, :-1], absolute=1e-4)
    selections(found, case)


def _all_classes(regions: Regions) -> Tensor:
    return torch.cat((regions.class_probs_RK, regions.background_R[:, None]), dim=1)


def selections(found: Regions, case: GoldenCase) -> None:
    """Every published selection of the file: rows, order, boxes, labels."""
    expected = case.arrays
    rules: dict[str, SelectionRule] = {
        f"caffe_{areas}_{label}_{least}_{most}_keep": CaffeRule(
            min_boxes=least, max_boxes=most, threshold=float(threshold), plus_one=areas == "plus1"
        )
        for areas in ("plus1", "plus0")
        for label, threshold in zip(("t02", "tmid"), expected["caffe_thresholds"], strict=True)
        for least, most in ((10, 100), (36, 36))
    }
    rules["hf36_keep"] = rule_named("max-class", 36, 36)
    rules["hf10_100_keep"] = rule_named("max-class", 10, 100)
    checked = 0
    for name, rule in rules.items():
        if name in expected:
            selection = select(found, rule)
            np.testing.assert_array_equal(selection.keep_k, expected[name], err_msg=name)
            if isinstance(rule, CaffeRule):
                areas = "caffe_plus1_max_conf" if rule.plus_one else "caffe_plus0_max_conf"
                close(selection.max_conf_k, expected[areas][expected[name]], absolute=1e-4)
            else:
                stem = name.removesuffix("keep")
                close(selection.boxes_k4, expected[stem + "boxes"], absolute=0.01)
                close(selection.max_conf_k, expected[stem + "scores"], absolute=1e-4)
                labels(found.rows(selection.keep_k), expected[stem + "classes"], expected[stem + "attrs"])
            checked += 1
    assert checked >= 4
    kept = found.rows(torch.from_numpy(expected["caffe_plus1_tmid_36_36_keep"]).long())
    stem = "caffe_plus1_tmid_36_36_"
    labels(kept, expected[stem + "objects"], expected[stem + "attrs"])
    close(kept.class_probs_RK.amax(dim=1), expected[stem + "objects_conf"], absolute=1e-4)


def labels(kept: Regions, classes: np.ndarray, attributes: np.ndarray) -> None:
    assert kept.attribute_probs_RA is not None
    np.testing.assert_array_equal(kept.class_probs_RK.argmax(dim=1), classes)
    np.testing.assert_array_equal(kept.attribute_probs_RA.argmax(dim=1), attributes)


@pytest.mark.parametrize("family", ["butd", "butd-caffe"])
def test_quick_reference(golden_case: Cases, family: str) -> None:
    case = golden_case(family, "quick_000000132417.npz")
    detector = loaded(case.spec, case.weights)
    parity(detector, case)
    if family == "butd-caffe":
        boxes_only_mode(detector, case)


def boxes_only_mode(detector: RegionDetector, case: GoldenCase) -> None:
    """MILVLG's: the Caffe rule on regressed boxes."""
    found = detector.detect([detector.prepare(case.image)])[0]
    moved = Regions(
        proposals_R4=found.regressed_R4,
        objectness_R=found.objectness_R,
        features_RD=found.features_RD,
        class_probs_RK=found.class_probs_RK,
        background_R=found.background_R,
        regressed_R4=found.regressed_R4,
    )
    selection = select(moved, CaffeRule(min_boxes=100, max_boxes=100))
    np.testing.assert_array_equal(selection.keep_k, case.arrays["bbox_mode_keep"])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["butd", "butd-caffe"])
def test_second_quick_reference(golden_case: Cases, family: str) -> None:
    case = golden_case(family, "quick_000000207647.npz")
    parity(loaded(case.spec, case.weights), case)


@pytest.mark.slow
def test_full_reference(golden_case: Cases) -> None:
    """600 by 1000, 300 proposals. None of them changed places in the reference's own runs, nor here."""
    case = golden_case("butd", "full_000000132417.npz")
    parity(loaded(case.spec, case.weights), case)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_keeps_the_features(golden_case: Cases, precision: str) -> None:
    case = golden_case("butd", "full_000000132417.npz")
    detector = loaded(case.spec, case.weights, precision=precision)
    given = detector.detect([detector.prepare(case.image)], [case.arrays["given_boxes"]])[0]
    expected = torch.from_numpy(case.arrays["given_features"])
    assert torch.nn.functional.cosine_similarity(given.features_RD, expected).min() > 0.999
