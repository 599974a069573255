"""The walk over a folder: every item once, under a name that no later file changes."""

from __future__ import annotations

import os
import time
import unicodedata
from pathlib import Path

import pytest

from vlprep.datasets import open_dataset
from vlprep.datasets.folder import list_folder
from vlprep.errors import SettingsError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_ids_are_paths_below_the_folder(tmp_path: Path) -> None:
    names = [
        "a.jpg",
        "a/a.jpg",
        "b/a.jpg",
        "b/c/d.PNG",
        "sp ace/x y.webp",
        "a.b.c.jpeg",
        "a.b.c.jpg",
        "z.mp4",
        "b/z.MKV",
    ]
    touch(tmp_path, *names, "notes.md", "archive.zip", "x.jpg.part")
    dataset = open_dataset(tmp_path)
    assert [item.id for item in dataset.items] == sorted(names)
    assert [item.id for item in dataset.videos] == ["b/z.MKV", "z.mp4"]
    assert [item.id for item in dataset.images] == sorted(set(names) - {"b/z.MKV", "z.mp4"})
    assert all(item.path == tmp_path / item.id for item in dataset.items)


def test_hidden_and_output_folders_are_passed_over(tmp_path: Path) -> None:
    touch(
        tmp_path, "x.jpg", ".hidden.jpg", "._x.jpg", ".cache/y.jpg", "vlprep/regions/sheet.png", "a/vlprep/b/sheet.png"
    )
    touch(tmp_path, "vlprep.jpg", "my vlprep/z.jpg")
    assert list_folder(tmp_path).images == ["my vlprep/z.jpg", "vlprep.jpg", "x.jpg"]


def test_composed_and_decomposed_names_stay_apart(tmp_path: Path) -> None:
    composed, decomposed = unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.jpg")
    touch(tmp_path, composed, decomposed)
    assert set(list_folder(tmp_path).images) == {composed, decomposed}


def test_name_that_is_not_unicode_gets_a_storable_id(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(odd)).touch()
    (item,) = open_dataset(tmp_path).images
    assert item.id == "caf\\xe9.jpg"
    assert item.path.exists()
    item.id.encode()


def test_folder_named_like_a_picture_is_an_item_and_searched(tmp_path: Path) -> None:
    touch(tmp_path, "x.jpg/inner.png")
    assert list_folder(tmp_path).images == ["x.jpg", "x.jpg/inner.png"]


def test_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    touch(outside, "far.jpg")
    touch(root, "real/near.jpg")
    (root / "a_link").symlink_to(root / "real")
    (root / "up").symlink_to(root)
    (root / "real/loop").symlink_to(root)
    (root / "elsewhere").symlink_to(outside)
    (root / "again").symlink_to(outside)
    (outside / "back").symlink_to(root)
    (root / "file.jpg").symlink_to(outside / "far.jpg")
    (root / "dangling.jpg").symlink_to(outside / "gone.jpg")
    (root / "circle.jpg").symlink_to(root / "circle.jpg")
    listing = list_folder(root)
    assert listing.images == ["again/far.jpg", "circle.jpg", "dangling.jpg", "file.jpg", "real/near.jpg"]
    assert listing.unreadable == {}


def test_root_may_be_a_link(tmp_path: Path) -> None:
    touch(tmp_path / "real", "x.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert list_folder(tmp_path / "link").images == ["x.jpg"]


@pytest.mark.parametrize("name", ["missing", "file.jpg"])
def test_no_folder(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "file.jpg")
    with pytest.raises(SettingsError, match=f"{name}: cannot be used as a dataset folder"):
        open_dataset(tmp_path / name)


def test_folder_that_cannot_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "open/x.jpg", "locked/y.jpg")
    real_scandir = os.scandir

    def scandir(folder: Path) -> object:
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied")
        return real_scandir(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    dataset = open_dataset(tmp_path)
    assert [item.id for item in dataset.images] == ["open/x.jpg"]
    assert dataset.unreadable == {"locked": "Permission denied"}


@pytest.mark.slow
def test_100_000_items(tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    """DESIGN: planning 100 000 items takes less than 5 s; the time of the walk is recorded, not asserted."""
    for folder in range(100):
        below = tmp_path / f"train{folder:02d}"
        below.mkdir()
        for number in range(1000):
            os.close(os.open(below / f"COCO_train2014_{folder * 1000 + number:012d}.jpg", os.O_CREAT))
    began = time.process_time()
    dataset = open_dataset(tmp_path)
    record_property("cpu_seconds", time.process_time() - began)
    print(f"100 000 items listed in {time.process_time() - began:.2f} CPU seconds")
    assert len(dataset.images) == 100_000
    assert [dataset.images[0].source_id, dataset.images[-1].source_id] == ["0", "99999"]
