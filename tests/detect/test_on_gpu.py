"""On a pretended GPU every detector gives the CPU's numbers: nothing is left behind on the wrong device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from detect.networks import FAMILIES, loaded, picture, published_weights, tiny
from pretend_gpu import PretendGpu

from vlprep.detect.base import Detector
from vlprep.detect.families import build_detector


@pytest.mark.parametrize("family", FAMILIES)
def test_detectors(family: str) -> None:
    spec = tiny(FAMILIES[family])
    arrays = published_weights(spec)
    equal_regions(lambda device: loaded(spec, arrays, device=device))


@pytest.mark.parametrize("name", ["demo", "coco", "d2"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_detectors_in_half_precision(name: str, precision: str) -> None:
    options = {} if name == "demo" else {"weights": "random:0", "overrides": {"post_nms": 5, "short_side": 64}}
    boxes = np.float32([[3, 4, 60, 70], [10, 10, 90, 80]])
    with PretendGpu():
        full, half = (build_detector(name, device="cuda:0", precision=kind, **options) for kind in ("fp32", precision))
        features = [
            detector.detect([detector.prepare(picture())], [boxes])[0].features_RD.cpu() for detector in (full, half)
        ]
    assert 0 < (features[0] - features[1]).norm() < 0.05 * features[0].norm()


@pytest.mark.parametrize("name", ["demo", "coco", "d2"])
def test_detectors_built_by_name(name: str) -> None:
    options = {} if name == "demo" else {"weights": "random:0", "overrides": {"post_nms": 5, "short_side": 64}}
    equal_regions(lambda device: build_detector(name, device=device, **options))


def equal_regions(build: Callable[[str], Detector]) -> None:
    images = [picture(), picture(seed=1)]
    given = [None, np.float32([[3, 4, 60, 70], [10, 10, 90, 80]])]

    def found(device: str) -> list[list[Any]]:
        detector = build(device)
        regions = detector.detect([detector.prepare(image) for image in images], given)
        return [[getattr(one, name) for name in one.__dataclass_fields__] for one in regions]

    expected = found("cpu")
    with PretendGpu():
        for here, there in zip(expected, found("cuda:0"), strict=True):
            for one, other in zip(here, there, strict=True):
                assert (one is None) == (other is None)
                if one is not None:  # a GPU's batches are larger, which shows in the last bits
                    torch.testing.assert_close(other.cpu(), one, atol=1e-5, rtol=1e-4)
