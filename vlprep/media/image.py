"""Image files in, RGB pixels out, as a person sees the picture.

Decoding is Pillow's, which was checked bit-equal to the `cv2.imread` of the published extractors for baseline and
progressive JPEG, PNG, WebP, BMP, PPM and TIFF, for grey, palette and alpha pictures alike, and within 1 of it for CMYK
JPEG. What a file can hold beyond 8-bit RGB is settled by OpenCV's rules, since the features to be matched were made so:

- the EXIF orientation is applied (OpenCV does since 3.1), colour profiles are not;
- alpha and palette transparency are dropped, not composited on a background;
- 16-bit levels keep their high byte (`v >> 8`); of an animation the first frame is read;
- 32-bit levels, which OpenCV refuses: floats within [0, 1] are scaled by 255, integers within [0, 65535] are 16-bit
  levels, and anything else is mapped linearly from its own minimum and maximum.

A file that ends early is an error: missing pixels are never filled with grey. Bit errors are found where the format or
its decoder can tell (PNG by checksum, the others by broken syntax); a flip that leaves a decodable JPEG goes unseen.
"""

from __future__ import annotations

import stat
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from vlprep.errors import ItemError

MAX_PIXELS = 89_478_485
"""Pillow's own threshold of a decompression bomb: 256 MiB of RGB, far above any photograph of a dataset."""

# Pillow can also open formats that run other programs (EPS) or fetch nothing but trouble: only these are tried.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

# Damaged files make Pillow's parsers raise what they happen to meet; these are the families seen or on record.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

# EXIF orientation to what turns the stored picture upright (Exif 2.32, tag 0x0112; 1 is upright).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read one picture as (H, W, 3) uint8 RGB, C-contiguous and writable, upright.

    Raises:
        ItemError: there is no regular, readable file, or it does not hold a whole picture of at most `max_pixels`.
    """
    _check_file(path)
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ItemError(f"{path}: {width} x {height} pixels are more than the {max_pixels} allowed")
            image.load()
            # Only after loading: a PNG may carry its orientation behind the pixels.
            upright = _UPRIGHT.get(_orientation(image))
            rgb = _to_rgb(image)
    except FileNotFoundError as error:
        raise ItemError(f"{path}: no such file; it was removed or renamed meanwhile") from error
    except PermissionError as error:
        raise ItemError(f"{path}: not readable: {error.strerror}") from error
    except UnidentifiedImageError as error:
        raise ItemError(f"{path}: not a picture that can be read, or its header is damaged") from error
    except Image.DecompressionBombError as error:
        raise ItemError(f"{path}: {error}") from error
    except _DECODER_ERRORS as error:
        raise ItemError(f"{path}: damaged or cut off: {error}") from error
    return np.array(rgb if upright is None else rgb.transpose(upright))


def _check_file(path: Path) -> None:
    """Refuse what must not even be opened: a pipe would block for ever, a directory has no useful error."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        what = "the link leads nowhere" if path.is_symlink() else "no such file"
        raise ItemError(f"{path}: {what}") from error
    except OSError as error:
        raise ItemError(f"{path}: not readable: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        raise ItemError(f"{path}: a directory, not a picture")
    if not stat.S_ISREG(status.st_mode):
        raise ItemError(f"{path}: not a regular file")
    if status.st_size == 0:
        raise ItemError(f"{path}: the file is empty")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; damaged metadata must not cost a sound picture, so it counts as upright."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DECODER_ERRORS:
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_to_8_bits(image)).convert("RGB")
    if image.mode in ("RGBa", "La"):  # alpha is multiplied in: divide it out before dropping it
        image = image.convert(image.mode.upper())
    # Pillow would warn that it drops the palette's transparency, which is what is wanted.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> NDArray[np.uint8]:
    levels_HW = np.asarray(image)
    low, high = float(levels_HW.min()), float(levels_HW.max())
    if not np.isfinite((low, high)).all():
        raise ValueError("a pixel is not a finite number")
    if image.mode != "F" and low >= 0 and high <= 0xFFFF:
        return (levels_HW >> 8).astype(np.uint8)
    if image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scale = 255 / (high - low) if high > low else 0.0
    return np.rint((levels_HW.astype(np.float64) - low) * scale).astype(np.uint8)
