"""Boxes from a file: three forms, one meaning, and errors that name the line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vlprep.datasets.boxes import boxes_by_item, load_boxes
from vlprep.datasets.items import Item, image_source_id
from vlprep.errors import SettingsError

COCO = {
    "images": [{"id": 42, "file_name": "COCO_val2014_000000000042.jpg"}, {"id": 7, "file_name": "seven.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 42, "bbox": [1.5, 2, 10, 20.25], "category_id": 3, "iscrowd": 0},
        {"id": 2, "image_id": 42, "bbox": [0, 0, 5, 5], "iscrowd": 1},
        {"id": 3, "image_id": 7, "bbox": [3, 4, 0, 1]},
        {"id": 4, "image_id": 42, "bbox": [0, 0, 1, 1]},
    ],
    "categories": [],
}
FIRST = [[1.5, 2, 11.5, 22.25], [0, 0, 1, 1]]
FORMS = {
    "boxes.jsonl": json.dumps({"image": "a/x.jpg", "boxes": FIRST}) + '\n{"id": "7", "boxes": []}\n',
    "corners.csv": "image,x1,y1,x2,y2\na/x.jpg,1.5,2,11.5,22.25\na/x.jpg,0,0,1,1\n",
    "sizes.tsv": "x\ty\twidth\theight\tfile_name\n1.5\t2\t10\t20.25\ta/x.jpg\n0\t0\t1\t1\ta/x.jpg\n",
}


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize("name", FORMS)
def test_forms(tmp_path: Path, name: str) -> None:
    boxes = load_boxes(written(tmp_path, name, FORMS[name]))
    assert boxes["a/x.jpg",].dtype == np.float32
    assert boxes["a/x.jpg",].tolist() == FIRST
    assert all(array.shape[1:] == (4,) for array in boxes.values())


def test_coco_instances_by_name_and_by_id(tmp_path: Path) -> None:
    boxes = load_boxes(written(tmp_path, "instances_val2014.json", json.dumps(COCO)))
    assert {names: array.tolist() for names, array in boxes.items()} == {
        ("COCO_val2014_000000000042.jpg", "42"): FIRST,
        ("seven.jpg", "7"): [[3, 4, 3, 5]],
    }


def items(*ids: str) -> list[Item]:
    return [Item(name, Path(name), image_source_id(name)) for name in ids]


def test_boxes_find_their_items(tmp_path: Path) -> None:
    boxes = load_boxes(written(tmp_path, "instances.json", json.dumps(COCO)))
    joined = boxes_by_item(boxes, items("val2014/COCO_val2014_000000000042.jpg", "other/seven.jpg", "eight.jpg"))
    assert {name: len(array) for name, array in joined.items()} == {
        "val2014/COCO_val2014_000000000042.jpg": 2,
        "other/seven.jpg": 1,
    }


def test_names_without_an_image_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    boxes = load_boxes(written(tmp_path, "instances.json", json.dumps(COCO)))
    boxes_by_item(boxes, items("COCO_val2014_000000000042.jpg", "seven.jpg"))  # the ids 42 and 7 are names, too
    assert not caplog.messages
    boxes_by_item(boxes, items("COCO_val2014_000000000042.jpg"))
    assert caplog.messages == ["the given boxes have 1 names that no image has, or several have: seven.jpg"]


def test_boxes_of_other_images_are_refused(tmp_path: Path) -> None:
    boxes = load_boxes(written(tmp_path, "boxes.jsonl", FORMS["boxes.jsonl"]))
    with pytest.raises(SettingsError, match=r"for other images, such as a/x\.jpg"):
        boxes_by_item(boxes, items("y.jpg"))


def test_two_names_with_different_boxes_are_refused(tmp_path: Path) -> None:
    text = '{"image": "a/x.jpg", "boxes": [[0, 0, 1, 1]]}\n{"image": "b/x.jpg", "boxes": [[0, 0, 2, 2]]}\n'
    boxes = load_boxes(written(tmp_path, "boxes.jsonl", text))
    with pytest.raises(SettingsError, match="in two ways"):
        boxes_by_item(boxes, items("c/x.jpg"))


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        (
            "b.jsonl",
            '{"image": "x", "boxes": [[0, 0, 1, 1]]}\n{"image": "x", "boxes": [[0, 0, 1]]}',
            "line 2: .*four num",
        ),
        ("b.jsonl", '{"image": "x", "boxes": [[0, 0, 1, "wide"]]}', "line 1: .*four numbers"),
        ("b.jsonl", '{"image": "x", "boxes": [5]}', "line 1: .*four numbers"),
        ("b.jsonl", '{"image": "x", "boxes": [[0, 0, 1, NaN]]}', "line 1: .*x1 <= x2"),
        ("b.jsonl", '{"image": "x", "boxes": [[5, 0, 4, 1]]}', "line 1: .*x1 <= x2"),
        ("b.jsonl", '{"image": "x", "boxes": [[0, 5, 1, 4]]}', "line 1: .*y1 <= y2"),
        ("b.jsonl", '{"boxes": [[0, 0, 1, 1]]}', "line 1: nothing names the image"),
        ("b.jsonl", '{"image": "x", "box": [0, 0, 1, 1]}', "line 1: no list `boxes`"),
        ("b.csv", "image,x1,y1,x2,y2\nx,0,0,1,1\nx,0,0,1,\n", "line 3: .*four numbers"),
        ("b.csv", "image,x,y,width,height\nx,0,0,-1,1\n", "line 2: .*x1 <= x2"),
        ("b.csv", "image,left,top\nx,0,0\n", "line 2: no columns x1,y1,x2,y2"),
        ("b.json", '{"images": [], "annotations": [{"image_id": 1, "caption": "c"}]}', "annotation 0: not an instance"),
        ("b.json", "[]", "not as COCO writes them"),
        ("b.txt", "", "boxes come as JSON lines"),
        ("missing/b.csv", "", "no such file"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path: Path, name: str, text: str, reason: str) -> None:
    path = tmp_path / name
    if path.parent == tmp_path:
        path.write_text(text)
    with pytest.raises(SettingsError, match=reason) as caught:
        load_boxes(path)
    assert str(path) in str(caught.value)
