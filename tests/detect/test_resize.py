from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from detect.networks import picture
from numpy.typing import NDArray
from PIL import Image

from vlprep.detect.butd import BUTD, BUTD_CAFFE, BUTD_PB
from vlprep.detect.resize import resize
from vlprep.detect.spec import RegionSpec

BY_RESIZER = {spec.resizer: spec for spec in (BUTD, BUTD_CAFFE, BUTD_PB)}
IMAGES = ("000000132417", "000000207647", "000000387267")


@pytest.mark.parametrize("resizer", BY_RESIZER)
@pytest.mark.parametrize(("setting", "sides"), [("quick", (240, 400)), ("full", (600, 1000))])
def test_reference(golden: Path, samples: Path, resizer: str, setting: str, sides: tuple[int, int]) -> None:
    spec = replace(BY_RESIZER[resizer], short_side=sides[0], long_side=sides[1])
    with np.load(golden / "butd/preprocess.npz") as reference:
        for image in IMAGES:
            rgb = np.asarray(Image.open(samples / f"coco/train2014/COCO_train2014_{image}.jpg").convert("RGB"))
            expected = {
                part: reference[f"{image}_{setting}_{resizer}_{part}"] for part in ("hw", "mean", "std", "corner")
            }
            pixels = resize(rgb, spec).pixels_3hw.numpy()
            assert pixels.shape[1:] == tuple(expected["hw"])
            for found, part in (
                (pixels.mean(axis=(1, 2), dtype=np.float64), "mean"),
                (pixels.std(axis=(1, 2), dtype=np.float64), "std"),
                (pixels[:, -4:, -4:], "corner"),
            ):
                np.testing.assert_allclose(found, expected[part], atol=2e-3, rtol=0)


def caffe_by_definition(image: NDArray[np.uint8], spec: RegionSpec) -> NDArray[np.float64]:
    """Pixel after pixel: the input at (i + 0.5) / s - 0.5, clamped, between its two neighbours on each axis."""
    scale = spec.short_side / min(image.shape[:2])
    values = image[:, :, ::-1].astype(np.float64) - np.asarray(spec.pixel_mean)
    for axis in (0, 1):
        side = values.shape[axis]
        at = np.clip((np.arange(round(side * scale)) + 0.5) / scale - 0.5, 0, side - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, side - 1)
        weight = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        values = values.take(low, axis) * (1 - weight) + values.take(high, axis) * weight
    return values.transpose(2, 0, 1)


@pytest.mark.parametrize("short", [48, 97, 240])
def test_caffe_samples_by_scale_not_by_size(short: int) -> None:
    image = picture(120, 153)
    spec = replace(BUTD_CAFFE, short_side=short, long_side=1000)
    resized = resize(image, spec)
    np.testing.assert_allclose(resized.pixels_3hw, caffe_by_definition(image, spec), atol=2e-3, rtol=0)
    assert resized.scale_xy == (short / 120, short / 120)


def test_pillow_on_bytes() -> None:
    image = picture()
    spec = replace(BUTD_PB, short_side=60)
    pixels = resize(image, spec).pixels_3hw.numpy() + np.asarray(spec.pixel_mean, np.float32)[:, None, None]
    expected = np.asarray(Image.fromarray(image).resize((75, 60), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(pixels, expected[:, :, ::-1].transpose(2, 0, 1), atol=1e-4)


@pytest.mark.parametrize("resizer", BY_RESIZER)
def test_channels_are_blue_green_red_minus_the_mean(resizer: str) -> None:
    spec = replace(BY_RESIZER[resizer], short_side=8, pixel_mean=(1.0, 2.0, 3.0))
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    pixels = resize(red, spec).pixels_3hw
    assert pixels.amax(dim=(1, 2)).tolist() == pixels.amin(dim=(1, 2)).tolist() == [-1, -2, 197]


@pytest.mark.parametrize("resizer", BY_RESIZER)
@pytest.mark.parametrize(("shape", "size"), [((50, 400), (12, 100)), ((400, 50), (100, 12)), ((30, 40), (60, 80))])
def test_the_long_side_limits(resizer: str, shape: tuple[int, int], size: tuple[int, int]) -> None:
    """100 / 400 of 50 is 12.5: int(x + 0.5) says 13, OpenCV's rounding to even 12."""
    spec = replace(BY_RESIZER[resizer], short_side=60, long_side=100)
    resized = resize(np.zeros((*shape, 3), np.uint8), spec)
    rounded = tuple(13 if side == 12 and resizer != "caffe_cv2" else side for side in size)
    assert tuple(resized.pixels_3hw.shape[1:]) == rounded


def test_one_pixel() -> None:
    for spec in BY_RESIZER.values():
        small = replace(spec, short_side=5, long_side=9)
        assert resize(np.full((1, 1, 3), 7, np.uint8), small).pixels_3hw.shape == (3, 5, 5)
