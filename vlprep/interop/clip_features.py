"""Features of whole clips as retrieval benchmarks publish them (howto100m and UniVL, for YouCook2, MSR-VTT and LSMDC).

| form | a clip | what it is of |
| --- | --- | --- |
| pickle of a list of `{"2d", "3d", "caption", "id"}` | max-pooled, (D,) | howto100m `youcook_val.pkl` |
| `{"2d": {id: array}, "3d": {id: array}}`, by torch | max-pooled, (D,) | howto100m `MSRVTT_*.pth` |
| pickle of `{id: array}` | one feature a second, (T, D) | UniVL `*_videos_features.pickle` |

howto100m youcook_dataloader.py:23-68, msrvtt_dataloader.py:24-70; UniVL dataloaders/README.md. A pooled clip becomes
one row, from 0 to 1 seconds.

Shape suffixes: T rows of a clip, D feature size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlprep.errors import SettingsError
from vlprep.weights import read_plain

STREAMS = ("2d", "3d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A clip, or a video, with its features by every encoder."""

    id: str
    """Unique in the file."""
    video: str
    """What captions call it; the file may have several clips of one video."""
    features_TD: tuple[NDArray[Any], ...]
    caption: str | None = None
    """Where the file has it."""


def read_clip_features(path: Path) -> list[Clip]:
    """All clips of a file, each with as many arrays. Raises `SettingsError` for a file of another form."""
    if not path.is_file():
        raise SettingsError(f"{path}: no such file")
    content = read_plain(path)
    if isinstance(content, Sequence) and content and isinstance(content[0], Mapping):
        clips = list(_from_list(path, content))
    elif isinstance(content, Mapping) and all(isinstance(content.get(stream), Mapping) for stream in STREAMS):
        clips = [
            Clip(id=str(name), video=str(name), features_TD=tuple(_rows(path, content[s].get(name)) for s in STREAMS))
            for name in content[STREAMS[0]]
        ]
    elif isinstance(content, Mapping) and content:
        clips = [
            Clip(id=str(name), video=str(name), features_TD=(_rows(path, array),)) for name, array in content.items()
        ]
    else:
        clips = []
    if not clips:
        raise SettingsError(
            f"{path}: not features of clips; expected a pickle of entries with 2d, 3d and caption (howto100m), a torch"
            " file of 2d and 3d by id (howto100m's MSR-VTT) or a pickle of arrays by id (UniVL)"
        )
    sizes = {tuple(rows.shape[1] for rows in clip.features_TD) for clip in clips}
    if len(sizes) > 1:
        raise SettingsError(f"{path}: clips have features of different sizes: {sorted(sizes)}")
    return clips


def _from_list(path: Path, entries: Sequence[Mapping[str, Any]]) -> Iterator[Clip]:
    for number, entry in enumerate(entries):
        if missing := {*STREAMS, "caption", "id"} - entry.keys():
            raise SettingsError(f"{path}: entry {number} has no {', '.join(sorted(missing))}")
        yield Clip(
            id=f"{entry['id']}#{number}",
            video=str(entry["id"]),
            features_TD=tuple(_rows(path, entry[stream]) for stream in STREAMS),
            caption=str(entry["caption"]),
        )


def _rows(path: Path, value: Any) -> NDArray[Any]:
    array = np.asarray(value) if value is not None else np.empty(0)
    rows = array[None] if array.ndim == 1 else array
    if rows.ndim != 2 or rows.dtype.kind != "f" or not rows.size:
        raise SettingsError(f"{path}: a clip with {array.dtype} {array.shape} is not one of features (T, D) or (D,)")
    return rows
