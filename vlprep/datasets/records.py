"""Annotation files as plain records, with errors that name file and line.

CSV and TSV with a header, JSON lines, and a JSON list of objects all become the same thing: dictionaries by column
name, lower case. TSV is read as its writers mean it: a quotation mark is text, unless a whole field is quoted.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vlprep.errors import SettingsError

_HEAD_BYTES = 1 << 16


class Record(NamedTuple):
    where: str
    """`line 3` or `entry 3`, for messages."""
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a file: enough to tell its format."""

    path: Path
    text: str
    first_row: tuple[str, ...]
    """The fields of the first line of a CSV or TSV; the keys of the first object of JSON lines or a JSON list."""

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower()

    @property
    def columns(self) -> frozenset[str]:
        return frozenset(name.strip().lower() for name in self.first_row)


def fault(path: Path, where: str, reason: str) -> SettingsError:
    """What is wrong with an annotation file, where, and the way out."""
    return SettingsError(f"{path}: {where}: {reason}; repair the file or move it out of the dataset folder")


def read_head(path: Path) -> Head:
    """Raises SettingsError for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            text = file.read(_HEAD_BYTES).decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise fault(path, "not readable", error.strerror or type(error).__name__) from error
    try:
        return Head(path, text, _first_row(path.suffix.lower(), text))
    except RecursionError as error:
        raise fault(path, "not valid JSON", str(error)) from error


def _first_row(suffix: str, text: str) -> tuple[str, ...]:
    if suffix == ".csv":
        return tuple(next(csv.reader(io.StringIO(text.lstrip(), newline="")), ()))  # \r alone ends a line, too
    if suffix in (".json", ".jsonl"):
        try:
            first, _ = json.JSONDecoder().raw_decode(text.lstrip().removeprefix("[").lstrip())
        except ValueError:
            return ()
        is_record = suffix == ".jsonl" or text.lstrip().startswith("[")
        return tuple(first) if is_record and isinstance(first, dict) else ()
    line = text.lstrip().partition("\n")[0].rstrip("\r")
    return tuple(_unquoted(field) for field in line.split("\t"))


def read_text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends, blank ones left out. Raises SettingsError for what is not UTF-8."""
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise fault(path, f"after line {number}", "not UTF-8 text; convert it with iconv") from error
    except OSError as error:
        raise fault(path, "not readable", error.strerror or type(error).__name__) from error


def read_json(path: Path) -> Any:
    """The whole file. Raises SettingsError for what is not JSON."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return json.load(file)
    except json.JSONDecodeError as error:
        raise fault(path, f"line {error.lineno}", f"not valid JSON: {error.msg}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise fault(path, "not valid JSON", str(error)) from error
    except OSError as error:
        raise fault(path, "not readable", error.strerror or type(error).__name__) from error


def read_records(path: Path) -> Iterator[Record]:
    """Records of a CSV or TSV with a header, of JSON lines, or of a JSON list of objects."""
    match path.suffix.lower():
        case ".json":
            return _from_json_list(path)
        case ".jsonl":
            return _from_json_lines(path)
        case ".csv":
            return _with_header(path, _csv_rows(path))
        case _:
            return _with_header(path, tab_rows(path))


def _from_json_list(path: Path) -> Iterator[Record]:
    for number, value in enumerate(read_json(path)):
        if not isinstance(value, dict):
            raise fault(path, f"entry {number}", "not an object")
        yield Record(f"entry {number}", _lower(value))


def _from_json_lines(path: Path) -> Iterator[Record]:
    for number, line in read_text_lines(path):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise fault(path, f"line {number}", f"not valid JSON: {error}") from error
        if not isinstance(value, dict):
            raise fault(path, f"line {number}", "not an object")
        yield Record(f"line {number}", _lower(value))


def _lower(value: dict[str, Any]) -> dict[str, Any]:
    return {name.strip().lower(): entry for name, entry in value.items()}


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)  # otherwise a quotation mark that is not closed swallows lines
            for row in reader:
                if row:
                    yield reader.line_num, row
    except csv.Error as error:
        raise fault(path, f"line {reader.line_num}", f"not a CSV in UTF-8: {error}") from error
    except UnicodeDecodeError as error:
        raise fault(path, "not a CSV in UTF-8", str(error)) from error
    except OSError as error:
        raise fault(path, "not readable", error.strerror or type(error).__name__) from error


def tab_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Numbered rows of a tab-separated file."""
    for number, line in read_text_lines(path):
        yield number, [_unquoted(field) for field in line.split("\t")]


def _unquoted(field: str) -> str:
    inner = field[1:-1]
    if len(field) >= 2 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return field


def _with_header(path: Path, rows: Iterator[tuple[int, list[str]]]) -> Iterator[Record]:
    names: list[str] | None = None
    for number, row in rows:
        if names is None:
            names = [name.strip().lower() for name in row]
        elif len(row) < len(names):
            raise fault(path, f"line {number}", f"{len(row)} columns where the header has {len(names)}")
        elif any(row[len(names) :]):  # a comma in a text without quotes
            raise fault(
                path, f"line {number}", f"{len(row)} columns where the header has {len(names)}: quotes forgotten?"
            )
        else:
            yield Record(f"line {number}", dict(zip(names, row, strict=False)))


def text_of(value: Any) -> str:
    """A text on one line; empty for what pandas and JSON leave where there is none.

    Halves of surrogate pairs (half an emoji, `\\ud83d` in JSON) are no text in UTF-8 and become question marks.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return " ".join(str(value).encode(errors="replace").decode().split())
