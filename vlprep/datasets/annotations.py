"""Which of a folder's files are captions, narration, boxes or lists of videos, told by their beginnings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from vlprep.datasets.captions import CAPTION_FORMATS, CaptionFormat
from vlprep.datasets.narration import NARRATION_FORMATS, NarrationFormat, is_one_video
from vlprep.datasets.records import Head, read_head
from vlprep.errors import SettingsError

# What yt-dlp writes beside a video for its own use.
_DOWNLOADER_FILES = (".info.json", ".live_chat.json")


@dataclass(slots=True)
class Annotations:
    """The annotation files of a dataset, in the order in which they are consulted. Paths are below its folder."""

    captions: list[tuple[str, CaptionFormat]] = field(default_factory=list)
    narration: list[tuple[str, NarrationFormat]] = field(default_factory=list)
    one_video: list[str] = field(default_factory=list)
    """Narration files that belong to one video each, after which they are named."""
    boxes: list[str] = field(default_factory=list)
    video_lists: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)

    def refuse_unknown_captions(self, root: Path) -> None:
        """Raise SettingsError for a file that is called captions and is of no known format: none is passed over."""
        for name in self.unknown:
            if "caption" in os.path.basename(name).lower() and not name.endswith((".txt", ".tsv")):
                accepted = ", ".join(form.name for form in (*CAPTION_FORMATS, *NARRATION_FORMATS))
                raise SettingsError(
                    f"{root / name}: called captions, but of none of the known formats ({accepted});"
                    " convert it, for instance to a CSV with the columns image,caption, or rename it"
                )
        for reason in self.unreadable.values():
            raise SettingsError(reason)


def sort_annotations(root: Path, names: Iterable[str], item_stems: frozenset[str]) -> Annotations:
    """Look into the beginning of each file. `item_stems`: paths of the items without suffix, below `root`.

    A `.json` or `.txt` named after an item (as img2dataset leaves them by the thousand) is that item's own and skipped.
    """
    found = Annotations()
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in (".json", ".txt") and stem in item_stems:
            continue
        if suffix.lower() in (".srt", ".vtt"):
            found.one_video.append(name)
        elif not name.lower().endswith(_DOWNLOADER_FILES):
            _sort_by_head(found, name, root / name)
    # Whole sentences before HowTo100M's caption.json, from which stop words were removed.
    found.narration.sort(key=lambda entry: ("raw" not in os.path.basename(entry[0]), entry[0]))
    return found


def _sort_by_head(found: Annotations, name: str, path: Path) -> None:
    try:
        head = read_head(path)
    except SettingsError as error:
        found.unreadable[name] = str(error)
        return
    if narration := next((form for form in NARRATION_FORMATS if form.fits(head)), None):
        found.narration.append((name, narration))
    elif is_one_video(head):
        found.one_video.append(name)
    elif captions := next((form for form in CAPTION_FORMATS if form.fits(head)), None):
        found.captions.append((name, captions))
    elif _is_video_list(head):
        found.video_lists.append(name)
    elif _holds_boxes(head):
        found.boxes.append(name)
    else:
        found.unknown.append(name)


def _is_video_list(head: Head) -> bool:
    return head.suffix in (".csv", ".tsv") and bool(head.columns & {"video_id", "video_path"})


def _holds_boxes(head: Head) -> bool:
    if head.suffix == ".json":
        return head.path.name.startswith("instances_") or re.search(r'"bbox"\s*:', head.text) is not None
    return "boxes" in head.columns or head.columns >= {"x1", "y1", "x2", "y2"}
