"""Subtitles (SubRip `.srt`, WebVTT `.vtt`) as timed lines.

YouTube's automatic captions roll: each cue repeats the line before it, and cues of 10 ms hold a line in place while it
moves up, so that plain concatenation gives every line two or three times (yt-dlp leaves them so, in `.vtt` and in
`.srt` converted from it). A file rolls if a cue has word times, or one of at most 20 ms holds lines of the cue before.
There, the leading lines of a cue that repeat the closing lines of the cue before are dropped; in all other files a
repeated line is a repeated line.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from vlprep.datasets.records import fault
from vlprep.errors import SettingsError

_TIMES = re.compile(r"\s*((?:\d+:)?\d{1,2}:\d{1,2}[.,]\d{1,3})\s*-->\s*((?:\d+:)?\d{1,2}:\d{1,2}[.,]\d{1,3})(?:\s|$)")
_WORD_TIME = re.compile(r"<(?:\d+:)?\d\d:\d\d\.\d{3}>")
_MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")
_HELD_SECONDS = 0.02


@dataclass(slots=True)
class _Cue:
    start: float
    end: float
    lines: list[str] = field(default_factory=list)
    has_word_times: bool = False


def read_subtitles(path: Path) -> list[tuple[float, float, str]]:
    """(start, end, text) of each cue that says something new, in seconds, in file order.

    Raises:
        SettingsError: the file is not UTF-8 text, or has text but not one cue.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise fault(path, "subtitles", "not UTF-8 text; convert them with iconv") from error
    except OSError as error:
        raise SettingsError(f"{path}: not readable: {error.strerror}") from error
    cues = list(_cues(lines))
    if not cues and any(line.strip() and not line.startswith("WEBVTT") for line in lines):
        raise fault(path, "subtitles", "no cue (`00:01.000 --> 00:02.000`) in it")
    texts = _new_lines(cues) if _rolls(cues) else (cue.lines for cue in cues)
    joined = ((cue, " ".join(new)) for cue, new in zip(cues, texts, strict=True))
    return [(cue.start, cue.end, text) for cue, text in joined if text]


def _cues(lines: list[str]) -> Iterator[_Cue]:
    cue: _Cue | None = None
    for line in lines:
        if times := _TIMES.match(line):
            if cue:
                yield cue
            cue = _Cue(_seconds(times[1]), _seconds(times[2]))
        elif not line:  # YouTube keeps its empty lines inside a cue by a blank, so only a truly empty line ends one
            if cue:
                yield cue
            cue = None
        elif cue:
            cue.has_word_times |= bool(_WORD_TIME.search(line))
            if text := _plain(line):
                cue.lines.append(text)
    if cue:
        yield cue


def _rolls(cues: list[_Cue]) -> bool:
    held = (
        now.end - now.start <= _HELD_SECONDS and now.lines != [] and now.lines == before.lines[-len(now.lines) :]
        for before, now in pairwise(cues)
    )
    return any(cue.has_word_times for cue in cues) or any(held)


def _new_lines(cues: list[_Cue]) -> Iterator[list[str]]:
    shown: list[str] = []
    for cue in cues:
        most = min(len(shown), len(cue.lines))
        repeated = next((n for n in range(most, 0, -1) if shown[-n:] == cue.lines[:n]), 0)
        yield cue.lines[repeated:]
        shown = cue.lines


def _plain(line: str) -> str:
    return " ".join(html.unescape(_MARKUP.sub("", line)).replace("\u200b", "").split())


def _seconds(clock: str) -> float:
    seconds = 0.0
    for part in clock.replace(",", ".").split(":"):
        seconds = seconds * 60 + float(part)
    return round(seconds, 3)
