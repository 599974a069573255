"""What a dataset folder holds, what is missing in it and what is doubled (`vlprep datasets inspect DIR`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from vlprep.datasets.dataset import Dataset, open_dataset
from vlprep.datasets.join import join_captions
from vlprep.datasets.narrated import NarratedVideos, names_of
from vlprep.datasets.narration import Narration, Segment, usable
from vlprep.datasets.source_ids import read_video_list
from vlprep.errors import ItemError, SettingsError

_EXAMPLES = 5


@dataclass(slots=True)
class Finding:
    """Something to look at: how often, and the first few cases."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            # JSON may hold halves of surrogate pairs, which no terminal and no UTF-8 file takes
            self.examples.append(example.encode(errors="backslashreplace").decode())

    def extend(self, examples: Iterable[str]) -> None:
        for example in examples:
            self.add(example)


@dataclass(slots=True)
class AnnotationFile:
    """One recognised file, or all files of one suffix that belong to a video each."""

    path: str
    format: str
    entries: int
    """Captions, segments or listed videos."""
    items: int
    """Images or videos of the folder that the file has something for."""


@dataclass(slots=True, kw_only=True)
class Inspection:
    """Counts and findings, ready for JSON by `as_json`."""

    root: str
    images: int
    videos: int
    captions: int = 0
    """Different captions, given to the items that they belong to."""
    segments: int = 0
    """Usable segments of narration, given to their videos."""
    files: list[AnnotationFile] = field(default_factory=list)
    boxes: list[str] = field(default_factory=list)
    """Files with boxes, for `--given-boxes`; not read."""
    not_recognised: Finding = field(default_factory=Finding)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Annotation files and folders that could not be read, with the reason."""
    images_without_caption: Finding = field(default_factory=Finding)
    captions_without_item: Finding = field(default_factory=Finding)
    captions_ambiguous: Finding = field(default_factory=Finding)
    """Names of a caption file that several items might have; none gets these captions."""
    captions_contested: Finding = field(default_factory=Finding)
    """Items that two names of a caption file could mean; they get none of these captions."""
    captions_doubled: Finding = field(default_factory=Finding)
    """The same text twice for one item; it is used once."""
    source_ids_doubled: Finding = field(default_factory=Finding)
    """The dataset's own id on more than one item."""
    videos_without_narration: Finding = field(default_factory=Finding)
    narration_without_video: Finding = field(default_factory=Finding)
    narration_doubled: Finding = field(default_factory=Finding)
    """Videos with several narration files, of which one is used."""
    segments_out_of_order: Finding = field(default_factory=Finding)
    segments_overlapping: Finding = field(default_factory=Finding)
    segments_out_of_bounds: Finding = field(default_factory=Finding)
    """Without text, ending before they start, or with a negative time; they are dropped, a negative start becomes 0."""
    listed_videos_missing: Finding = field(default_factory=Finding)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def inspect(folder: Path) -> Inspection:
    """Read all annotations of a folder and say what is there. Damaged files are reported, not raised.

    Raises:
        SettingsError: `folder` is not a folder that can be listed.
    """
    dataset = open_dataset(folder)
    found = Inspection(root=str(folder), images=len(dataset.images), videos=len(dataset.videos))
    found.boxes = list(dataset.annotations.boxes)
    found.not_recognised.extend(dataset.annotations.unknown)
    found.unreadable = {**dataset.unreadable, **dataset.annotations.unreadable}
    found.source_ids_doubled.extend(_doubled_ids(dataset))
    _inspect_captions(dataset, found)
    _inspect_narration(dataset, found)
    _inspect_video_lists(dataset, found)
    return found


def _doubled_ids(dataset: Dataset) -> list[str]:
    times = Counter(item.source_id for item in dataset.items if item.source_id is not None)
    return sorted(source_id for source_id, count in times.items() if count > 1)


def _inspect_captions(dataset: Dataset, found: Inspection) -> None:
    texts: dict[str, set[str]] = {}
    for name, form in dataset.annotations.captions:
        try:
            joined = join_captions(form.read(dataset.root / name), dataset.index)
        except SettingsError as error:
            found.unreadable[name] = str(error)
            continue
        found.files.append(AnnotationFile(name, form.name, joined.rows, len(joined.texts)))
        found.captions_without_item.extend(joined.unmatched)
        found.captions_ambiguous.extend(joined.ambiguous)
        found.captions_contested.extend(sorted(joined.contested))
        for item_id, lines in joined.texts.items():
            known = texts.setdefault(item_id, set())
            for line in lines:
                if line in known:
                    found.captions_doubled.add(f"{item_id}: {line}")
                known.add(line)
    found.captions = sum(map(len, texts.values()))
    found.images_without_caption.extend(image.id for image in dataset.images if image.id not in texts)


def _inspect_narration(dataset: Dataset, found: Inspection) -> None:
    narrated = NarratedVideos(
        dataset.root, _readable_tables(dataset, found), dataset.annotations.one_video, dataset.videos
    )
    used: Counter[str] = Counter()
    segments_in: Counter[str] = Counter()
    for video in dataset.videos:
        files = narrated.files_of(video)
        if len(files) > 1:
            found.narration_doubled.add(f"{video.id}: {', '.join(files)}")
        try:
            segments = narrated.segments_of(video)
        except (ItemError, SettingsError) as error:
            found.unreadable[files[0]] = str(error)
            continue
        _inspect_segments(video.id, segments, found)
        if segments:
            used[files[0]] += 1
            segments_in[files[0]] += len(segments)
        else:
            found.videos_without_narration.add(video.id)
    found.narration_without_video.extend(narrated.without_video(dataset.videos))
    formats = {name: form.name for name, form in dataset.annotations.narration}
    found.files += [AnnotationFile(name, form, segments_in[name], used[name]) for name, form in formats.items()]
    by_suffix = Counter(PurePosixPath(name).suffix.lower() for name in dataset.annotations.one_video)
    for suffix, count in sorted(by_suffix.items()):
        own = [name for name in used if name not in formats and PurePosixPath(name).suffix.lower() == suffix]
        entries = sum(segments_in[name] for name in own)
        found.files.append(AnnotationFile(f"{count} x *{suffix}", "a file for each video", entries, len(own)))


def _readable_tables(dataset: Dataset, found: Inspection) -> dict[str, Narration]:
    tables = {}
    for name, form in dataset.annotations.narration:
        try:
            tables[name] = form.open(dataset.root / name)
        except SettingsError as error:
            found.unreadable[name] = str(error)
    return tables


def _inspect_segments(video: str, segments: list[Segment], found: Inspection) -> None:
    found.segments += len(usable(segments))
    for segment in segments:
        if not (segment.text and 0 <= segment.start <= segment.end < math.inf):
            found.segments_out_of_bounds.add(f"{video}: {segment.start}-{segment.end} {segment.text!r}")
    for one, following in pairwise(segments):
        case = f"{video}: {one.start}-{one.end}, then {following.start}-{following.end}"
        if following.start < one.start:
            found.segments_out_of_order.add(case)
        elif following.start < one.end:
            found.segments_overlapping.add(case)


def _inspect_video_lists(dataset: Dataset, found: Inspection) -> None:
    present = {name for video in dataset.videos for name in names_of(video)}
    for name in dataset.annotations.video_lists:
        try:
            listed = read_video_list(dataset.root / name)
        except SettingsError as error:
            found.unreadable[name] = str(error)
            continue
        missing = [video for video in listed if video not in present]
        found.files.append(AnnotationFile(name, "list of videos", len(listed), len(listed) - len(missing)))
        found.listed_videos_missing.extend(missing)
