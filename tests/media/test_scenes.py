from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlprep.errors import SettingsError
from vlprep.media.scenes import (
    CLASS_NAMES,
    COLOURS,
    SHAPES,
    Scene,
    SceneObject,
    captions,
    random_scene,
    render,
    write_coco_folder,
)


def test_a_seed_says_it_all() -> None:
    assert random_scene(7) == random_scene(7)
    np.testing.assert_array_equal(render(random_scene(7)), render(random_scene(7)))
    assert random_scene(7) != random_scene(8)
    assert captions(random_scene(7), 5) == captions(random_scene(7), 5)


def test_scenes_are_varied_and_well_formed() -> None:
    scenes = [random_scene(seed) for seed in range(300)]
    assert {thing.class_name for scene in scenes for thing in scene.objects} == set(CLASS_NAMES)
    assert {len(scene.objects) for scene in scenes} >= {1, 2, 3, 4, 5}
    for scene in scenes:
        picture = render(scene) if scene.seed < 20 else None
        assert picture is None or (picture.shape == (scene.height, scene.width, 3) and picture.dtype == np.uint8)
        for thing in scene.objects:
            x1, y1, x2, y2 = thing.box
            assert 0 <= x1 < x2 <= scene.width
            assert 0 <= y1 < y2 <= scene.height


def test_kinds_of_a_scene_share_neither_shape_nor_colour() -> None:
    for seed in range(200):
        kinds = {(thing.shape, thing.colour) for thing in random_scene(seed).objects}
        assert len({shape for shape, _ in kinds}) == len({colour for _, colour in kinds}) == len(kinds)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", ["red", "yellow", "blue"])
def test_boxes_are_tight(shape: str, colour: str) -> None:
    box = (30, 20, 91, 81)
    scene = Scene(width=160, height=120, objects=(SceneObject(shape=shape, colour=colour, box=box),), seed=3)
    bare = Scene(width=160, height=120, objects=(), seed=3)
    changed = np.abs(render(scene).astype(int) - render(bare).astype(int)).max(axis=2) > 60
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    assert np.abs(found - np.array(box)).max() <= 2
    assert np.median(render(scene)[changed], axis=0) == pytest.approx(COLOURS[colour], abs=30)


def test_later_objects_lie_over_earlier_ones() -> None:
    red = SceneObject(shape="square", colour="red", box=(20, 20, 80, 80))
    blue = SceneObject(shape="square", colour="blue", box=(40, 20, 100, 80))
    middle = render(Scene(width=160, height=120, objects=(red, blue), seed=0))[30:70, 50:70].mean(axis=(0, 1))
    assert middle[2] > middle[0]


def singular(noun: str) -> str:
    return noun.removesuffix("es") if noun.endswith("crosses") else noun.removesuffix("s")


def test_captions_say_only_what_is_there() -> None:
    numbers = {"a": 1, "an": 1, "two": 2, "three": 3}
    kind = re.compile(rf"\b(an?|two|three) ((?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})(?:e?s)?)\b")
    relations = Counter[str]()
    for seed in range(150):
        scene = random_scene(seed)
        there = Counter(thing.class_name for thing in scene.objects)
        place = {thing.class_name: thing for thing in scene.objects}
        for text in captions(scene, 8):
            named = [(numbers[n], singular(noun) if numbers[n] > 1 else noun) for n, noun in kind.findall(text)]
            assert named
            assert all(there[name] == number for number, name in named), text
            if text.startswith(("a picture of", "one shape", "two shapes")):
                assert sum(number for number, _ in named) == len(scene.objects)
            boxes = [place[name] for _, name in named]
            for words, true in {
                "left of": lambda a, b: a.centre[0] < b.centre[0],
                "right of": lambda a, b: a.centre[0] > b.centre[0],
                "above": lambda a, b: a.centre[1] < b.centre[1],
                "below": lambda a, b: a.centre[1] > b.centre[1],
                "bigger than": lambda a, b: a.area > b.area,
                "smaller than": lambda a, b: a.area < b.area,
            }.items():
                if words in text:
                    relations[words] += 1
                    assert true(*boxes), text
            if " at the " in text:
                (thing,) = boxes
                assert ("left" in text) == (thing.centre[0] < scene.width / 3)
                assert ("bottom" in text) == (thing.centre[1] >= 2 * scene.height / 3)
    assert len(relations) == 6


def test_five_captions_are_five_sentences() -> None:
    assert all(len(set(captions(random_scene(seed), 5))) == 5 for seed in range(100))


def test_a_coco_folder(tmp_path: Path) -> None:
    scenes = write_coco_folder(tmp_path / "a", images=4, seed=1)
    write_coco_folder(tmp_path / "b", images=4, seed=1)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 6
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)

    instances = json.loads((tmp_path / "a/annotations/instances_demo.json").read_text())
    names = {category["id"]: category["name"] for category in instances["categories"]}
    for picture, scene in zip(instances["images"], scenes, strict=True):
        opened = Image.open(tmp_path / "a/images" / picture["file_name"])
        assert opened.size == (picture["width"], picture["height"]) == (scene.width, scene.height)
        told = [
            (names[entry["category_id"]], tuple(entry["bbox"]))
            for entry in instances["annotations"]
            if entry["image_id"] == picture["id"]
        ]
        drawn = [(o.class_name, (*o.box[:2], o.box[2] - o.box[0], o.box[3] - o.box[1])) for o in scene.objects]
        assert told == drawn
    sentences = json.loads((tmp_path / "a/annotations/captions_demo.json").read_text())["annotations"]
    assert Counter(entry["image_id"] for entry in sentences) == {1: 5, 2: 5, 3: 5, 4: 5}


def test_a_folder_is_written_again_only_by_the_same_call(tmp_path: Path) -> None:
    write_coco_folder(tmp_path, images=3)
    before = files_of(tmp_path)
    (tmp_path / "images/000000000002.jpg").unlink()  # as when the first call was stopped
    (tmp_path / "vlprep/regions").mkdir(parents=True)
    (tmp_path / "vlprep/regions/part-00000.arrow").write_bytes(b"")
    (tmp_path / ".DS_Store").write_bytes(b"")
    write_coco_folder(tmp_path, images=3)
    assert {name: data for name, data in files_of(tmp_path).items() if name in before} == before
    for images in (2, 4):
        with pytest.raises(SettingsError, match="another folder"):
            write_coco_folder(tmp_path, images=images)
    assert {name: data for name, data in files_of(tmp_path).items() if name in before} == before


@pytest.mark.parametrize("name", ["images/000000000001.jpg", "images/holiday.jpg", "annotations/captions_demo.json"])
def test_a_users_own_files_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("mine")
    with pytest.raises(SettingsError, match=name):
        write_coco_folder(tmp_path, images=2)
    assert files_of(tmp_path) == {name: b"mine"}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
