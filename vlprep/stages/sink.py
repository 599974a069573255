"""Where a worker's results go: into the part of every store that it fills, or, for a probe, nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from vlprep.engines.base import Beat
from vlprep.errors import ItemError
from vlprep.shards import ErrorInfo, PartWriter
from vlprep.stages.flow import Stopwatch

Row: TypeAlias = Mapping[str, Any]


class Sink:
    """Counts items: a row where every store got one, else a failure."""

    def __init__(self, writers: Mapping[str, PartWriter], beat: Beat, watch: Stopwatch) -> None:
        """`writers` by the store's name; none for a probe."""
        self.rows = self.failures = 0
        self._writers, self._beat, self._watch = writers, beat, watch

    def add(self, item: str, rows: Mapping[str, Row | ItemError]) -> None:
        """Enter an item's row, or why it has none, for every store (for those without a writer it is not kept)."""
        with self._watch.time("write"):
            kept = [self._enter(item, writer, rows[name]) for name, writer in self._writers.items()]
        self._count(item, ok=all(kept) and not any(isinstance(row, ItemError) for row in rows.values()))

    def fail(self, item: str, error: ItemError | ErrorInfo) -> None:
        """Enter why an item has no row in any store."""
        for writer in self._writers.values():
            writer.fail(item, error)
        self._count(item, ok=False)

    def _enter(self, item: str, writer: PartWriter, row: Row | ItemError) -> bool:
        try:
            if isinstance(row, ItemError):
                raise row
            writer.add(item, row)
        except ItemError as error:
            writer.fail(item, error)
            return False
        return True

    def _count(self, item: str, *, ok: bool) -> None:
        self.rows += ok
        self.failures += not ok
        self._beat.done(item)
