"""What commands print: one JSON document or lines for people; amounts, tables, failures, the line to run next."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ARGUMENTS_KEY = "vlprep.arguments"
"""In `ctx.meta`: the words after `vlprep`."""
_SHOWN_FAILURES = 5
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


class FailedItem(Protocol):
    """A planned item without a row."""

    @property
    def id(self) -> str: ...
    @property
    def error(self) -> str: ...
    @property
    def message(self) -> str: ...


def print_json(document: Any) -> None:
    """The one document of `--json`; dataclasses, mappings and paths may be in it."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, default=_plain))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return shallow_dict(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def shallow_dict(value: DataclassInstance) -> dict[str, Any]:
    """The fields of a dataclass by name, as they are."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Names and values in two columns."""
    rows = list(facts)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:{width}}  {value}".rstrip())


def print_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Aligned columns, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    numeric = [bool(cells) and all(_is_number(row[column]) for row in cells) for column in range(len(header))]
    widths = [max(len(row[column]) for row in [header, *cells]) for column in range(len(header))]
    for row in [header, *cells]:
        aligned = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        click.echo("  ".join(aligned).rstrip())


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).removeprefix("-").removesuffix(" %").isdigit()


def bytes_text(count: float) -> str:
    """`312 B`, `4.2 MB`, `1.3 TB` (powers of 1000, as disks are sold)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration_text(seconds: float) -> str:
    """`8.4 s`, `2 min 5 s`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, name, small, small_name in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= large:
            return f"{whole // large} {name} {whole % large // small} {small_name}"
    return f"{whole} s"


def counted(count: int, noun: str) -> str:
    """`1 image`, `1,200 images`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def failure_lines(failures: Sequence[FailedItem]) -> list[str]:
    """How many by class of error, and the first few."""
    if not failures:
        return []
    classes = Counter(failure.error for failure in failures)
    lines = [f"failed: {', '.join(f'{count:,} {error}' for error, count in classes.most_common())}"]
    lines += [f"  {failure.id}: {_without(failure.id, failure.message)}" for failure in failures[:_SHOWN_FAILURES]]
    if len(failures) > _SHOWN_FAILURES:
        lines.append(f"  and {len(failures) - _SHOWN_FAILURES:,} more (--json lists them all)")
    return lines


def _without(item: str, message: str) -> str:
    """Messages begin with the file's path, which the line has already."""
    place, separator, rest = message.partition(": ")
    return rest if separator and place.endswith(item) else message


def this_command(ctx: click.Context, *, without: Iterable[str] = (), plus: Sequence[str] = ()) -> str:
    """The command line that is being run, fit for pasting, less some flags and with others."""
    words = [word for word in ctx.meta[ARGUMENTS_KEY] if word not in without]
    return shlex.join(["vlprep", *words, *(word for word in plus if word not in words)])
