"""Boxes with labels on pictures, and text that fits.

Everything here draws with Pillow's own font, so that a picture looks the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Rectangle = tuple[float, float, float, float]
"""x1, y1, x2, y2."""

# Told apart on photographs, and mostly by people who see colours differently (after Okabe and Ito 2008).
PALETTE = ("#ffb000", "#1f9ede", "#fe4f5e", "#19c37d", "#b26bff", "#ff7f0e", "#00c2c7", "#f25cc1", "#9acd32", "#8c9eff")
PAPER, INK, FAINT, RULE = "#ffffff", "#1c1f24", "#717784", "#e4e6ea"
_OUTLINE = (0, 0, 0, 130)
_FAINT_LINE = (255, 255, 255, 140)


@dataclass(frozen=True, slots=True)
class Label:
    """A box, its text, and its place in the palette."""

    box: Rectangle
    """In pixels of the picture that is drawn on."""
    text: str
    colour: int


@cache
def font(size: int) -> Font:
    """Pillow's font at this many pixels."""
    return ImageFont.load_default(size)


def colour(number: int) -> str:
    """The palette's colour of this number; it begins again at its end."""
    return PALETTE[number % len(PALETTE)]


def shortened(text: str, size: int, width: float) -> str:
    """The text, cut with an ellipsis where it would be wider."""
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def shortened_front(text: str, size: int, width: float) -> str:
    """The same, but for file names, which differ at their ends."""
    return shortened(text[::-1], size, width)[::-1]


def resized_to_fit(image_HW3: NDArray[np.uint8], width: int, height: int) -> tuple[Image.Image, float]:
    """The picture as large as fits into `width` x `height`, and the factor that it was scaled by."""
    image = Image.fromarray(image_HW3)
    factor = min(width / image.width, height / image.height)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    return image.resize(size, Image.Resampling.LANCZOS), factor


def draw_labels(image: Image.Image, labels: Sequence[Label], *, line: int = 3, text_size: int = 15) -> None:
    """Draw boxes and their texts into the picture, the first ones on top; texts keep clear of each other if they
    can."""
    pen = ImageDraw.Draw(image, "RGBA")
    for label in reversed(labels):
        pen.rectangle(_grown(label.box, 1), outline=_OUTLINE, width=line + 2)
        pen.rectangle(label.box, outline=colour(label.colour), width=line)
    taken: list[Rectangle] = []
    for label in labels:
        taken.append(_place(label, image.size, text_size, taken))
    for label, chip in zip(labels, taken, strict=True):
        draw_chip(pen, chip, label.text, label.colour, text_size)


def draw_faint_boxes(image: Image.Image, boxes: Sequence[Rectangle]) -> None:
    """Thin lines for what is there but not talked about."""
    pen = ImageDraw.Draw(image, "RGBA")
    for box in boxes:
        pen.rectangle(box, outline=_FAINT_LINE, width=1)


def draw_chip(pen: ImageDraw.ImageDraw, chip: Rectangle, text: str, number: int, text_size: int) -> None:
    """Text on a rounded patch of the palette's colour."""
    pen.rounded_rectangle(chip, radius=4, fill=colour(number))
    middle = (chip[0] + chip[2]) / 2, (chip[1] + chip[3]) / 2
    pen.text(middle, text, font=font(text_size), fill=INK, anchor="mm")


def chip_size(text: str, text_size: int) -> tuple[float, float]:
    """Width and height of a chip."""
    return font(text_size).getlength(text) + 0.8 * text_size, 1.45 * text_size


def scaled(box: Rectangle, factor: float) -> Rectangle:
    """The box in a picture that was resized by `factor`."""
    x1, y1, x2, y2 = box
    return x1 * factor, y1 * factor, x2 * factor, y2 * factor


def _place(label: Label, size: tuple[int, int], text_size: int, taken: Sequence[Rectangle]) -> Rectangle:
    """Above the box if there is room, else within it or below it: wherever least is covered."""
    width, height = chip_size(label.text, text_size)
    x1, y1, x2, y2 = label.box
    corners = [(x1, y1 - height), (x1, y1), (x1, y2), (x2 - width, y1 - height), (x2 - width, y1), (x1, y2 - height)]
    chips = [_inside(x, y, width, height, size) for x, y in corners]
    return min(chips, key=lambda chip: sum(_overlap(chip, other) for other in taken))


def _inside(x: float, y: float, width: float, height: float, size: tuple[int, int]) -> Rectangle:
    left = min(max(x, 0), max(size[0] - width - 1, 0))
    top = min(max(y, 0), max(size[1] - height - 1, 0))
    return left, top, left + width, top + height


def _overlap(a: Rectangle, b: Rectangle) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _grown(box: Rectangle, by: int) -> Rectangle:
    return box[0] - by, box[1] - by, box[2] + by, box[3] + by
