"""Many pictures with their regions on one sheet, to see at a glance whether a store makes sense."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlprep.media.image import read_image
from vlprep.report.draw import (
    FAINT,
    INK,
    PAPER,
    Label,
    draw_labels,
    font,
    resized_to_fit,
    scaled,
    shortened,
    shortened_front,
)
from vlprep.report.regions import RegionView, region_views
from vlprep.shards import StoreReader

_MARGIN, _GAP = 28, 20
_TITLE, _NOTE = 26, 14
_ROW_HEIGHT = 300
"""At most; a row is made lower until it is as wide as the sheet."""
_LABELLED = 5
"""Boxes of a picture at most, the surest."""
_LEAST_CONFIDENCE = 0.2
"""What the published selection rule takes for sure; stores have less sure regions too, up to their least number."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of a sheet."""

    title: str
    image_HW3: NDArray[np.uint8]
    regions: Sequence[RegionView]

    @property
    def aspect(self) -> float:
        height, width, _ = self.image_HW3.shape
        return float(width / height)


def contact_sheet(heading: str, pictures: Sequence[Picture], *, width: int = 1560) -> Image.Image:
    """Rows of pictures, each with its surest boxes and their classes; `width` in pixels."""
    inner = width - 2 * _MARGIN
    rows = [_draw_row(row, inner) for row in _rows(pictures, inner)]
    top = _MARGIN + 2 * _TITLE
    sheet = Image.new("RGB", (width, top + sum(row.height + _GAP for row in rows) - _GAP + _MARGIN), PAPER)
    title = shortened(heading, _TITLE, inner)
    ImageDraw.Draw(sheet).text((_MARGIN, _MARGIN), title, font=font(_TITLE), fill=INK)
    for row in rows:
        sheet.paste(row, (_MARGIN, top))
        top += row.height + _GAP
    return sheet


def sheet_of_store(store: Path, dataset: Path, count: int) -> Image.Image:
    """The first `count` pictures of a regions store. Raises `ItemError` where one can no longer be read."""
    reader = StoreReader(store)
    names = reader.manifest.names["classes"]
    pictures = [
        Picture(Path(row["id"]).name, read_image(dataset / row["path"]), region_views(row, names))
        for row in islice(reader, count)
    ]
    return contact_sheet(f"{dataset.name} · {len(pictures)} of {len(reader)} pictures", pictures)


def _rows(pictures: Sequence[Picture], width: int) -> Iterator[list[Picture]]:
    row: list[Picture] = []
    for picture in pictures:
        row.append(picture)
        if _height_that_fills(row, width) <= _ROW_HEIGHT:
            yield row
            row = []
    if row:
        yield row


def _height_that_fills(row: Sequence[Picture], width: int) -> float:
    return (width - _GAP * (len(row) - 1)) / sum(picture.aspect for picture in row)


def _draw_row(row: Sequence[Picture], width: int) -> Image.Image:
    height = min(_ROW_HEIGHT, int(_height_that_fills(row, width)))
    strip = Image.new("RGB", (width, height + 2 * _NOTE), PAPER)
    pen = ImageDraw.Draw(strip)
    left = 0
    for picture in row:
        image, factor = resized_to_fit(picture.image_HW3, width, height)
        draw_labels(image, _labels(picture.regions[:_LABELLED], factor), line=2, text_size=14)
        strip.paste(image, (left, 0))
        note = shortened_front(picture.title, _NOTE, image.width)
        pen.text((left, height + 6), note, font=font(_NOTE), fill=FAINT)
        left += image.width + _GAP
    return strip


def _labels(regions: Sequence[RegionView], factor: float) -> list[Label]:
    return [
        Label(scaled(region.box, factor), f"{region.name} {region.confidence:.2f}", number)
        for number, region in enumerate(regions)
        if region.confidence >= _LEAST_CONFIDENCE
    ]
