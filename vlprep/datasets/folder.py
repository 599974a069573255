"""One walk over a dataset folder: which images, videos and possible annotation files lie in it.

Nothing is opened. Hidden files and folders and every folder named `vlprep` (where the stores are written) are passed
over. A folder that is named like a picture or a video is listed, so that it shows up as a failure, and also searched.
Links to files are items; links to folders are followed, each real folder being searched once, under its own name
rather than a link's.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vlprep.datasets.items import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vlprep.errors import SettingsError

OUTPUT_FOLDER = "vlprep"
ANNOTATION_SUFFIXES = frozenset(
    (".json", ".jsonl", ".csv", ".tsv", ".token", ".txt", ".pickle", ".pkl", ".srt", ".vtt")
)


@dataclass(slots=True)
class Listing:
    """Paths below the folder, with `/` between their parts, each list sorted."""

    images: list[str] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)
    annotations: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Folders that could not be searched, with the reason."""


def list_folder(root: Path) -> Listing:
    """Walk `root`.

    Raises:
        SettingsError: `root` is not a folder that can be listed.
    """
    listing = Listing()
    searched: set[tuple[int, int]] = set()
    folders, links = [""], list[str]()
    while folders or links:
        folder = folders.pop() if folders else heapq.heappop(links)
        try:
            status = os.stat(root / folder)
            if (status.st_dev, status.st_ino) in searched:
                continue
            searched.add((status.st_dev, status.st_ino))
            entries = list(_visible(root / folder))
        except OSError as error:
            if not folder:
                raise SettingsError(f"{root}: cannot be used as a dataset folder: {error.strerror}") from error
            listing.unreadable[folder] = error.strerror or type(error).__name__
            continue
        for entry, is_folder in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            _file_under_suffix(listing, path, is_folder)
            if is_folder and entry.is_symlink():
                heapq.heappush(links, path)
            elif is_folder:
                folders.append(path)
    for paths in (listing.images, listing.videos, listing.annotations):
        paths.sort()
    return listing


def _visible(folder: Path) -> Iterator[tuple[os.DirEntry[str], bool]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link in a circle: as a file it fails with its own reason when it is read
                is_folder = False
            if not (is_folder and entry.name == OUTPUT_FOLDER):
                yield entry, is_folder


def _file_under_suffix(listing: Listing, path: str, is_folder: bool) -> None:
    suffix = os.path.splitext(path)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        listing.images.append(path)
    elif suffix in VIDEO_SUFFIXES:
        listing.videos.append(path)
    elif suffix in ANNOTATION_SUFFIXES and not is_folder:
        listing.annotations.append(path)
