"""The narration of each video, from whatever files a dataset has it in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from vlprep.datasets.items import Item, stem_of, video_source_id
from vlprep.datasets.join import composed
from vlprep.datasets.narration import Narration, Segment, read_one_video
from vlprep.errors import ItemError, SettingsError

_LANGUAGE = re.compile(r"(.+)\.([a-z]{2,3}(?:-[A-Za-z0-9]+)*)")


def names_of(video: Item) -> tuple[str, ...]:
    """What a narration file may call the video: its own id, its file name or its path, with or without the suffix."""
    path = composed(video.id)
    name = path.rpartition("/")[2]
    own = () if video.source_id is None else (composed(video.source_id),)
    return tuple(dict.fromkeys((*own, stem_of(name), name, _without_suffix(path), path)))


def _without_suffix(path: str) -> str:
    return os.path.splitext(composed(path))[0]


class NarratedVideos:
    """Narration files, opened once.

    A video's segments all come from one file, the first that has it: tables in the order given, then the file of its
    own; there, one without a language before English before others, `.vtt` before `.srt`.
    """

    def __init__(
        self, root: Path, tables: Mapping[str, Narration], one_video: Iterable[str], videos: Iterable[Item]
    ) -> None:
        """Paths of `tables` and `one_video` are below `root`."""
        self._root = root
        self._tables = {
            path: ({composed(video): video for video in table.ids}, table) for path, table in tables.items()
        }
        self._own_files = _by_video(one_video, frozenset(_without_suffix(video.id) for video in videos))

    def files_of(self, video: Item) -> tuple[str, ...]:
        """Every narration file that has the video; the first is the one used."""
        names = names_of(video)
        tables = [path for path, (ids, _) in self._tables.items() if any(name in ids for name in names)]
        # A file beside the video goes before one of that name elsewhere.
        own = next((self._own_files[n] for n in (_without_suffix(video.id), *names) if n in self._own_files), [])
        return (*tables, *own)

    def segments_of(self, video: Item) -> list[Segment]:
        """The segments as the file has them; none where no file has the video.

        Raises:
            SettingsError: a table's entry for the video is damaged.
            ItemError: the video's own narration file is damaged.
        """
        for path in self.files_of(video)[:1]:
            if path in self._tables:
                ids, table = self._tables[path]
                return table.segments(next(ids[name] for name in names_of(video) if name in ids))
            try:
                return read_one_video(self._root / path, video.source_id or video.id)
            except SettingsError as error:
                raise ItemError(str(error)) from error
        return []

    def without_video(self, videos: Iterable[Item]) -> list[str]:
        """Names under which there is narration, but no video."""
        known = {name for video in videos for name in names_of(video)}
        listed = {name for ids, _ in self._tables.values() for name in ids}
        return sorted((listed | self._own_files.keys()) - known)


def _by_video(paths: Iterable[str], item_stems: frozenset[str]) -> dict[str, list[str]]:
    """Narration files by what they are named after: the path of the video beside them, else the video's bare name."""
    ranked: dict[str, list[tuple[int, bool, str]]] = {}
    for path in paths:
        stem, suffix = os.path.splitext(composed(path))
        language = ""
        if stem not in item_stems and (match := _LANGUAGE.fullmatch(stem)):
            stem, language = match.groups()
        if stem not in item_stems:
            stem = video_source_id(stem.rpartition("/")[2])
        rank = 0 if not language else 1 if language.split("-")[0] == "en" else 2
        ranked.setdefault(stem, []).append((rank, suffix.lower() != ".vtt", path))
    return {stem: [path for *_, path in sorted(files)] for stem, files in ranked.items()}
