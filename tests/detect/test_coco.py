from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection import fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2

from vlprep.detect import torchvision_coco
from vlprep.detect.torchvision_coco import CLASS_NAMES
from vlprep.errors import ItemError, SettingsError

SMALL = {"short_side": 64, "long_side": 128, "post_nms": 12}


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """A checkpoint of v1 under the names that the published file has, which are older than torchvision's own today."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    renamed = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        old = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        if "fpn.inner_blocks" in old or "fpn.layer_blocks" in old:
            old = old.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
        renamed[old] = tensor
    assert "backbone.fpn.inner_blocks.0.weight" in renamed
    return renamed


@pytest.fixture(scope="module")
def checkpoint(published: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("coco") / "published.pth"
    torch.save(published, path)
    return path


@pytest.fixture(scope="module")
def detector(checkpoint: Path) -> Any:
    return torchvision_coco.build(weights=str(checkpoint), device="cpu", precision="fp32", overrides=SMALL)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def assert_equal_features(found: Tensor, wanted: Tensor) -> None:
    """Within 1e-4 of the largest value, as golden/detectron2 asks of an FPN network."""
    torch.testing.assert_close(found, wanted, atol=1e-4 * wanted.abs().max().item(), rtol=0)


def test_the_eighty_classes_in_their_columns() -> None:
    assert len(CLASS_NAMES) == 91
    assert sum(name is not None for name in CLASS_NAMES) == 80
    assert {CLASS_NAMES[1], CLASS_NAMES[44], CLASS_NAMES[90]} == {"person", "bottle", "toothbrush"}
    assert CLASS_NAMES[0] is CLASS_NAMES[12] is CLASS_NAMES[83] is None


def test_equals_what_torchvision_computes_on_the_way(
    detector: Any, published: dict[str, Tensor], picture: np.ndarray
) -> None:
    (regions,) = detector.detect([detector.prepare(picture)])

    network = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=64, max_size=128, rpn_post_nms_top_n_test=12
    ).eval()
    network.load_state_dict(published, strict=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 0.0
    seen: dict[str, Any] = {}
    network.rpn.register_forward_hook(lambda _, __, output: seen.update(boxes=output[0][0]))
    network.roi_heads.box_head.register_forward_hook(lambda _, __, output: seen.update(features=output))
    network.roi_heads.box_predictor.register_forward_hook(lambda _, __, output: seen.update(scores=output))
    with torch.inference_mode():
        network([torch.tensor(picture).permute(2, 0, 1) / 255])

    height, width = 64, 85
    scale = torch.tensor([width / 120, height / 90] * 2)
    torch.testing.assert_close(regions.proposals_R4 * scale, seen["boxes"], atol=1e-3, rtol=0)
    assert_equal_features(regions.features_RD, seen["features"])
    probs = seen["scores"][0].softmax(1)
    real = [index for index, name in enumerate(CLASS_NAMES) if name]
    torch.testing.assert_close(regions.class_probs_RK, probs[:, real], atol=1e-5, rtol=0)
    torch.testing.assert_close(regions.background_R, 1 - probs[:, real].sum(1), atol=1e-5, rtol=0)
    assert regions.class_probs_RK.shape == (len(regions), 80)
    assert regions.features_RD.shape == (len(regions), detector.feature_dim) == (len(regions), 1024)
    decoded = network.roi_heads.box_coder.decode(seen["scores"][1], [seen["boxes"]])
    best = torch.tensor(real)[regions.class_probs_RK.argmax(1)]
    unclipped = decoded[torch.arange(len(best)), best] / scale
    limits = torch.tensor([120.0, 90.0, 120.0, 90.0])
    torch.testing.assert_close(regions.regressed_R4, unclipped.clamp(min=0).minimum(limits), atol=1e-2, rtol=0)


def test_given_boxes_take_the_proposals_place(detector: Any, picture: np.ndarray) -> None:
    image = detector.prepare(picture)
    (found,) = detector.detect([image])
    (same,) = detector.detect([image], [found.proposals_R4[:5].numpy()])
    assert_equal_features(same.features_RD, found.features_RD[:5])
    torch.testing.assert_close(same.proposals_R4, found.proposals_R4[:5])
    (none,) = detector.detect([image], [np.empty((0, 4), np.float32)])
    assert len(none) == 0
    assert none.regressed_R4.shape == (0, 4)


def test_a_batch_changes_nothing(detector: Any, picture: np.ndarray) -> None:
    first, second = detector.prepare(picture), detector.prepare(picture[:, ::-1].copy())
    alone = [detector.detect([first])[0], detector.detect([second])[0]]
    boxes = np.array([[10, 10, 60, 60]], np.float32)
    together = detector.detect([first, second], [None, boxes])
    assert_equal_features(together[0].features_RD, alone[0].features_RD)
    assert len(together[1]) == 1
    assert_equal_features(detector.detect([first, second])[1].features_RD, alone[1].features_RD)


def test_v2_loads_under_its_names(tmp_path: Path, picture: np.ndarray) -> None:
    torch.manual_seed(0)
    state = fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None).state_dict()
    torch.save(state, tmp_path / "v2.pth")
    settings = SMALL | {"version": "v2"}
    detector = torchvision_coco.build(
        weights=str(tmp_path / "v2.pth"), device="cpu", precision="bf16", overrides=settings
    )
    (regions,) = detector.detect([detector.prepare(picture)])
    assert regions.features_RD.dtype == torch.float32
    assert regions.features_RD.shape[1] == detector.feature_dim == 1024
    assert detector.settings()["version"] == "v2"


def test_offline_and_not_cached_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("VLPREP_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    with pytest.raises(SettingsError) as caught:
        torchvision_coco.build(weights=None, device="cpu", precision="fp32", overrides={})
    file = "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"
    assert f"https://download.pytorch.org/models/{file}" in str(caught.value)
    assert str(tmp_path / "weights" / file) in str(caught.value)


def test_what_torchvision_has_downloaded_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: dict[str, Tensor]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    torch.save(published, folder / "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth")
    detector = torchvision_coco.build(weights=None, device="cpu", precision="fp32", overrides=SMALL)
    assert detector.weights.source.endswith("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [({"version": "v3"}, "v1, v2"), ({"depth": 50}, "version, post_nms"), ({"post_nms": "many"}, "300")],
)
def test_wrong_overrides(overrides: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        torchvision_coco.build(weights="random:0", device="cpu", precision="fp32", overrides=overrides)


def test_another_networks_checkpoint(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(SettingsError, match=r"other\.pth: a checkpoint of another network"):
        torchvision_coco.build(weights=str(tmp_path / "other.pth"), device="cpu", precision="fp32", overrides={})


def test_random_weights_are_what_they_say(picture: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    first, second = (
        torchvision_coco.build(weights=f"random:{seed}", device="cpu", precision="fp32", overrides=SMALL)
        for seed in (0, 1)
    )
    assert first.weights.source == "random:0"
    assert first.weights.sha256 != second.weights.sha256
    assert "untrained" in caplog.text


def test_a_picture_too_narrow_for_the_network(detector: Any) -> None:
    with pytest.raises(ItemError, match="too narrow"):
        detector.prepare(np.zeros((2, 3000, 3), np.uint8))
