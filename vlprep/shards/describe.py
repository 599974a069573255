"""What a store is and holds, JSON-ready, for people and programs."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vlprep.shards.manifest import read_manifest
from vlprep.shards.marks import read_marks
from vlprep.shards.plan import Plan, read_plan
from vlprep.shards.reader import StoreReader
from vlprep.shards.status import status_of

_SHOWN_NUMBERS = 4


def describe(folder: Path) -> dict[str, Any]:
    """`store.json`, the counts of `Status` with its failures, and the lengths of the rows. No data is read."""
    manifest = read_manifest(folder)
    marks = read_marks(folder)
    lengths = [length for mark in marks.values() for length in mark.lengths]
    return {
        "folder": str(folder),
        **asdict(manifest),
        "names": {kind: len(names) for kind, names in manifest.names.items()},
        **asdict(status_of(read_plan(folder) or Plan.empty(1), marks)),
        "entries": sum(lengths),
        "entries_per_row": [min(lengths), sum(lengths) / len(lengths), max(lengths)] if lengths else None,
    }


def head(folder: Path, rows: int) -> list[dict[str, Any]]:
    """The first rows; of an array its shape, type, extremes and first numbers."""
    return [{name: _shown(value) for name, value in row.items()} for row in islice(StoreReader(folder), rows)]


def _shown(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    summary = {"shape": list(value.shape), "dtype": str(value.dtype)}
    if not value.size:
        return summary
    first = value.reshape(-1)[:_SHOWN_NUMBERS].tolist()
    return {**summary, "min": value.min().item(), "max": value.max().item(), "first": first}
