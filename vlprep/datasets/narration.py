"""Narration files: what is said in a video, when.

| format | where it comes from |
| --- | --- |
| HowTo100M | `caption.json`, `raw_caption.json`: `{video: {"start": […], "end": […], "text": […]}}` |
| pickles | the same dictionary with lists or arrays (HowTo100M's `caption.pickle`, UniVL's `youcookii_data.pickle`) |
| segments | CSV, TSV or JSON lines with `video_id`, `start`, `end`, `text` (YouCook2) |
| one file a video | CSV with `start`, `end`, `text` (MIL-NCE's `howto100m_captions`), `.srt` and `.vtt` |

Times are seconds. Published captions overlap and are not always in order: `usable` says what is kept of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlprep import safe_pickle
from vlprep.datasets.json_members import index_members, read_member
from vlprep.datasets.records import Head, fault, read_head, read_records, text_of
from vlprep.datasets.subtitles import read_subtitles

_TIMES = frozenset(("start", "end"))
_TEXTS = ("text", "sentence", "caption")
_VIDEO_COLUMNS = ("video_id", "video", "vid", "youtube_id")


@dataclass(frozen=True, slots=True)
class Segment:
    """Something said (or described) from `start` to `end`, in seconds."""

    source_id: str
    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Narration:
    """An open narration file: the ids of its videos, and their segments when asked for."""

    ids: Collection[str]
    segments: Callable[[str], list[Segment]]
    """As the file has them, for one of the ids. Raises SettingsError for a damaged entry."""


@dataclass(frozen=True, slots=True)
class NarrationFormat:
    name: str
    fits: Callable[[Head], bool]
    open: Callable[[Path], Narration]
    """Raises SettingsError naming the line where the file is not what its beginning promised."""


def usable(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Segments by start time, without those that are empty, end before they start, or lie before the video.

    A negative start becomes 0. Overlaps stay: HowTo100M's raw captions overlap by nature.
    """
    kept = (s for s in segments if s.text and s.end >= 0 and s.start <= s.end and math.isfinite(s.end - s.start))
    clipped = (s if s.start >= 0 else Segment(s.source_id, 0.0, s.end, s.text) for s in kept)
    return tuple(sorted(clipped, key=lambda segment: (segment.start, segment.end)))


def read_one_video(path: Path, source_id: str) -> list[Segment]:
    """The segments of a file that belongs to one video: subtitles, or MIL-NCE's CSV.

    Raises:
        SettingsError: the file is not what its suffix says.
    """
    if path.suffix.lower() in (".srt", ".vtt"):
        return [Segment(source_id, *cue) for cue in read_subtitles(path)]
    return [_segment(path, record.where, source_id, record.values) for record in read_records(path)]


def is_one_video(head: Head) -> bool:
    """Whether the file holds segments without saying of which video: it is then named after it."""
    return head.suffix in (".srt", ".vtt") or (_has_segments(head) and not head.columns & {*_VIDEO_COLUMNS})


def _has_segments(head: Head) -> bool:
    return head.columns >= _TIMES and bool(head.columns & {*_TEXTS})


def _fits_json(head: Head) -> bool:
    member = r'^\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\{\s*"(?:start|end|text)"\s*:\s*\['
    return head.suffix == ".json" and re.search(member, head.text) is not None


def _fits_pickle(head: Head) -> bool:
    # Feature files are pickles too, of any size, and only their names tell without reading them whole.
    return (
        head.suffix in (".pickle", ".pkl") and re.search("caption|data|transcript", head.path.stem.lower()) is not None
    )


def _fits_table(head: Head) -> bool:
    return _has_segments(head) and bool(head.columns & {*_VIDEO_COLUMNS})


def _open_json(path: Path) -> Narration:
    places = index_members(path)
    return Narration(places.keys(), lambda video: _from_lists(path, video, read_member(path, places[video])))


def _open_pickle(path: Path) -> Narration:
    videos = safe_pickle.load(path)
    if not isinstance(videos, dict) or not all(isinstance(video, str) for video in videos):
        raise fault(path, "not narration", "expected a dictionary by video id")
    return Narration(videos.keys(), lambda video: _from_lists(path, video, videos[video]))


def _open_table(path: Path) -> Narration:
    videos: dict[str, list[Segment]] = {}
    for record in read_records(path):
        video = next((str(record.values[name]).strip() for name in _VIDEO_COLUMNS if record.values.get(name)), "")
        if not video:
            raise fault(path, record.where, f"no video; expected one of {', '.join(_VIDEO_COLUMNS)}")
        videos.setdefault(video, []).append(_segment(path, record.where, video, record.values))
    return Narration(videos.keys(), videos.__getitem__)


def _segment(path: Path, where: str, source_id: str, values: dict[str, Any]) -> Segment:
    try:
        text = next(values[name] for name in _TEXTS if name in values)
        return Segment(source_id, float(values["start"]), float(values["end"]), text_of(text))
    except (KeyError, TypeError, ValueError, OverflowError, StopIteration) as error:
        raise fault(path, where, f"not a segment with start, end and text ({error!r})") from error


def _from_lists(path: Path, source_id: str, lists: Any) -> list[Segment]:
    """`lists` holds lists or arrays of equal length."""
    try:
        rows = zip(lists["start"], lists["end"], lists["text"], strict=True)
        return [Segment(source_id, float(start), float(end), text_of(text)) for start, end, text in rows]
    except (KeyError, TypeError, ValueError, OverflowError, IndexError) as error:
        raise fault(path, f"video {source_id}", f"not lists of start, end and text ({error!r})") from error


NARRATION_FORMATS = (
    NarrationFormat("HowTo100M narration", _fits_json, _open_json),
    NarrationFormat("pickled narration", _fits_pickle, _open_pickle),
    NarrationFormat("table of segments", _fits_table, _open_table),
)


def open_narration(path: Path) -> Narration | None:
    """A file of many videos' narration; None where it is of no format above."""
    head = read_head(path)
    fitting = next((format_ for format_ in NARRATION_FORMATS if format_.fits(head)), None)
    return fitting.open(path) if fitting else None
