"""`vlprep show`: a picture of the right size and a table of the right regions."""

from __future__ import annotations

import errno

import numpy as np
import pytest
from PIL import Image

from vlprep.media.scenes import CLASS_NAMES


def test_the_table_has_every_region_and_the_picture_exists(vlprep, made, tmp_path):
    out = tmp_path / "one.png"
    result = vlprep("show", made.dataset, "--store", "regions", "--id", "images/000000000002.jpg", "--out", out)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[-1] == str(out)
    for line, thing in zip(lines[1:], made.scenes[1].objects, strict=False):
        assert thing.class_name in line
        assert " ".join(map(str, thing.box)) in line
        assert f"{thing.class_name} 75.0 %" in line
    assert Image.open(out).format == "PNG"


def test_json_has_the_five_most_probable_classes(document, made, tmp_path):
    shown = document("show", made.dataset, "--id", "1", "--out", tmp_path / "one.png")
    assert shown["id"] == "images/000000000001.jpg"  # found by the dataset's own id
    likely = shown["regions"][0]["likely"]
    assert len(likely) == 5
    assert likely[0] == [made.scenes[0].objects[0].class_name, pytest.approx(0.75, abs=1e-3)]
    assert {name for name, _ in likely} <= set(CLASS_NAMES)


def test_without_an_id_the_first_picture_is_shown_here(vlprep, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert vlprep("show", made.dataset).exit_code == 0
    assert (tmp_path / "000000000001.regions.png").exists()


def test_an_image_that_failed_says_why(vlprep, made):
    result = vlprep("show", made.dataset, "--id", "images/broken.jpg")
    assert result.exit_code == 2
    assert "not a picture" in result.stderr


def test_an_unknown_id_shows_what_ids_look_like(vlprep, made):
    assert "images/000000000001.jpg" in vlprep("show", made.dataset, "--id", "x").stderr


def test_a_picture_that_is_gone_is_1_without_a_traceback(vlprep, made, tmp_path):
    (made.dataset / "images" / "000000000001.jpg").unlink()
    result = vlprep("show", made.dataset, "--out", tmp_path / "x.png")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert "000000000001.jpg" in result.stderr


@pytest.mark.parametrize("store", ["nothing", "/nowhere"])
def test_no_store_is_2(vlprep, made, store):
    assert vlprep("show", made.dataset, "--store", store).exit_code == 2


def test_boxes_are_drawn_where_the_objects_are(vlprep, made, tmp_path):
    vlprep("show", made.dataset, "--id", "1", "--out", tmp_path / "one.png", "--top", 1)
    page = np.asarray(Image.open(tmp_path / "one.png").convert("RGB")).astype(int)
    yellow_HW = (np.abs(page - (255, 176, 0)).sum(axis=2) < 12)[:, : page.shape[1] - 370]
    rows, columns = np.nonzero(yellow_HW)
    scene = made.scenes[0]
    _, _, x2, y2 = scene.objects[0].box
    factor = min(960 / scene.width, 760 / scene.height)
    assert columns.max() - 24 == pytest.approx(x2 * factor, abs=3)
    assert rows.max() - 68 == pytest.approx(y2 * factor, abs=3)


@pytest.mark.parametrize("name", ["no/folder/x.png", "x.xyz", "x", "folder.png"])
def test_a_place_where_no_picture_can_be_is_2(vlprep, made, tmp_path, name):
    (tmp_path / "folder.png").mkdir()
    result = vlprep("show", made.dataset, "--out", tmp_path / name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: --out {tmp_path / name}: ")


def test_a_full_disk_leaves_no_picture(vlprep, made, tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = vlprep("show", made.dataset, "--out", tmp_path / "x.png")
    assert result.exit_code == 1
    assert "no space left" in result.stderr
    assert not list(tmp_path.glob("*.png"))
    assert not list(tmp_path.glob(".*"))
