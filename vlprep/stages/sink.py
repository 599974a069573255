"""What a worker does with a part: where its items' results go, into the part of every store that it fills, or, for a
probe, nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TypeAlias

from vlprep.engines.base import Beat, Job, PartDone
from vlprep.errors import ItemError
from vlprep.shards import ErrorInfo, PartWriter, Store
from vlprep.stages.flow import Stopwatch

Row: TypeAlias = Mapping[str, Any]


class Sink:
    """Counts items: a row where every store got one, else a failure."""

    def __init__(self, writers: Mapping[str, PartWriter], beat: Beat, watch: Stopwatch) -> None:
        """`writers` by the store's name; none for a probe."""
        self.rows = self.failures = 0
        self._writers, self._beat, self.watch = writers, beat, watch

    def add(self, item: str, rows: Mapping[str, Row | ItemError]) -> None:
        """Enter an item's row, or why it has none, for every store (for those without a writer it is not kept)."""
        with self.watch.time("write"):
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

    @property
    def stores(self) -> tuple[str, ...]:
        """That are written to; none for a probe."""
        return tuple(self._writers)


class Parts(Protocol):
    """What parts are read from and written to: a `StoreGroup`, or `OneStore`."""

    def part_items(self, part: int) -> list[str]: ...

    def write_part(self, part: int) -> AbstractContextManager[Mapping[str, PartWriter]]: ...


class OneStore:
    """A store under the name that a `Sink` knows it by."""

    def __init__(self, name: str, store: Store) -> None:
        self._name, self._store = name, store

    def part_items(self, part: int) -> list[str]:
        return self._store.part_items(part)

    @contextmanager
    def write_part(self, part: int) -> Iterator[Mapping[str, PartWriter]]:
        with self._store.write_part(part) as writer:
            yield {self._name: writer}


def do_part(parts: Parts, job: Job, beat: Beat, work: Callable[[Sequence[str], Sink], None]) -> PartDone:
    """The frame of every worker's `run`: items that kill workers are failures, `work` does the others, and the part is
    committed with the seconds that each step took.
    """
    began, watch = time.monotonic(), Stopwatch()
    items = [item for item in parts.part_items(job.part) if job.only is None or item in job.only]
    none: Mapping[str, PartWriter] = {}
    with parts.write_part(job.part) if job.only is None else nullcontext(none) as writers:
        sink = Sink(writers, beat, watch)
        for item, what in job.poison.items():
            sink.fail(item, ErrorInfo("WorkerDied", what))
        work([item for item in items if item not in job.poison], sink)
        for writer in writers.values():
            writer.stats = watch.seconds
    return PartDone(job.part, sink.rows, sink.failures, time.monotonic() - began, watch.seconds)
