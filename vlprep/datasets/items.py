"""What counts as an image or a video, and what it is called.

An item's id is its path below the dataset folder, suffix included, with `/` between folders: unique, and no file that
comes later changes it. Many datasets have ids of their own besides, to which captions, narration and boxes refer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
)
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp")
)

# COCO 2014 writes COCO_train2014_000000132417.jpg, COCO 2017 writes 000000132417.jpg; both mean image 132417.
_COCO_STEM = re.compile(r"(?:COCO_\w+_)?(\d{12})", re.ASCII)
# A YouTube id with what downloaders leave behind it: ID.mp4.webm, ID.f137.mp4.
_YOUTUBE_STEM = re.compile(r"([\w-]{11})(?:\.(?:f\d+|\w{2,4}))*", re.ASCII)
# yt-dlp's default name: Title [ID].mp4
_YT_DLP_STEM = re.compile(r".*\[([\w-]{11})\]", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Item:
    """An image or a video of a dataset. The file may turn out to be missing or broken when it is read."""

    id: str
    path: Path
    source_id: str | None
    """The dataset's own id (COCO image id, YouTube id) where a name or an annotation file gives it; may repeat."""


def stem_of(name: str) -> str:
    """The last part of a path without its image or video suffix; other dots belong to the name."""
    last = PurePosixPath(name)
    return last.stem if last.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES else last.name


def image_source_id(name: str) -> str | None:
    """COCO's image id without leading zeros, from a file name in COCO's style; None for any other name."""
    match = _COCO_STEM.fullmatch(stem_of(name))
    return str(int(match[1])) if match else None


def video_source_id(name: str) -> str:
    """The YouTube id in a file name as downloaders write it; else the name without its suffix."""
    stem = stem_of(name)
    match = _YT_DLP_STEM.fullmatch(stem) or _YOUTUBE_STEM.fullmatch(stem)
    return match[1] if match else stem
