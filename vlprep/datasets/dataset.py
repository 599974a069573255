"""A user's folder as a dataset: its images and videos at once, its captions and narration when asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vlprep.datasets.annotations import Annotations, sort_annotations
from vlprep.datasets.folder import list_folder
from vlprep.datasets.items import Item, image_source_id, video_source_id
from vlprep.datasets.join import ItemIndex, join_captions
from vlprep.datasets.narrated import NarratedVideos
from vlprep.datasets.narration import Segment, usable
from vlprep.datasets.source_ids import coco_names, video_names, with_source_ids


@dataclass(frozen=True)
class Dataset:
    """What a folder holds. Captions and narration are read when they are first asked for, and kept."""

    root: Path
    images: tuple[Item, ...]
    """Sorted by id, as `videos` and `items` are."""
    videos: tuple[Item, ...]
    annotation_paths: tuple[str, ...]
    """Files that may hold captions, narration or boxes, below `root`."""
    unreadable: Mapping[str, str]
    """Folders that could not be searched, below `root`, with the reason."""

    @cached_property
    def items(self) -> tuple[Item, ...]:
        return tuple(sorted((*self.images, *self.videos), key=lambda item: item.id))

    @cached_property
    def annotations(self) -> Annotations:
        """The annotation files, sorted by what they are."""
        stems = frozenset(os.path.splitext(item.id)[0] for item in (*self.images, *self.videos))
        return sort_annotations(self.root, self.annotation_paths, stems)

    def captions_of(self, item: Item) -> tuple[str, ...]:
        """The captions of an image or video in the order of the files, each text once.

        Raises:
            SettingsError: a caption file is damaged, or called captions and of no known format.
        """
        return tuple(self._captions.get(item.id, ()))

    def answers_of(self, item: Item) -> Mapping[str, Mapping[str, float]]:
        """Of those of its captions that are questions: how right each answer is (LXMERT's files have such)."""
        return {text: answers for text, answers in self._captions.get(item.id, {}).items() if answers}

    def narration_of(self, video: Item) -> tuple[Segment, ...]:
        """The usable segments of a video by start time (see `vlprep.datasets.narration.usable`).

        Raises:
            SettingsError: a narration file of several videos is damaged, or of no known format.
            ItemError: the video's own narration file is damaged.
        """
        return usable(self.narrated.segments_of(video))

    @cached_property
    def index(self) -> ItemIndex:
        return ItemIndex(self.items)

    @cached_property
    def narrated(self) -> NarratedVideos:
        """The narration files, opened."""
        self.annotations.refuse_unknown_captions(self.root)
        tables = {name: form.open(self.root / name) for name, form in self.annotations.narration}
        return NarratedVideos(self.root, tables, self.annotations.one_video, self.videos)

    @cached_property
    def _captions(self) -> dict[str, dict[str, Mapping[str, float]]]:
        """By item, each text once with its answers, in the order of the files."""
        self.annotations.refuse_unknown_captions(self.root)
        captions: dict[str, dict[str, Mapping[str, float]]] = {}
        for name, form in self.annotations.captions:
            joined = join_captions(form.read(self.root / name), self.index)
            for item_id, lines in joined.texts.items():
                known, answers = captions.setdefault(item_id, {}), joined.answers.get(item_id, {})
                for line in lines:
                    known[line] = answers.get(line) or known.get(line, {})
        return captions


def open_dataset(folder: Path) -> Dataset:
    """List a folder of images, videos or both, at any depth. No picture is opened, no caption read.

    Raises:
        SettingsError: `folder` is not a folder that can be listed.
    """
    listing = list_folder(folder)
    images = tuple(Item(_valid(path), folder / path, image_source_id(path)) for path in listing.images)
    videos = tuple(Item(_valid(path), folder / path, video_source_id(path)) for path in listing.videos)
    if any(image.source_id is None for image in images):
        images = with_source_ids(images, coco_names(folder, listing.annotations))
    return Dataset(
        root=folder,
        images=images,
        videos=with_source_ids(videos, video_names(folder, listing.annotations)),
        annotation_paths=tuple(listing.annotations),
        unreadable=listing.unreadable,
    )


def _valid(path: str) -> str:
    """The path as an id. A name that is not UTF-8 on disk cannot be stored: its odd bytes become `\\xNN`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
