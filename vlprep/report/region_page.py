"""One picture with its regions, and beside it what the detector says of the most confident ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlprep.report.draw import (
    FAINT,
    INK,
    PAPER,
    RULE,
    Label,
    chip_size,
    colour,
    draw_chip,
    draw_faint_boxes,
    draw_labels,
    font,
    resized_to_fit,
    scaled,
    shortened,
)
from vlprep.report.regions import RegionView

_MARGIN = 24
_TITLE = 22
_PICTURE = (960, 760)
_CARD_WIDTH, _CARD_GAP, _COLUMN_GAP = 330, 18, 28
_CARD_TITLE, _ROW, _TEXT = 30, 19, 13
_NAME_WIDTH, _NUMBER_WIDTH = 150, 52
_LEAST_CONFIDENCE = 0.05
"""A region less sure than this has no card, unless it is the first."""


def region_page(
    title: str, image_HW3: NDArray[np.uint8], regions: Sequence[RegionView], detailed: int = 8
) -> Image.Image:
    """Draw all boxes into the picture, up to `detailed` of the most confident ones with a number, name and card.

    A card has the region's most probable classes as bars, and the background's probability as a grey one.
    """
    picture, factor = resized_to_fit(image_HW3, *_PICTURE)
    sure = sum(region.confidence >= _LEAST_CONFIDENCE for region in regions)
    detailed = min(detailed, max(sure, 1))
    shown = regions[:detailed]
    draw_faint_boxes(picture, [scaled(region.box, factor) for region in regions[detailed:]])
    labels = [
        Label(scaled(region.box, factor), f"{number + 1} {region.name}", number) for number, region in enumerate(shown)
    ]
    draw_labels(picture, labels)
    card_height = _CARD_TITLE + _ROW * (1 + max((len(region.likely) for region in shown), default=0)) + _CARD_GAP
    per_column = max(1, (picture.height + _CARD_GAP) // card_height, -(-len(shown) // 2))
    columns = -(-len(shown) // per_column)
    height = max(picture.height, min(per_column, len(shown)) * card_height - _CARD_GAP)
    width = picture.width + columns * (_COLUMN_GAP + _CARD_WIDTH)
    page = Image.new("RGB", (width + 2 * _MARGIN, height + 2 * _MARGIN + 2 * _TITLE), PAPER)
    pen = ImageDraw.Draw(page)
    heading = f"{title}   {image_HW3.shape[1]} x {image_HW3.shape[0]}, {len(regions)} regions"
    pen.text((_MARGIN, _MARGIN), shortened(heading, _TITLE, width), font=font(_TITLE), fill=INK)
    top = _MARGIN + 2 * _TITLE
    page.paste(picture, (_MARGIN, top))
    for number, region in enumerate(shown):
        column, row = divmod(number, per_column)
        left = _MARGIN + picture.width + _COLUMN_GAP + column * (_CARD_WIDTH + _COLUMN_GAP)
        _draw_card(pen, left, top + row * card_height, number, region)
    return page


def _draw_card(pen: ImageDraw.ImageDraw, left: int, top: int, number: int, region: RegionView) -> None:
    rank = str(number + 1)
    width, height = chip_size(rank, 15)
    draw_chip(pen, (left, top, left + width, top + height), rank, number, 15)
    name = shortened(region.name, 17, _CARD_WIDTH - width - 70)
    pen.text((left + width + 8, top + height / 2), name, font=font(17), fill=INK, anchor="lm")
    pen.text((left + _CARD_WIDTH, top + height / 2), f"{region.confidence:.2f}", font=font(17), fill=INK, anchor="rm")
    bars = [(likely, share, colour(number)) for likely, share in region.likely]
    if region.background is not None:
        bars.append(("background", region.background, FAINT))
    for row, (likely, share, fill) in enumerate(bars):
        _draw_bar(pen, left, top + _CARD_TITLE + row * _ROW, likely, share, fill)


def _draw_bar(pen: ImageDraw.ImageDraw, left: int, top: int, name: str, share: float, fill: str) -> None:
    middle = top + _ROW / 2
    start, end = left + _NAME_WIDTH, left + _CARD_WIDTH - _NUMBER_WIDTH
    pen.text((left, middle), shortened(name, _TEXT, _NAME_WIDTH - 8), font=font(_TEXT), fill=FAINT, anchor="lm")
    pen.rounded_rectangle((start, middle - 4, end, middle + 4), radius=2, fill=RULE)
    if share * (end - start) >= 1:
        pen.rounded_rectangle((start, middle - 4, start + share * (end - start), middle + 4), radius=2, fill=fill)
    pen.text((left + _CARD_WIDTH, middle), f"{100 * share:.1f} %", font=font(_TEXT), fill=FAINT, anchor="rm")
