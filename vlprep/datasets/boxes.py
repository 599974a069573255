"""Boxes given by a file, for `--given-boxes`: ground truth of VCR, NLVR2 and grounding work, or another detector's.

| file | form |
| --- | --- |
| `.jsonl` | a line an image: `{"image": "val/x.jpg", "boxes": [[x1, y1, x2, y2], …]}` |
| `.csv`, `.tsv` | a row a box, with the columns `image,x1,y1,x2,y2` or `image,x,y,width,height` |
| `.json` | COCO instances: `bbox` is x, y, width, height; crowd regions are left out |

For `image` any of the names of a caption file's image column will do (`vlprep.datasets.captions.IMAGE_COLUMNS`, or
`id`): an item's id, a file name, the dataset's own id. Coordinates are pixels of the upright image.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlprep.datasets.captions import record_keys
from vlprep.datasets.items import Item
from vlprep.datasets.join import ItemIndex
from vlprep.datasets.records import fault, read_json, read_records
from vlprep.errors import SettingsError

log = logging.getLogger(__name__)

_EXAMPLES = 3

Names = tuple[str, ...]
"""What a file calls an image; COCO has two for each, its file name and its id."""
Boxes = NDArray[np.float32]
"""(n, 4): x1, y1, x2, y2 in pixels."""


class _Row(NamedTuple):
    where: str
    names: Names
    boxes: list[list[float]]


def load_boxes(path: Path) -> Mapping[Names, Boxes]:
    """Boxes by the names that the file gives an image, in file order.

    Raises:
        SettingsError: there is no such file, it is of no known form, or a line holds something else than boxes with
            x1 <= x2, y1 <= y2.
    """
    readers = {".jsonl": _json_lines, ".csv": _table, ".tsv": _table, ".json": _coco}
    if not path.is_file():
        raise SettingsError(f"--given-boxes {path}: no such file")
    if path.suffix.lower() not in readers:
        raise SettingsError(f"{path}: boxes come as JSON lines, CSV, TSV or COCO instances (.jsonl .csv .tsv .json)")
    collected: dict[Names, list[list[float]]] = {}
    for where, names, boxes in readers[path.suffix.lower()](path):
        if not names:
            raise fault(path, where, "nothing names the image; expected a column `image` or `id`")
        _check(path, where, boxes)
        collected.setdefault(names, []).extend(boxes)
    return {names: np.array(boxes, np.float32).reshape(-1, 4) for names, boxes in collected.items()}


def boxes_by_item(boxes: Mapping[Names, Boxes], items: Iterable[Item]) -> dict[str, Boxes]:
    """The boxes by item id, joined as captions are; items without boxes are left out, names without item logged.

    Raises:
        SettingsError: not one name in the file is that of an item, or two names with different boxes are one item's.
    """
    index = ItemIndex(items)
    joined: dict[str, Boxes] = {}
    lost: list[str] = []
    for names, array in boxes.items():
        matches = [match for name in names if (match := index.find((name,)))]
        for match in matches:
            if not np.array_equal(joined.setdefault(match.item.id, array), array):
                raise SettingsError(
                    f"the given boxes name {match.item.id} in two ways, with different boxes: {', '.join(names)}"
                )
        if not matches:
            lost.append(names[0])
    examples = ", ".join(lost[:_EXAMPLES])
    if lost and not joined:
        raise SettingsError(f"the given boxes are for other images, such as {examples}; use item ids")
    if lost:
        log.warning("the given boxes have %d names that no image has, or several have: %s", len(lost), examples)
    return joined


def _json_lines(path: Path) -> Iterator[_Row]:
    for where, values in read_records(path):
        boxes = values.get("boxes")
        if not isinstance(boxes, list):
            raise fault(path, where, "no list `boxes`")
        yield _Row(where, record_keys(values), [_numbers(path, where, box) for box in boxes])


def _table(path: Path) -> Iterator[_Row]:
    for where, values in read_records(path):
        if values.keys() >= {"x1", "y1", "x2", "y2"}:
            box = _numbers(path, where, [values[name] for name in ("x1", "y1", "x2", "y2")])
        elif values.keys() >= {"x", "y", "width", "height"}:
            box = _corners(_numbers(path, where, [values[name] for name in ("x", "y", "width", "height")]))
        else:
            raise fault(path, where, "no columns x1,y1,x2,y2 or x,y,width,height")
        yield _Row(where, record_keys(values), [box])


def _coco(path: Path) -> Iterator[_Row]:
    data = read_json(path)
    try:
        names = {image["id"]: str(image["file_name"]) for image in data["images"]}
        annotations = list(data["annotations"])
    except (KeyError, TypeError) as error:
        raise fault(path, "images or annotations", f"not as COCO writes them ({error!r})") from error
    for number, annotation in enumerate(annotations):
        where = f"annotation {number}"
        try:
            image, box, is_crowd = annotation["image_id"], annotation["bbox"], annotation.get("iscrowd", 0)
        except (KeyError, TypeError, AttributeError) as error:
            raise fault(path, where, f"not an instance ({error!r})") from error
        if not is_crowd:
            keys = (names[image], str(image)) if image in names else (str(image),)
            yield _Row(where, tuple(dict.fromkeys(keys)), [_corners(_numbers(path, where, box))])


def _numbers(path: Path, where: str, box: Any) -> list[float]:
    try:
        numbers = [float(number) for number in box]
    except (TypeError, ValueError) as error:
        raise fault(path, where, f"{box!r} is not a box of four numbers") from error
    if len(numbers) != 4:
        raise fault(path, where, f"{box!r} is not a box of four numbers")
    return numbers


def _corners(box: list[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y + height]


def _check(path: Path, where: str, boxes: list[list[float]]) -> None:
    for box in boxes:
        x1, y1, x2, y2 = box
        if not (all(map(math.isfinite, box)) and x1 <= x2 and y1 <= y2):
            raise fault(path, where, f"{box} is not x1,y1,x2,y2 with x1 <= x2 and y1 <= y2")
