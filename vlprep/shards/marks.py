"""`part-N.json`, the commit mark: a part without a valid mark does not exist."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Why an item has no row, where there is no exception to show (a worker that died of it, say)."""

    error: str
    """A class of errors, such as an exception's name."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A planned item without a row."""

    id: str
    error: str
    message: str
    part: int
    attempt: int
    """1 in its first part, counted up by `--retry-failed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What is known of a committed part without opening it."""

    part: int
    rows: int
    bytes: int
    sha256: str
    seconds: float
    stats: Mapping[str, float] = field(default_factory=dict)
    failures: tuple[Failure, ...]
    batches: tuple[int, ...]
    """Rows of each record batch."""
    lengths: tuple[int, ...]
    """Length of each row's lists (regions, clips or tokens), so that batches are planned without reading data."""


def encode_mark(mark: Mark) -> bytes:
    """One line a key: lengths are long."""
    lines = (f" {json.dumps(key)}: {_json(value)}" for key, value in asdict(mark).items())
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode("utf-8", "backslashreplace")


def decode_mark(data: bytes) -> Mark:
    """Raises `ValueError` if the mark is torn or of another make."""
    try:
        values = json.loads(data)
        values["failures"] = tuple(Failure(**failure) for failure in values["failures"])
        values["batches"], values["lengths"] = tuple(values["batches"]), tuple(values["lengths"])
        return Mark(**values)
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a commit mark: {error}") from error


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def part_path(folder: Path, part: int) -> Path:
    return folder / f"part-{part:05d}.arrow"


def mark_path(folder: Path, part: int) -> Path:
    return folder / f"part-{part:05d}.json"


def read_mark(folder: Path, part: int) -> Mark | None:
    """The mark of a committed part; None if there is none, if it is torn, or if its part is not there in full size."""
    try:
        mark = decode_mark(mark_path(folder, part).read_bytes())
        whole = part_path(folder, part).stat().st_size == mark.bytes
    except (FileNotFoundError, ValueError):
        return None
    return mark if whole else None


def numbered(folder: Path, suffix: str) -> list[int]:
    """Numbers of the parts that have a file of this suffix (`.arrow` or `.json`)."""
    names = (re.fullmatch(rf"part-(\d{{5,}}){re.escape(suffix)}", path.name) for path in folder.glob(f"part-*{suffix}"))
    return sorted(int(name[1]) for name in names if name)


def read_marks(folder: Path) -> dict[int, Mark]:
    """All committed parts, in order."""
    marks = ((part, read_mark(folder, part)) for part in numbered(folder, ".json"))
    return {part: mark for part, mark in marks if mark is not None}
