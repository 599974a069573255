"""golden/detectron2: what detectron2 computed from the same weights, met by our own networks without detectron2.

Where detectron2 is installed, the adapter to it is held against the same numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vlprep.detect import d2_stock, detectron2_adapter

FEATURES = {"r50_c4": 1e-5, "r50_fpn": 1e-4}
"""Of the largest value; the other tolerances are in the tests. From `tolerances.json`."""
SIZES = {"short_side": 240, "long_side": 400, "post_nms": 64}
CONFIGS = {
    "r50_c4": "COCO-Detection/faster_rcnn_R_50_C4_3x.yaml",
    "r50_fpn": "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml",
}


@pytest.fixture(scope="module", params=["r50_c4", "r50_fpn"])
def model(request: pytest.FixtureRequest, golden: Path) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def wanted(model: str, golden: Path) -> Any:
    with np.load(golden / "detectron2" / f"{model}_000000207647.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def image(samples: Path) -> NDArray[np.uint8]:
    (path,) = samples.rglob("COCO_train2014_000000207647.jpg")
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture(scope="module")
def checkpoint(model: str, golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import golden_weights

    arrays = golden_weights.load(golden / "detectron2", model)
    path = tmp_path_factory.mktemp("d2") / f"{model}.pth"
    torch.save({"model": {name: torch.from_numpy(array) for name, array in arrays.items()}}, path)
    return path


@pytest.fixture(scope="module", params=["own", "detectron2"])
def detector(request: pytest.FixtureRequest, model: str, checkpoint: Path) -> Any:
    if request.param == "own":
        return d2_stock.build(weights=str(checkpoint), device="cpu", precision="fp32", overrides=SIZES)
    zoo = pytest.importorskip("detectron2.model_zoo")
    config = checkpoint.with_suffix(".yaml")
    base = zoo.get_config_file(CONFIGS[model])
    config.write_text(f"_BASE_: {base}\nINPUT: {{MIN_SIZE_TEST: 240, MAX_SIZE_TEST: 400}}\n")
    return detectron2_adapter.build(
        str(config), weights=str(checkpoint), device="cpu", precision="fp32", overrides={"post_nms": 64}
    )


@pytest.fixture(scope="module")
def found(detector: Any, image: NDArray[np.uint8]) -> Any:
    (regions,) = detector.detect([detector.prepare(image)])
    return regions


def close(found: Tensor | NDArray[Any], wanted: NDArray[Any], *, over_max: float = 0.0, absolute: float = 0.0) -> None:
    limit = max(absolute, over_max * float(np.abs(wanted).max()))
    np.testing.assert_allclose(np.asarray(found), wanted, atol=limit, rtol=0)


def test_input(detector: Any, image: NDArray[np.uint8], wanted: Any) -> None:
    pixels = detector.prepare(image).pixels
    assert pixels.shape[1:] == tuple(wanted["padded_hw"])
    close(pixels.mean(dim=(1, 2)), wanted["input_mean"], absolute=2e-3)
    y, x = wanted["input_crop_yx"]
    close(pixels[:, y : y + 16, x : x + 16], wanted["input_crop"], absolute=2e-3)


def test_proposals(detector: Any, image: NDArray[np.uint8], found: Any, wanted: Any) -> None:
    scale = np.array(detector.prepare(image).scale_xy * 2, np.float32)
    close(found.proposals_R4 * scale, wanted["proposals"], absolute=0.01)
    if detector.name == "d2":
        close(found.objectness_R, 1 / (1 + np.exp(-wanted["objectness"])), absolute=2e-5)
    else:
        close(found.objectness_R, wanted["objectness"], over_max=2e-5)


def test_features_and_distributions(found: Any, wanted: Any, model: str) -> None:
    close(found.features_RD, wanted["proposal_features"], over_max=FEATURES[model])
    close(found.class_probs_RK, wanted["cls_prob"][:, :80], absolute=2e-4)
    close(found.background_R, wanted["cls_prob"][:, 80], absolute=2e-4)


def test_regressed_boxes(found: Any, wanted: Any) -> None:
    best = found.class_probs_RK.argmax(1).numpy()
    rows = [row for row, kept in enumerate(wanted["kept"]) if best[kept] == wanted["classes"][row]]
    assert len(rows) >= 10
    close(found.regressed_R4[wanted["kept"][rows]], wanted["boxes"][rows], absolute=0.02)
    close(found.class_probs_RK.max(1).values[wanted["kept"][rows]], wanted["scores"][rows], absolute=2e-4)


def test_given_boxes(detector: Any, image: NDArray[np.uint8], wanted: Any, model: str) -> None:
    prepared = detector.prepare(image)
    (given,) = detector.detect([prepared], [wanted["given_boxes"]])
    close(given.features_RD, wanted["given_features"], over_max=FEATURES[model])
    np.testing.assert_array_equal(given.proposals_R4, wanted["given_boxes"])


def test_features_of_final_boxes(detector: Any, image: NDArray[np.uint8], wanted: Any, model: str) -> None:
    (given,) = detector.detect([detector.prepare(image)], [wanted["boxes"]])
    close(given.features_RD, wanted["box_features"], over_max=FEATURES[model] * 3)


def test_architecture_is_read_off_the_file(detector: Any, model: str) -> None:
    if detector.name == "d2":
        assert detector.settings()["architecture"] == {"r50_c4": "c4-r50", "r50_fpn": "fpn-r50"}[model]
    assert detector.feature_dim == {"r50_c4": 2048, "r50_fpn": 1024}[model]
    assert (detector.class_names[0], detector.class_names[79]) == ("person", "toothbrush")
