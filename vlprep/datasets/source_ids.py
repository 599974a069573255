"""Ids that a dataset gives its files in a list, where the file names do not show them.

Looked up when a folder is opened, so only where such lists are known to be: the official names of COCO's and
HowTo100M's files. A damaged list gives no ids here; it is reported when its contents are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from vlprep.datasets.items import Item, video_source_id
from vlprep.datasets.join import ItemIndex
from vlprep.datasets.records import fault, read_json, read_records
from vlprep.errors import SettingsError


def coco_names(root: Path, annotations: Iterable[str]) -> list[tuple[str, str]]:
    """(file name, image id) by `annotations/captions_*.json`, or where there are none by `instances_*.json`."""
    names = [PurePosixPath(path) for path in annotations if path.endswith(".json")]
    coco = [path for path in names if path.parent.name == "annotations"]
    captions = [path for path in coco if path.name.startswith("captions")]
    instances = [path for path in coco if path.name.startswith("instances")]
    found: list[tuple[str, str]] = []
    for path in captions or instances:
        with suppress(SettingsError):
            found += _coco_image_ids(root / path)
    return found


def video_names(root: Path, annotations: Iterable[str]) -> list[tuple[str, str]]:
    """(path, video id) by a CSV called after HowTo100M that has both."""
    found: list[tuple[str, str]] = []
    for path in annotations:
        if "howto100m" in path.rpartition("/")[2].lower() and path.endswith(".csv"):
            with suppress(SettingsError):
                found += ((place, video) for video, place in read_video_list(root / path).items() if place)
    return found


def _coco_image_ids(path: Path) -> list[tuple[str, str]]:
    data = read_json(path)
    try:
        return [(str(image["file_name"]), str(image["id"])) for image in data["images"]]
    except (KeyError, TypeError) as error:
        raise fault(path, "images", f"not as COCO writes them ({error!r})") from error


def read_video_list(path: Path) -> Mapping[str, str | None]:
    """Ids of the listed videos, and the path that the list gives for each, if any.

    HowTo100M's `HowTo100M_v1.csv` (`video_id`, …, `rank`, `task_id`; antoine77340/howto100m adds `path`, written after
    a blank) and UniVL's lists have a column `video_id`; MIL-NCE's `howto100m_videos.csv` has `video_path` alone, where
    the id is the name before its first dot.

    Raises:
        SettingsError: a row names no video.
    """
    paths: dict[str, str | None] = {}
    for where, values in read_records(path):
        place = (values.get("path") or values.get("video_path") or "").strip() or None
        video = (values.get("video_id") or "").strip() or (video_source_id(place) if place else "")
        if not video:
            raise fault(path, where, "names no video in video_id or video_path")
        paths[video] = place
    return paths


def with_source_ids(items: Iterable[Item], names: Iterable[tuple[str, str]]) -> tuple[Item, ...]:
    """The items, with the ids that (name or path, id) pairs give them. A name that could mean two items gives none."""
    items = tuple(items)
    names = list(names)
    if not names:
        return items
    index = ItemIndex(items)
    given: dict[str, set[str]] = {}
    for name, source_id in names:
        if match := index.find((name,)):
            given.setdefault(match.item.id, set()).add(source_id)
    return tuple(
        replace(item, source_id=next(iter(given[item.id]))) if len(given.get(item.id, ())) == 1 else item
        for item in items
    )
