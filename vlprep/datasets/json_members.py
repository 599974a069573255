"""Find the members of a large JSON object without keeping them.

HowTo100M's `caption.json` and `raw_caption.json` are single objects of more than a gigabyte. Parsed whole they fill
many times that in memory; here the file is passed once in blocks, and of each member only its place is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from vlprep.datasets.records import fault
from vlprep.errors import SettingsError

_BLOCK_CHARACTERS = 1 << 22
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class Place(NamedTuple):
    """Where a member's value stands in the file, in bytes."""

    start: int
    length: int


def index_members(path: Path) -> dict[str, Place]:
    """The place of each member's value; of a name that comes twice, the last.

    Raises:
        SettingsError: the file is not one JSON object.
    """
    try:
        return dict(_members(path))
    except (UnicodeDecodeError, RecursionError) as error:
        raise fault(path, "not valid JSON", str(error)) from error
    except OSError as error:
        raise fault(path, "not readable", error.strerror or type(error).__name__) from error


def read_member(path: Path, place: Place) -> Any:
    """The value at a place that `index_members` gave."""
    with path.open("rb") as file:
        file.seek(place.start)
        return json.loads(file.read(place.length))


def _members(path: Path) -> Iterator[tuple[str, Place]]:
    with path.open("rb") as file:
        mark = 3 if file.read(3) == b"\xef\xbb\xbf" else 0
    with path.open(encoding="utf-8-sig", newline="") as text:
        scanner = _Scanner(path, text, mark)
        scanner.take("{")
        while scanner.next_character() != "}":
            name, _ = scanner.value()
            if not isinstance(name, str):
                raise scanner.fault("a member's name is not a text")
            scanner.take(":")
            yield name, scanner.value()[1]
            if scanner.next_character() != "}":
                scanner.take(",")
        scanner.take("}")
        if scanner.next_character():
            raise scanner.fault("text after the end")


class _Scanner:
    """A window on the file that moves on as it is used up."""

    def __init__(self, path: Path, file: TextIO, offset: int) -> None:
        self._path = path
        self._file = file
        self._window = ""
        self._position = 0
        self._offset = offset  # of the position, in bytes of the file

    def next_character(self) -> str:
        """The next one that is not white space, left in place; empty at the end of the file."""
        while True:
            space = _SPACE.match(self._window, self._position)
            self._move_to(space.end() if space else self._position)
            if self._position < len(self._window):
                return self._window[self._position]
            if not self._read_on():
                return ""

    def take(self, character: str) -> None:
        if self.next_character() != character:
            raise self.fault(f"expected {character!r}")
        self._move_to(self._position + 1)

    def value(self) -> tuple[Any, Place]:
        self.next_character()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._window, self._position)
            except ValueError as error:
                if not self._read_on():
                    raise self.fault(str(error)) from error
                continue
            # A number that ends with the window may go on behind it.
            if end < len(self._window) or not self._read_on():
                start = self._offset
                self._move_to(end)
                return value, Place(start, self._offset - start)

    def fault(self, reason: str) -> SettingsError:
        return fault(self._path, f"at byte {self._offset}", f"not valid JSON: {reason}")

    def _move_to(self, position: int) -> None:
        passed = self._window[self._position : position]
        self._offset += len(passed) if passed.isascii() else len(passed.encode())
        self._position = position

    def _read_on(self) -> bool:
        # At least as much as is there already, so that one huge member is not scanned again for every block.
        block = self._file.read(max(_BLOCK_CHARACTERS, len(self._window) - self._position))
        self._window = self._window[self._position :] + block
        self._position = 0
        return bool(block)
