"""The adapter against a stand-in for the small part of detectron2's API that it calls.

The real library is held against its reference outputs in `test_detectron2_golden.py`, where it is installed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vlprep.detect import detectron2_adapter
from vlprep.errors import MissingDependencyError, SettingsError

CONFIG = "COCO-Detection/tiny.yaml"
BOXES = torch.tensor([[8.0, 8.0, 40.0, 40.0], [0.0, 16.0, 64.0, 48.0], [24.0, 0.0, 56.0, 32.0]])


class Boxes:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class Instances:
    def __init__(self, image_size: tuple[int, int], **fields: Any) -> None:
        self.image_size = image_size
        self.__dict__.update(fields)

    def __len__(self) -> int:
        return len(self.proposal_boxes.tensor)


class Predictor(nn.Module):
    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.cls_score = nn.Linear(6, 4)
        self.bbox_pred = nn.Linear(6, 12)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(features), self.bbox_pred(features)

    def predict_probs(self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]) -> list[Tensor]:
        return list(predictions[0].softmax(1).split([len(own) for own in proposals]))

    def predict_boxes(self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]) -> list[Tensor]:
        """Class k's box is the proposal moved by 2k pixels."""
        moved = proposals[0].proposal_boxes.tensor[:, None] + 2 * torch.arange(3)[:, None]
        return [moved.flatten(1)]


class Backbone(nn.Module):
    size_divisibility = 32

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 16, stride=16)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"p4": self.convolution(pixels), "unused": pixels}


class Heads(nn.Module):
    def __init__(self, *, c4: bool) -> None:
        super().__init__()
        self.box_predictor = Predictor()
        if c4:
            self.in_features, self.pooler, self.res5 = ["p4"], self.pool, nn.Identity()
        else:
            self.box_in_features, self.box_pooler = ["p4"], self.pool
            self.box_head = nn.AdaptiveAvgPool2d(1)
            self.box_head.forward = lambda maps: maps.mean(dim=(2, 3))  # type: ignore[method-assign]

    def pool(self, maps: list[Tensor], boxes: list[Boxes]) -> Tensor:
        corners = (boxes[0].tensor / 16).long()
        return torch.stack([maps[0][0, :, y1 : y2 + 1, x1 : x2 + 1].mean((1, 2)) for x1, y1, x2, y2 in corners])[
            :, :, None, None
        ]


class Model(nn.Module):
    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor([100.0, 110.0, 120.0])[:, None, None], persistent=False)
        self.register_buffer("pixel_std", torch.tensor([1.0, 2.0, 4.0])[:, None, None], persistent=False)
        self.backbone = Backbone()
        self.roi_heads = Heads(c4=cfg.c4)
        self.limit = cfg.MODEL.RPN.POST_NMS_TOPK_TEST

    def proposal_generator(self, images: Any, maps: Any, _: None) -> tuple[list[Instances], dict[str, Tensor]]:
        (size,) = images.image_sizes
        boxes = BOXES[: self.limit]
        return [Instances(size, proposal_boxes=Boxes(boxes), objectness_logits=torch.arange(len(boxes), 0, -1.0))], {}


class Node(SimpleNamespace):
    def merge_from_file(self, path: str) -> None:
        self.c4 = "c4" in Path(path).read_text()

    def dump(self) -> str:
        return f"c4: {self.c4}"


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stand-in modules; the returned file is the zoo's only configuration."""
    config = tmp_path / "tiny.yaml"
    config.write_text("fpn")

    def get_cfg() -> Node:
        return Node(
            MODEL=SimpleNamespace(RPN=SimpleNamespace(), WEIGHTS="", DEVICE="cuda"),
            INPUT=SimpleNamespace(MIN_SIZE_TEST=48, MAX_SIZE_TEST=96, FORMAT="BGR"),
            DATASETS=SimpleNamespace(TRAIN=("pets",), TEST=()),
        )

    def get_config_file(name: str) -> str:
        if name != CONFIG:
            raise RuntimeError(f"{name} not available in Model Zoo!")
        return str(config)

    modules = {
        "detectron2": {},
        "detectron2.model_zoo": {
            "get_config_file": get_config_file,
            "get_checkpoint_url": lambda _: "https://zoo.test/COCO-Detection/tiny/1/model_final.pkl",
        },
        "detectron2.config": {"get_cfg": get_cfg},
        "detectron2.modeling": {"build_model": Model},
        "detectron2.structures": {
            "Boxes": Boxes,
            "Instances": Instances,
            "ImageList": lambda tensor, sizes: SimpleNamespace(tensor=tensor, image_sizes=sizes),
        },
        "detectron2.data": {
            "MetadataCatalog": SimpleNamespace(get=lambda _: {"thing_classes": ["cat", "dog", "hen"]}),
        },
    }
    for name, members in modules.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["detectron2"].model_zoo = sys.modules["detectron2.model_zoo"]  # type: ignore[attr-defined]
    return config


