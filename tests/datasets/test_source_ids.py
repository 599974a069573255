"""Ids from the dataset's own lists, where file names do not show them."""

from __future__ import annotations

import json
from pathlib import Path

from vlprep.datasets import open_dataset
from vlprep.datasets.source_ids import read_video_list


def write_coco(root: Path, name: str, **images: int) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    listed = [{"id": number, "file_name": f"{stem}.jpg"} for stem, number in images.items()]
    (root / "annotations" / name).write_text(json.dumps({"images": listed, "annotations": []}))


def source_ids(root: Path) -> dict[str, str | None]:
    return {item.id: item.source_id for item in open_dataset(root).items}


def test_coco_ids_by_annotations(tmp_path: Path) -> None:
    for name in ("cat.jpg", "dog.jpg", "000000000012.jpg"):
        (tmp_path / name).touch()
    write_coco(tmp_path, "captions_val.json", cat=501, bird=502)
    write_coco(tmp_path, "instances_val.json", dog=7)
    assert source_ids(tmp_path) == {"cat.jpg": "501", "dog.jpg": None, "000000000012.jpg": "12"}


def test_coco_ids_by_instances_where_there_are_no_captions(tmp_path: Path) -> None:
    (tmp_path / "dog.jpg").touch()
    write_coco(tmp_path, "instances_val.json", dog=7)
    assert source_ids(tmp_path) == {"dog.jpg": "7"}


def test_lists_that_disagree_give_no_id(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").touch()
    write_coco(tmp_path, "captions_train.json", cat=1)
    write_coco(tmp_path, "captions_val.json", cat=2)
    assert source_ids(tmp_path) == {"cat.jpg": None}


def test_damaged_list_does_not_stop_the_listing(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").touch()
    write_coco(tmp_path, "captions_a.json", cat=1)
    (tmp_path / "annotations/captions_b.json").write_text('{"images": [{"id": 5}]}')
    (tmp_path / "annotations/captions_c.json").write_text("{")
    assert source_ids(tmp_path) == {"cat.jpg": "1"}


def test_video_lists(tmp_path: Path) -> None:
    """HowTo100M's own, with a task column as its code spells it, and MIL-NCE's with paths alone."""
    own, paths = tmp_path / "own.csv", tmp_path / "paths.csv"
    own.write_text('video_id,category_1,rank,task\nnVbIUDjzWY4,"Cars & Other, Vehicles",27,52907\n')
    paths.write_text("video_path\nfood/nVbIUDjzWY4.mp4.webm\n")
    assert read_video_list(own) == {"nVbIUDjzWY4": None}
    assert read_video_list(paths) == {"nVbIUDjzWY4": "food/nVbIUDjzWY4.mp4.webm"}
