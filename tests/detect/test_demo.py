"""What the shipped `demo` detector says of scenes it has never seen, where the right answer is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from vlprep.detect import demo
from vlprep.detect.base import Regions
from vlprep.errors import SettingsError
from vlprep.media.scenes import CLASS_NAMES, COLOURS, SHAPES, Scene, random_scene, render

SCENES = [random_scene(seed) for seed in range(40_000_000, 40_000_040)]


@pytest.fixture(scope="module")
def detector() -> Any:
    return demo.build(weights=None, device="cpu", precision="fp32", overrides={})


@dataclass(frozen=True)
class Score:
    """Per object drawn: is a region of IoU 0.5 or more there, and what does the one with the best proposal say."""

    found: Tensor
    proposed: Tensor
    right_class: Tensor
    right_probability: Tensor


def look(detector: Any, picture: NDArray[np.uint8]) -> Regions:
    (regions,) = detector.detect([detector.prepare(picture)])
    assert isinstance(regions, Regions)
    return regions


def true_boxes(scene: Scene) -> Tensor:
    return torch.tensor([thing.box for thing in scene.objects], dtype=torch.float32)


def labels(scene: Scene) -> Tensor:
    return torch.tensor([CLASS_NAMES.index(thing.class_name) for thing in scene.objects])


def score(detector: Any, pictures: list[NDArray[np.uint8]], factor: float = 1.0) -> Score:
    rows = []
    for scene, picture in zip(SCENES, pictures, strict=True):
        regions, boxes, wanted = look(detector, picture), true_boxes(scene) * factor, labels(scene)
        confident = regions.class_probs_RK.max(1).values >= 0.5
        found = ((box_iou(boxes, regions.regressed_R4) >= 0.5) & confident).any(1)
        overlap, best = box_iou(boxes, regions.proposals_R4).max(1)
        probs = regions.class_probs_RK[best]
        right = probs[torch.arange(len(wanted)), wanted]
        rows.append((found, overlap >= 0.5, probs.argmax(1) == wanted, right))
    return Score(*(torch.cat(column).float() for column in zip(*rows, strict=True)))


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[np.uint8]]:
    return [render(scene) for scene in SCENES]


@pytest.fixture(scope="module")
def plain(detector: Any, pictures: list[NDArray[np.uint8]]) -> Score:
    return score(detector, pictures)


def test_known_objects_are_found_and_named(plain: Score) -> None:
    assert len(plain.found) > 100
    assert plain.found.mean() >= 0.95
    assert plain.proposed.mean() >= 0.95
    assert plain.right_class.mean() >= 0.95


def test_distributions_are_sharp_on_the_right_class(plain: Score) -> None:
    assert plain.right_probability.mean() >= 0.95
    assert plain.right_probability.quantile(0.05) >= 0.8


def test_empty_places_are_background(detector: Any) -> None:
    background = []
    for scene in SCENES[:8]:
        regions = look(detector, render(scene))
        empty = box_iou(regions.proposals_R4, true_boxes(scene)).max(1).values < 0.1
        background.append(regions.background_R[empty])
        torch.testing.assert_close(regions.class_probs_RK.sum(1) + regions.background_R, torch.ones(len(regions)))
    assert len(torch.cat(background)) > 50
    assert torch.cat(background).mean() > 0.98


def test_a_swapped_colour_order_shows(detector: Any, pictures: list[NDArray[np.uint8]], plain: Score) -> None:
    swapped = score(detector, [picture[:, :, ::-1].copy() for picture in pictures])
    assert swapped.right_class.mean() < 0.5 < plain.right_class.mean()


@pytest.mark.parametrize("factor", [0.75, 2.0, 3.0])
def test_boxes_are_in_pixels_of_the_picture(detector: Any, pictures: list[NDArray[np.uint8]], factor: float) -> None:
    resized = [
        np.asarray(Image.fromarray(picture).resize([round(side * factor) for side in picture.shape[1::-1]]))
        for picture in pictures
    ]
    scored = score(detector, resized, factor)
    assert scored.found.mean() >= 0.95
    assert scored.right_class.mean() >= 0.9
    for picture in resized[:5]:
        regions = look(detector, picture)
        for boxes in (regions.proposals_R4, regions.regressed_R4):
            assert (boxes >= 0).all()
            assert (boxes[:, 2] <= picture.shape[1]).all()
            assert (boxes[:, 3] <= picture.shape[0]).all()


def test_regressed_boxes_are_tight(detector: Any) -> None:
    overlaps = []
    for scene in SCENES:
        regions = look(detector, render(scene))
        overlaps.append(box_iou(true_boxes(scene), regions.regressed_R4).max(1).values)
    assert torch.cat(overlaps).mean() > 0.85


def test_given_boxes(detector: Any) -> None:
    right = []
    for scene in SCENES[:15]:
        image = detector.prepare(render(scene))
        boxes = true_boxes(scene).numpy()
        (given,) = detector.detect([image], [boxes])
        np.testing.assert_array_equal(given.proposals_R4, boxes)
        right.append(given.class_probs_RK.argmax(1) == labels(scene))
    assert torch.cat(right).float().mean() >= 0.95


def test_a_batch_changes_nothing(detector: Any) -> None:
    scene = SCENES[0]
    images = [detector.prepare(picture) for picture in (render(scene), render(scene)[:, ::-1].copy())]
    for alone, together in zip((detector.detect([image])[0] for image in images), detector.detect(images), strict=True):
        torch.testing.assert_close(alone.proposals_R4, together.proposals_R4, atol=1e-3, rtol=0)
        torch.testing.assert_close(alone.features_RD, together.features_RD, atol=1e-3, rtol=1e-3)


def test_features_carry_colour_and_shape_linearly(detector: Any) -> None:
    features, colours, shapes = [], [], []
    for seed in range(41_000_000, 41_000_110):
        scene = random_scene(seed)
        (given,) = detector.detect([detector.prepare(render(scene))], [true_boxes(scene).numpy()])
        features.append(given.features_RD)
        colours += [list(COLOURS).index(thing.colour) for thing in scene.objects]
        shapes += [SHAPES.index(thing.shape) for thing in scene.objects]
    inputs = torch.nn.functional.pad(torch.cat(features).double(), (0, 1), value=1.0)
    train = len(inputs) * 2 // 3
    for wanted in (torch.tensor(colours), torch.tensor(shapes)):
        hot = torch.nn.functional.one_hot(wanted).double()
        ridge = inputs[:train].T @ inputs[:train] + torch.eye(inputs.shape[1]).double()
        weights = torch.linalg.solve(ridge, inputs[:train].T @ hot[:train])
        assert ((inputs[train:] @ weights).argmax(1) == wanted[train:]).float().mean() >= 0.9


def test_the_shipped_weights_are_small_and_recorded(detector: Any) -> None:
    assert demo.SHIPPED_WEIGHTS.stat().st_size <= 3_000_000
    assert detector.weights.source == "vlprep:demo"
    assert detector.class_names == CLASS_NAMES
    assert detector.settings()["post_nms"] == 100


def test_half_precision_says_the_same(detector: Any) -> None:
    half = demo.build(weights=None, device="cpu", precision="bf16", overrides={})
    scene = SCENES[1]
    image, boxes = detector.prepare(render(scene)), [true_boxes(scene).numpy()]
    (full,), (rounded,) = detector.detect([image], boxes), half.detect([image], boxes)
    assert torch.cosine_similarity(full.features_RD, rounded.features_RD).min() > 0.99
    assert rounded.features_RD.dtype == torch.float32


def test_overrides_and_random_weights(caplog: pytest.LogCaptureFixture) -> None:
    few = demo.build(weights="random:3", device="cpu", precision="fp32", overrides={"post_nms": 12})
    assert few.weights.source == "random:3"
    assert "untrained" in caplog.text
    assert len(look(few, render(SCENES[0]))) <= 12
    with pytest.raises(SettingsError, match="fp32, bf16, fp16"):
        demo.build(weights=None, device="cpu", precision="int8", overrides={})
