"""Reading pictures: every mode as OpenCV shows it, every orientation upright, everything broken an ItemError."""

from __future__ import annotations

import contextlib
import io
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from vlprep.errors import ItemError
from vlprep.media.image import read_image

HEIGHT, WIDTH = 48, 64


def photograph(height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    """Smooth colours with detail, different in every corner, so that no flip and no channel swap goes unseen."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def with_alpha() -> Image.Image:
    image = photograph()
    image.putalpha(Image.fromarray(np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), np.uint8)))
    return image


def levels_16() -> NDArray[np.uint16]:
    return np.random.default_rng(2).integers(0, 1 << 16, (HEIGHT, WIDTH), np.uint16)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def png_16_rgb(levels_HW3: NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = levels_HW3.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels_HW3)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def encodings() -> dict[str, bytes]:
    """One file of each kind that datasets hold."""
    image = photograph()
    palette = image.quantize(32)
    turned = image.transpose(Image.Transpose.ROTATE_180)
    return {
        "baseline.jpg": encoded(image, "JPEG", quality=90),
        "progressive.jpg": encoded(image, "JPEG", progressive=True),
        "grey.jpg": encoded(image.convert("L"), "JPEG"),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "rgb.png": encoded(image, "PNG"),
        "palette.png": encoded(palette, "PNG"),
        "palette_one_clear.png": encoded(palette, "PNG", transparency=3),
        "palette_alpha.png": encoded(palette, "PNG", transparency=bytes(range(32))),
        "alpha.png": encoded(with_alpha(), "PNG"),
        "grey_alpha.png": encoded(with_alpha().convert("LA"), "PNG"),
        "bilevel.png": encoded(image.convert("1"), "PNG"),
        "grey16.png": encoded(Image.fromarray(levels_16()), "PNG"),
        "rgb16.png": png_16_rgb(np.stack([levels_16(), levels_16()[::-1], levels_16()[:, ::-1]], axis=-1)),
        "lossy.webp": encoded(image, "WEBP"),
        "alpha.webp": encoded(with_alpha(), "WEBP", lossless=True, exact=True),
        "animated.webp": encoded(image, "WEBP", save_all=True, append_images=[turned], lossless=True),
        "animated.png": encoded(image, "PNG", save_all=True, append_images=[turned]),
        "animated.gif": encoded(palette, "GIF", save_all=True, append_images=[turned.quantize(32)]),
        "plain.bmp": encoded(image, "BMP"),
        "plain.ppm": encoded(image, "PPM"),
        "grey16.pgm": b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + levels_16().astype(">u2").tobytes(),
        "lzw.tif": encoded(image, "TIFF", compression="tiff_lzw"),
        "cmyk.tif": encoded(image.convert("CMYK"), "TIFF"),
        "grey16.tif": encoded(Image.fromarray(levels_16()), "TIFF"),
    }


ENCODINGS = encodings()


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ENCODINGS)
def test_pixels_are_those_of_opencv(tmp_path: Path, name: str) -> None:
    cv2 = pytest.importorskip("cv2")
    pixels = read_image(written(tmp_path, name, ENCODINGS[name]))
    reference = cv2.imread(str(tmp_path / name), cv2.IMREAD_COLOR)[:, :, ::-1].astype(int)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(pixels - reference).max() <= (1 if name == "cmyk.jpg" else 0)


@pytest.mark.parametrize("name", ENCODINGS)
def test_array_is_contiguous_uint8_and_writable(tmp_path: Path, name: str) -> None:
    pixels = read_image(written(tmp_path, name, ENCODINGS[name]))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


@pytest.mark.parametrize("name", ["grey16.png", "grey16.pgm", "grey16.tif"])
def test_16_bits_are_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    pixels = read_image(written(tmp_path, name, ENCODINGS[name]))
    assert np.array_equal(pixels, np.repeat((levels_16() >> 8)[..., None], 3, axis=-1))


def test_lossless_colour_survives(tmp_path: Path) -> None:
    expected = np.asarray(photograph())
    for name in ("rgb.png", "alpha.png", "alpha.webp", "animated.webp", "animated.png", "plain.bmp", "lzw.tif"):
        assert np.array_equal(read_image(written(tmp_path, name, ENCODINGS[name])), expected), name


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (np.array([[0.0, 0.5], [1.0, 0.25]], np.float32), [[0, 128], [255, 64]]),
        (np.array([[-1.0, 0.0], [3.0, 1.0]], np.float32), [[0, 64], [255, 128]]),
        (np.array([[0, 256], [65535, 255]], np.int32), [[0, 1], [255, 0]]),
        (np.array([[0, 100000], [50000, 100000]], np.int32), [[0, 255], [128, 255]]),
        (np.array([[7, 7], [7, 7]], np.float32), [[0, 0], [0, 0]]),
    ],
)
def test_32_bit_levels_follow_the_documented_rule(tmp_path: Path, levels: np.ndarray, expected: list) -> None:
    pixels = read_image(written(tmp_path, "deep.tif", encoded(Image.fromarray(levels), "TIFF")))
    assert pixels[..., 0].tolist() == expected
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_float_picture_with_a_nan_is_refused(tmp_path: Path) -> None:
    levels = np.array([[0.0, np.nan]], np.float32)
    with pytest.raises(ItemError, match="not a finite number"):
        read_image(written(tmp_path, "nan.tif", encoded(Image.fromarray(levels), "TIFF")))


def stored_for(upright: Image.Image, orientation: int) -> Image.Image:
    """What a camera stores so that a viewer, obeying `orientation`, shows `upright`."""
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    return upright if undo is None else upright.transpose(undo)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_every_orientation_is_turned_upright(tmp_path: Path, file_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options: dict[str, object] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(file_format, {})
    data = encoded(stored_for(photograph(), orientation), file_format, exif=exif, **options)
    pixels = read_image(written(tmp_path, f"turned.{file_format.lower()}", data))
    tolerance = 24 if file_format == "JPEG" else 0
    assert np.abs(pixels.astype(int) - np.asarray(photograph())).max() <= tolerance


def test_orientation_by_hand(tmp_path: Path) -> None:
    """Independent of Pillow's names: 6 means that the stored rows are the picture's columns, right to left."""
    stored_HW3 = np.asarray(photograph())
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    pixels = read_image(written(tmp_path, "six.png", encoded(photograph(), "PNG", exif=exif)))
    assert pixels.shape == (WIDTH, HEIGHT, 3)
    assert np.array_equal(pixels[:, -1], stored_HW3[0])
    assert np.array_equal(pixels[0, :], stored_HW3[::-1, 0])


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_meaningless_orientation_is_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(photograph(), "PNG", exif=exif)
    assert np.array_equal(read_image(written(tmp_path, "x.png", data)), np.asarray(photograph()))


def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    data = encoded(photograph(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense")
    assert np.array_equal(read_image(written(tmp_path, "x.png", data)), np.asarray(photograph()))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ENCODINGS)
def test_cut_file_is_an_error_or_whole(tmp_path: Path, name: str) -> None:
    """Cut at 20 points and just before the end: no crash, and never a picture with made-up pixels."""
    data = ENCODINGS[name]
    whole = read_image(written(tmp_path, name, data))
    for kept in [len(data) * point // 20 for point in range(20)] + [len(data) - less for less in (1, 2, 3, 8)]:
        path = written(tmp_path, f"cut_{name}", data[:kept])
        with contextlib.suppress(ItemError):
            assert np.array_equal(read_image(path), whole), f"made-up pixels after {kept} of {len(data)} bytes"


@pytest.mark.parametrize("name", ["baseline.jpg", "progressive.jpg", "cmyk.jpg", "rgb.png", "lossy.webp", "lzw.tif"])
def test_half_a_file_is_an_error(tmp_path: Path, name: str) -> None:
    data = ENCODINGS[name]
    with pytest.raises(ItemError):
        read_image(written(tmp_path, name, data[: len(data) // 2]))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ENCODINGS)
def test_flipped_bits_never_crash(tmp_path: Path, name: str) -> None:
    data, chance, errors = ENCODINGS[name], random.Random(0), 0
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 1, 1, 20))):
            damaged[chance.randrange(len(data) if chance.random() < 0.5 else min(len(data), 200))] ^= 1 << (
                chance.randrange(8)
            )
        try:
            read_image(written(tmp_path, name, bytes(damaged)), max_pixels=1_000_000)
        except ItemError:
            errors += 1
    assert errors, "no decoder noticed anything"


def test_png_checksum_catches_a_flip_in_the_pixels(tmp_path: Path) -> None:
    data = bytearray(ENCODINGS["rgb.png"])
    data[len(data) // 2] ^= 1
    with pytest.raises(ItemError, match="damaged or cut off"):
        read_image(written(tmp_path, "x.png", bytes(data)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"Not Found\n", "not a picture"),
        (b"\xff\xd8\xff", "not a picture"),
        (bytes(4096), "not a pict"),
    ],
)
def test_what_is_no_picture(tmp_path: Path, data: bytes, reason: str) -> None:
    path = written(tmp_path, "a b.jpg", data)
    with pytest.raises(ItemError, match=reason) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_eps_is_refused_because_it_would_run_a_program(tmp_path: Path) -> None:
    data = encoded(photograph(), "EPS")
    with pytest.raises(ItemError, match="not a picture that can be read"):
        read_image(written(tmp_path, "x.jpg", data))


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in [
        ("x.jpg", "a directory"),
        ("dangling.jpg", "leads nowhere"),
        ("vanished.jpg", "no such file"),
        ("loop.jpg", "not readable"),
        ("pipe.jpg", "not a regular file"),
    ]:
        with pytest.raises(ItemError, match=reason) as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value)


def test_file_that_vanishes_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "x.jpg", ENCODINGS["baseline.jpg"])
    real_open = Image.open

    def unlink_then_open(*args: object, **kwargs: object) -> ImageFile.ImageFile:
        path.unlink()
        return real_open(*args, **kwargs)

    monkeypatch.setattr(Image, "open", unlink_then_open)
    with pytest.raises(ItemError, match="removed or renamed"):
        read_image(path)


def test_unreadable_file(tmp_path: Path) -> None:
    path = written(tmp_path, "secret.jpg", ENCODINGS["baseline.jpg"])
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        for folder in (tmp_path, *tmp_path.parents[:3]):
            folder.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(ItemError, match="not readable: Permission denied"):
            read_image(path)
    finally:
        if root:
            os.seteuid(0)


def test_decompression_bombs(tmp_path: Path) -> None:
    bomb = encoded(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(ItemError, match="400000000"):
        read_image(written(tmp_path, "bomb.png", bomb))
    with pytest.raises(ItemError, match="64 x 48 pixels are more than the 3071 allowed"):
        read_image(written(tmp_path, "small.png", ENCODINGS["rgb.png"]), max_pixels=HEIGHT * WIDTH - 1)
    assert read_image(tmp_path / "small.png", max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    "name", ["a b.png", "ünïcode ☃.png", "e\u0301.png", "a.b.c.png", "no_suffix", "-x.png", "%20.png"]
)
def test_any_name(tmp_path: Path, name: str) -> None:
    assert np.array_equal(read_image(written(tmp_path, name, ENCODINGS["rgb.png"])), np.asarray(photograph()))


def test_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    assert np.array_equal(read_image(written(tmp_path, "x.jpg", ENCODINGS["rgb.png"])), np.asarray(photograph()))


def test_coco_photographs_are_as_pillow_and_opencv_decode_them(samples: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    for path in sorted((samples / "coco/train2014").glob("*.jpg")):
        pixels = read_image(path)
        assert np.array_equal(pixels, np.asarray(Image.open(path).convert("RGB")))
        assert np.array_equal(pixels, cv2.imread(str(path))[:, :, ::-1])


def test_cut_photographs(samples: Path, tmp_path: Path) -> None:
    for path in sorted((samples / "coco/train2014").glob("*.jpg"))[:2]:
        data = path.read_bytes()
        for point in range(1, 20):
            with pytest.raises(ItemError):
                read_image(written(tmp_path, "cut.jpg", data[: len(data) * point // 20]))
