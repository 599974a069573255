"""Pictures for the dummy detector, and settings that name it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vlprep.media.image import read_image
from vlprep.stages.extract_regions import RegionSettings
from vlprep.stages.run import RunSettings

SHAPES = ((24, 32), (32, 24), (40, 40))


def make_pictures(folder: Path, count: int = 12) -> list[str]:
    """PNGs of three shapes in two folders; returns their ids in order."""
    rng = np.random.default_rng(7)
    ids = []
    for number in range(count):
        name = f"{'train' if number % 2 else 'val'}/{number:012d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 240, (*SHAPES[number % 3], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        ids.append(name)
    return sorted(ids)


def spoil(folder: Path, item: str, red: int) -> None:
    """Make the dummy detector misbehave on this picture."""
    pixels = read_image(folder / item)
    pixels[0, 0, 0] = red
    Image.fromarray(pixels).save(folder / item)


def settings(**changes: object) -> RegionSettings:
    return RegionSettings(**{"detector": "dummy_detector:build", "boxes": "5-20", **changes})


def run_settings(**changes: object) -> RunSettings:
    return RunSettings(**{"device": "cpu", "part_size": 5, **changes})
