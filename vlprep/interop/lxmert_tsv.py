"""LXMERT's TSV of region features: ten columns, no header, arrays as base64 of little-endian numbers.

    img_id  img_h  img_w  objects_id  objects_conf  attrs_id  attrs_conf  num_boxes  boxes  features

Height comes before width (airsplay/lxmert src/utils.py:12-47; Caffe's own TSV has six columns and width first).
`objects_id` (R,) int64 and `objects_conf` (R,) float32 are the most probable foreground class and its probability,
`boxes` (R, 4) float32 pixels, `features` (R, D) float32. Attributes are passed over.

Met in files people have: `b'...'` around every array (the Python 2 writer run by Python 3), lines ended by `\\r\\n`, a
last line torn by a full disk, and fewer boxes than features (py-bottom-up-attention drops empty boxes after it has
counted), so that every length is checked.

Shape suffixes: R regions, D feature size.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vlprep.errors import ItemError, SettingsError

COLUMNS = (
    "img_id",
    "img_h",
    "img_w",
    "objects_id",
    "objects_conf",
    "attrs_id",
    "attrs_conf",
    "num_boxes",
    "boxes",
    "features",
)
_LONGEST_LINE = 64 << 20
"""Bytes; a row of 100 boxes has a million."""
_ASKED_FOR_SIZE = 16
_CLIP_SLACK = 0.01
"""Boxes were clipped in the resized image, whose sides are rounded: in the original they may stand out a little."""


@dataclass(frozen=True, slots=True)
class Line:
    """Where a row is in the file."""

    number: int
    """From 1."""
    offset: int
    size: int
    """In bytes, the end of the line included."""
    image_id: str
    """Empty where the line is torn: fewer or more columns than ten, or a name that is no text."""


@dataclass(frozen=True, slots=True)
class Index:
    lines: tuple[Line, ...]
    sha256: str
    """Of the whole file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRegions:
    """One row, regions in the file's order."""

    width: int
    height: int
    boxes_R4: NDArray[np.float32]
    features_RD: NDArray[np.float32]
    object_ids_R: NDArray[np.int64]
    confidence_R: NDArray[np.float32]


def index_file(path: Path) -> Index:
    """Find every row in one pass, in the memory of one line.

    Raises `SettingsError` where there is no such file, or where it is not LXMERT's by its first line.
    """
    digest = hashlib.sha256()
    lines = []
    try:
        with path.open("rb") as file:
            for number, (offset, line) in enumerate(_lines(file, path), start=1):
                digest.update(line)
                if number == 1:
                    _require_columns(path, line)
                if line.strip():
                    lines.append(Line(number, offset, len(line), _image_id(line)))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
    if not lines:
        raise SettingsError(f"{path}: an empty file")
    return Index(tuple(lines), digest.hexdigest())


def feature_size(path: Path, index: Index) -> int:
    """D of most of the first rows. Raises `SettingsError`, saying why, where none of them can be read."""
    sizes: Counter[int] = Counter()
    reason = ""
    with path.open("rb") as file:
        for line in index.lines[:_ASKED_FOR_SIZE]:
            try:
                sizes[_read(file, line).features_RD.shape[1]] += 1
            except ValueError as error:
                reason = reason or f"line {line.number}: {error}"
    if not sizes:
        raise SettingsError(f"{path}: none of its first rows can be read ({reason})")
    return sizes.most_common(1)[0][0]


def read_row(file: BinaryIO, line: Line, *, feature_dim: int, num_classes: int) -> ImageRegions:
    """Decode one row of the open file. Raises `ItemError` naming file and line where anything in it does not fit."""
    try:
        row = _read(file, line, feature_dim)
        if row.object_ids_R.min() < 0 or row.object_ids_R.max() >= num_classes:
            raise ValueError(f"objects_id reaches {row.object_ids_R.max()}; there are {num_classes} classes, from 0")
        _require_inside(row)
    except ValueError as error:
        raise ItemError(f"{file.name}, line {line.number}: {error}") from error
    return row


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise SettingsError(f"{path}: a line of more than {_LONGEST_LINE >> 20} MB; this is not LXMERT's TSV")
        yield offset, line
        offset += len(line)


def _require_columns(path: Path, line: bytes) -> None:
    found = line.count(b"\t") + 1
    if found != len(COLUMNS):
        caffe = " (six are Caffe's own TSV, which has no classes)" if found == 6 else ""
        raise SettingsError(f"{path}: {found} columns{caffe}; LXMERT's TSV has ten: {', '.join(COLUMNS)}")


def _image_id(line: bytes) -> str:
    if line.count(b"\t") + 1 != len(COLUMNS):
        return ""
    try:
        return _bare(line.partition(b"\t")[0]).decode()
    except UnicodeDecodeError:
        return ""


def _read(file: BinaryIO, line: Line, feature_dim: int | None = None) -> ImageRegions:
    """Raises `ValueError` saying what is wrong with the row."""
    file.seek(line.offset)
    cells = file.read(line.size).rstrip(b"\r\n").split(b"\t")
    if len(cells) != len(COLUMNS):
        raise ValueError(f"{len(cells)} columns instead of {len(COLUMNS)}")
    fields = dict(zip(COLUMNS, cells, strict=True))
    count, width, height = (_whole_number(fields, name) for name in ("num_boxes", "img_w", "img_h"))
    features = _array(fields, "features", np.float32, count, feature_dim)
    return ImageRegions(
        width=width,
        height=height,
        boxes_R4=_array(fields, "boxes", np.float32, count, 4),
        features_RD=features,
        object_ids_R=_array(fields, "objects_id", np.int64, count, 1)[:, 0],
        confidence_R=_array(fields, "objects_conf", np.float32, count, 1)[:, 0],
    )


def _whole_number(fields: dict[str, bytes], name: str) -> int:
    text = fields[name].strip()
    if not text.isdigit() or int(text) == 0:
        raise ValueError(f"{name} is {text.decode(errors='replace')!r}, not a number above 0")
    return int(text)


def _array(fields: dict[str, bytes], name: str, dtype: type[Any], count: int, width: int | None) -> NDArray[Any]:
    """(count, width); any width that divides the data if it is None."""
    try:
        data = base64.b64decode(_bare(fields[name]), validate=True)
    except ValueError as error:
        raise ValueError(f"{name} is not base64 ({error})") from error
    row = count * np.dtype(dtype).itemsize
    fits = len(data) == row * width if width is not None else data and len(data) % row == 0
    if not fits:
        wanted = row * width if width is not None else f"a multiple of {row}"
        raise ValueError(f"{name} has {len(data)} bytes; {count} boxes need {wanted}")
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(count, -1)


def _bare(field: bytes) -> bytes:
    """Without the `b'...'` that Python 3 puts around bytes when they are formatted as text."""
    return field[2:-1] if field[:2] in (b"b'", b'b"') and field[-1:] == field[1:2] else field


def _require_inside(row: ImageRegions) -> None:
    size = np.array([row.width, row.height], np.float32)
    corners_R22 = row.boxes_R4.reshape(-1, 2, 2)
    if (corners_R22 < -1).any() or (corners_R22 > size * (1 + _CLIP_SLACK) + 1).any():
        reach = " x ".join(f"{number:.0f}" for number in corners_R22.max((0, 1)))
        raise ValueError(f"boxes reach {reach} in an image of {row.width} x {row.height}; are sides swapped?")
