"""What visual tokens look like: for each leaf of a vocabulary the frames nearest to it (as in VideoBERT's figures)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlprep.report.draw import FAINT, INK, PAPER, RULE, chip_size, colour, draw_chip, font, shortened, shortened_front

_MARGIN, _GAP, _ROW_GAP = 32, 12, 26
_TITLE, _TOKEN, _TEXT = 26, 30, 14
_CARD = 190
_FRAME = (224, 140)
"""Width and height that frames are cut to."""
_CAPTION = 2 * _TEXT + 14


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafFrame:
    image_HW3: NDArray[np.uint8]
    place: str
    """Which video, and when."""
    said: str
    """What is said meanwhile; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafRow:
    token: int
    path: Sequence[int]
    """The child taken at each level, root first."""
    notes: Sequence[str]
    """Lines below the path."""
    frames: Sequence[LeafFrame]
    """The nearest first."""


def leaf_page(heading: str, note: str, rows: Sequence[LeafRow]) -> Image.Image:
    """A page with a row for each leaf. Leaves of one top branch have the same colour."""
    columns = max((len(row.frames) for row in rows), default=1)
    width = 2 * _MARGIN + _CARD + max(columns, 2) * (_FRAME[0] + _GAP) - _GAP
    top = _MARGIN + 2 * _TITLE + _TEXT
    row_height = _FRAME[1] + _CAPTION + _ROW_GAP
    page = Image.new("RGB", (width, top + len(rows) * row_height - _ROW_GAP + _MARGIN), PAPER)
    pen = ImageDraw.Draw(page)
    inner = width - 2 * _MARGIN
    pen.text((_MARGIN, _MARGIN - 6), shortened(heading, _TITLE, inner), font=font(_TITLE), fill=INK)
    pen.text((_MARGIN, _MARGIN + _TITLE + 4), shortened(note, _TEXT + 1, inner), font=font(_TEXT + 1), fill=FAINT)
    for number, row in enumerate(rows):
        _draw_row(page, pen, top + number * row_height, row)
    return page


def _draw_row(page: Image.Image, pen: ImageDraw.ImageDraw, top: int, row: LeafRow) -> None:
    right = page.width - _MARGIN
    pen.line((_MARGIN, top - _ROW_GAP // 2, right, top - _ROW_GAP // 2), fill=RULE, width=1)
    pen.text((_MARGIN, top - 4), f"{row.token:,}", font=font(_TOKEN), fill=INK)
    path = " · ".join(map(str, row.path))
    chip_width, chip_height = chip_size(path, _TEXT + 1)
    chip_top = top + _TOKEN + 10
    chip = (_MARGIN, chip_top, _MARGIN + chip_width, chip_top + chip_height)
    draw_chip(pen, chip, path, row.path[0], _TEXT + 1)
    for line, note in enumerate(row.notes):
        y = chip_top + chip_height + 10 + line * (_TEXT + 6)
        pen.text((_MARGIN, y), shortened(note, _TEXT, _CARD - 16), font=font(_TEXT), fill=FAINT)
    for number, frame in enumerate(row.frames):
        _draw_frame(page, pen, _MARGIN + _CARD + number * (_FRAME[0] + _GAP), top, frame, row.path[0])


def _draw_frame(page: Image.Image, pen: ImageDraw.ImageDraw, left: int, top: int, frame: LeafFrame, hue: int) -> None:
    page.paste(_cut_to(Image.fromarray(frame.image_HW3)), (left, top))
    pen.rectangle((left, top + _FRAME[1], left + _FRAME[0] - 1, top + _FRAME[1] + 2), fill=colour(hue))
    place = shortened_front(frame.place, _TEXT, _FRAME[0])
    pen.text((left, top + _FRAME[1] + 7), place, font=font(_TEXT), fill=FAINT)
    if frame.said:
        said = shortened(f"“{frame.said}”", _TEXT, _FRAME[0])
        pen.text((left, top + _FRAME[1] + _TEXT + 11), said, font=font(_TEXT), fill=INK)


def _cut_to(image: Image.Image) -> Image.Image:
    """The middle of the picture, at the size of a frame."""
    factor = max(_FRAME[0] / image.width, _FRAME[1] / image.height)
    size = max(_FRAME[0], round(image.width * factor)), max(_FRAME[1], round(image.height * factor))
    left, top = (size[0] - _FRAME[0]) // 2, (size[1] - _FRAME[1]) // 2
    resized = image.resize(size, Image.Resampling.LANCZOS)
    return resized.crop((left, top, left + _FRAME[0], top + _FRAME[1]))
