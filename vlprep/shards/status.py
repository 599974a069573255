"""How far a store is: rows + failures + pending = planned items, whatever was retried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vlprep.shards.marks import Failure, Mark
from vlprep.shards.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Counts of a store; an item's latest attempt counts, and one whose retry is planned is pending again."""

    planned: int
    rows: int
    failed: int
    pending: int
    parts: int
    parts_done: int
    bytes: int
    seconds: float
    """Of work, summed over the parts."""
    failures: tuple[Failure, ...]
    """One per failed item, in order of parts."""


def status_of(plan: Plan, marks: Mapping[int, Mark]) -> Status:
    """`marks` in order of their parts."""
    latest = {failure.id: failure for mark in marks.values() for failure in mark.failures}
    for entry in np.flatnonzero(plan.attempts > 1).tolist():
        item = plan.ids[entry].as_py()
        if item in latest and latest[item].part < plan.parts[entry]:
            del latest[item]  # its retry succeeded, or is still to run
    rows = sum(mark.rows for mark in marks.values())
    return Status(
        planned=plan.num_items,
        rows=rows,
        failed=len(latest),
        pending=plan.num_items - rows - len(latest),
        parts=plan.num_parts,
        parts_done=len(marks),
        bytes=sum(mark.bytes for mark in marks.values()),
        seconds=sum(mark.seconds for mark in marks.values()),
        failures=tuple(latest.values()),
    )