def build(config: str = CONFIG, weights: str | None = "random:0", **overrides: Any) -> Any:
    return detectron2_adapter.build(config, weights=weights, device="cpu", precision="fp32", overrides=overrides)


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def test_without_the_library_the_message_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'git\+https://github.com/facebookresearch/detectr"):
        build()


@pytest.mark.parametrize("head", ["fpn", "c4"])
def test_regions(zoo: Path, head: str) -> None:
    zoo.write_text(head)
    detector = build()
    image = detector.prepare(picture())
    assert image.pixels.shape == (3, 64, 96)
    assert image.scale_xy == (72 / 90, 48 / 60)
    assert (image.pixels[:, 48:] == 0).all()
    assert (image.pixels[:, :, 72:] == 0).all()
    (regions,) = detector.detect([image])

    assert detector.class_names == ("cat", "dog", "hen")
    assert (detector.feature_dim, regions.features_RD.shape) == (6, (3, 6))
    torch.testing.assert_close(regions.class_probs_RK.sum(1) + regions.background_R, torch.ones(3))
    torch.testing.assert_close(regions.objectness_R, torch.tensor([3.0, 2.0, 1.0]))
    limits = torch.tensor([90.0, 60.0, 90.0, 60.0])
    torch.testing.assert_close(regions.proposals_R4, (BOXES / 0.8).minimum(limits))
    best = regions.class_probs_RK.argmax(1)
    torch.testing.assert_close(regions.regressed_R4, ((BOXES + 2 * best[:, None]) / 0.8).minimum(limits))


def test_input_is_bgr_mean_subtracted_and_scaled(zoo: Path) -> None:
    red = np.zeros((48, 48, 3), np.uint8) + np.array([200, 30, 10], np.uint8)
    pixels = build().prepare(red).pixels[:, 0, 0]
    torch.testing.assert_close(pixels, torch.tensor([(10 - 100) / 1, (30 - 110) / 2, (200 - 120) / 4]))


def test_given_boxes(zoo: Path) -> None:
    detector = build()
    image = detector.prepare(picture())
    (found,) = detector.detect([image])
    (given,) = detector.detect([image], [(BOXES[1:2] / 0.8).numpy()])
    torch.testing.assert_close(given.features_RD, found.features_RD[1:2])
    torch.testing.assert_close(given.proposals_R4, BOXES[1:2] / 0.8)


def test_fewer_proposals(zoo: Path) -> None:
    detector = build(post_nms=2)
    assert len(detector.detect([detector.prepare(picture())])[0]) == 2
    assert detector.settings()["post_nms"] == 2


def test_weights_are_read_without_detectron2s_loader(zoo: Path, tmp_path: Path) -> None:
    state = Model(
        SimpleNamespace(c4=False, MODEL=SimpleNamespace(RPN=SimpleNamespace(POST_NMS_TOPK_TEST=1)))
    ).state_dict()
    torch.save({"model": state | {"pixel_mean": torch.zeros(3)}}, tmp_path / "model.pth")
    detector = build(weights=str(tmp_path / "model.pth"))
    assert detector.weights.source == str(tmp_path / "model.pth")
    state["roi_heads.mystery"] = torch.zeros(1)
    torch.save({"model": state}, tmp_path / "other.pth")
    with pytest.raises(SettingsError, match=r"other\.pth: not weights of this configuration \(1 names.*mystery"):
        build(weights=str(tmp_path / "other.pth"))


def test_a_file_of_ones_own_and_an_unknown_name(zoo: Path) -> None:
    assert build(str(zoo)).name == f"detectron2:{zoo}"
    with pytest.raises(SettingsError, match="no weights are published"):
        build(str(zoo), weights=None)
    with pytest.raises(SettingsError, match="neither a file nor a name in the model zoo"):
        build("COCO-Detection/unheard_of.yaml")


def test_models_without_one_softmax_head_are_refused(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Predictor, "use_sigmoid_ce", True, raising=False)
    with pytest.raises(SettingsError, match="softmax"):
        build()
