"""Several stores that one pass over the items fills, seen as one: a video is decoded once for all encoders.

Each store keeps its own plan and progress. Parts that have the same items in several stores are one *task*; where the
stores were planned together, task n is part n of each. A worker does a task for the stores that still miss it, and
commits each of its parts by itself, so stores may have come to different points, or be made in different runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlprep.shards import PartWriter, Status, Store, StoreReader, StoreSettings, open_store
from vlprep.shards.manifest import MANIFEST_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A store to be filled."""

    folder: Path
    schema: pa.Schema
    settings: StoreSettings

    def open(self, *, overwrite: bool = False) -> Store:
        """Make the store or open it. Raises as `open_store` does."""
        return open_store(self.folder, self.schema, self.settings, overwrite=overwrite)

    def finished(self, *, retry_failed: bool) -> set[str]:
        """Items that a run would not do again. Raises as `open` does where there is a store already."""
        if not (self.folder / MANIFEST_NAME).is_file():
            return set()
        failures = self.open().status().failures
        return {*StoreReader(self.folder).ids, *(failure.id for failure in failures if not retry_failed)}


class StoreGroup:
    """Has the methods of `Store` that a run needs, with tasks for parts."""

    def __init__(self, folder: Path, stores: Mapping[str, Store]) -> None:
        """`folder`: where they are all found."""
        self.folder = folder
        self.stores = stores
        self._tasks: list[Mapping[str, int]] = []

    def plan(self, items: Sequence[str], part_size: int) -> None:
        """Plan the items in every store."""
        for store in self.stores.values():
            store.plan(items, part_size)

    def retry_failed(self) -> int:
        """Plan each store's failures again; returns the most that one of them had."""
        return max(store.retry_failed() for store in self.stores.values())

    def pending(self) -> list[int]:
        """Tasks that some store misses. The numbers hold for this object and copies of it."""
        missing = {name: set(store.pending()) for name, store in self.stores.items()}
        self._tasks = [
            {name: part for name, part in parts.items() if part in missing[name]} for parts in self._parts_alike()
        ]
        return [task for task, parts in enumerate(self._tasks) if parts]

    def part_items(self, task: int) -> list[str]:
        """Ids of a task's items."""
        name, part = next(iter(self._tasks[task].items()))
        return self.stores[name].part_items(part)

    @contextmanager
    def write_part(self, task: int) -> Iterator[dict[str, PartWriter]]:
        """Writers by store for those that miss the task; all commit at the end, or none after an exception."""
        with ExitStack() as stack:
            yield {
                name: stack.enter_context(self.stores[name].write_part(part))
                for name, part in self._tasks[task].items()
            }

    def status(self) -> Status:
        """An item counts as failed where it failed in one of the stores, and as done where it has a row in each."""
        each = [store.status() for store in self.stores.values()]
        failures = {failure.id: failure for status in reversed(each) for failure in status.failures}
        planned, pending = max(status.planned for status in each), max(status.pending for status in each)
        return Status(
            planned=planned,
            rows=max(0, planned - pending - len(failures)),
            failed=len(failures),
            pending=pending,
            parts=max(status.parts for status in each),
            parts_done=min(status.parts_done for status in each),
            bytes=sum(status.bytes for status in each),
            seconds=max(status.seconds for status in each),
            failures=tuple(failures.values()),
        )

    def _parts_alike(self) -> list[dict[str, int]]:
        """Parts of equal items, by store; depends on the plans only, so that shards agree on the numbers."""
        alike: dict[tuple[tuple[str, ...], int], dict[str, int]] = {}
        for name, store in self.stores.items():
            met: Counter[tuple[str, ...]] = Counter()  # a retry may have the very items of an earlier part
            for part in range(store.status().parts):
                items = tuple(store.part_items(part))
                alike.setdefault((items, met[items]), {})[name] = part
                met[items] += 1
        return list(alike.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStage:
    """What `vlprep.stages.run.Stage` is, for several stores."""

    folder: Path
    """Holds the stores; or is the store, if there is only one."""
    outputs: Mapping[str, Output]
    items: Sequence[str]
    worker: str
    """Gets a `StoreGroup` as `store`."""
    arguments: Mapping[str, Any]
    gpu_part: int
    cpu_part: int

    def at(self, folder: Path | None) -> GroupStage:
        """The same with its stores elsewhere."""
        if folder is None:
            return self
        several = len(self.outputs) > 1
        outputs = {
            name: replace(output, folder=folder / output.folder.name if several else folder)
            for name, output in self.outputs.items()
        }
        return replace(self, folder=folder, outputs=outputs)

    def open(self, *, overwrite: bool = False) -> StoreGroup:
        """Make the stores or open them. Raises as `open_store` does."""
        return StoreGroup(self.folder, {name: out.open(overwrite=overwrite) for name, out in self.outputs.items()})

    def finished(self, *, retry_failed: bool) -> set[str]:
        """Items that no store needs."""
        return set.intersection(*(output.finished(retry_failed=retry_failed) for output in self.outputs.values()))
