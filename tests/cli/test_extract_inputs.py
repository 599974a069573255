"""The real command on a folder of all that folders hold: odd pictures are read, broken ones are recorded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from vlprep.media.scenes import random_scene, render
from vlprep.shards import StoreReader

CUTS = 20
JPEG = {"format": "JPEG", "quality": 90}
HEIGHT, WIDTH = 120, 160


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    scene = Image.fromarray(render(random_scene(5)))
    return scene.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def readable(folder: Path, picture: Image.Image) -> set[str]:
    """Every kind of picture and of name that must be read; returns their ids."""
    rotated = Image.Exif()
    rotated[ExifTags.Base.Orientation] = 6  # stored lying on its side
    animation = [picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    (folder / "one.two").mkdir(parents=True)
    (folder / "other").mkdir()
    picture.transpose(Image.Transpose.ROTATE_90).save(folder / "rotated.jpg", exif=rotated, **JPEG)
    picture.convert("L").save(folder / "grey.jpg", **JPEG)
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(folder / "grey16.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg", **JPEG)
    picture.quantize(64).save(folder / "palette.png")
    picture.convert("RGBA").save(folder / "alpha.png")
    picture.save(folder / "modern.webp")
    animation[0].save(folder / "animated.gif", save_all=True, append_images=animation[1:])
    for name in ("with space.jpg", "üñï 鳥 🐦.jpg", "a.b.c.jpg", "UPPER.JPG", "one.two/same.jpg", "other/same.jpg"):
        picture.save(folder / name, **JPEG)
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def broken(folder: Path, picture: Image.Image) -> set[str]:
    """Every kind of file that must be recorded as a failure; returns their ids."""
    folder.mkdir()
    picture.save(folder / "whole.png")
    png = (folder / "whole.png").read_bytes()
    picture.save(folder / "whole.jpg", **JPEG)
    jpeg = (folder / "whole.jpg").read_bytes()
    for whole in ("whole.png", "whole.jpg"):
        (folder / whole).unlink()
    for cut in range(CUTS):
        (folder / f"cut-{cut:02}.jpg").write_bytes(jpeg[: len(jpeg) * cut // CUTS])  # the first one is empty
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0x10
    (folder / "flipped.png").write_bytes(flipped)
    (folder / "text.jpg").write_text("no picture at all")
    (folder / "folder.jpg").mkdir()
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "unreadable.jpg").write_bytes(jpeg)
    (folder / "unreadable.jpg").chmod(0)
    return {f"broken/{path.name}" for path in folder.iterdir()}


def test_every_input_is_a_row_or_a_failure(
    tmp_path: Path, picture: Image.Image, spawn: Callable[..., Any], vlprep: Callable[..., Any]
) -> None:
    dataset = tmp_path / "a dataset"
    good = readable(dataset, picture)
    bad = broken(dataset / "broken", picture)
    if os.access(dataset / "broken/unreadable.jpg", os.R_OK):  # as root
        bad.remove("broken/unreadable.jpg")
        good.add("broken/unreadable.jpg")

    command = spawn("extract-regions", dataset, "--detector", "demo", "--device", "cpu")
    stdout, stderr = command.communicate(timeout=250)
    assert command.returncode == 3, stderr
    assert f"{len(good)} of {len(good) + len(bad)} done, {len(bad)} failed" in stdout
    assert "Traceback" not in stderr

    reader = StoreReader(dataset / "vlprep/regions")
    assert set(reader.ids) == good
    assert {failure["id"] for failure in failures(dataset, vlprep)} == bad
    found = {row["id"]: row for row in reader}
    for item, row in found.items():
        assert (row["height"], row["width"]) == (HEIGHT, WIDTH), item
        assert (row["boxes"] <= (WIDTH, HEIGHT, WIDTH, HEIGHT)).all()
    # What the picture shows is found however it is stored, and the boxes stand upright.
    expected = found["a.b.c.jpg"]["object_ids"][0], found["a.b.c.jpg"]["boxes"][0]
    for item in ("rotated.jpg", "cmyk.jpg", "alpha.png", "modern.webp", "one.two/same.jpg", "other/same.jpg"):
        assert found[item]["object_ids"][0] == expected[0], item
        np.testing.assert_allclose(found[item]["boxes"][0], expected[1], atol=8, err_msg=item)


def failures(dataset: Path, vlprep: Callable[..., Any]) -> list[dict[str, str]]:
    return json.loads(vlprep("store", "info", dataset / "vlprep/regions", "--json").stdout)["failures"]
