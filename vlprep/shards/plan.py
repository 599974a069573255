"""`plan.arrow`: which items go into which part. It only ever grows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vlprep.errors import SettingsError, VlprepError
from vlprep.shards.marks import numbered

PLAN_NAME = "plan.arrow"
_PART_SIZE = b"vlprep.part_size"
_SHOWN_DOUBLES = 3


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """E entries, one per attempt at an item; those of a part are adjacent and sorted by id, parts are in order."""

    ids: pa.Array
    """(E,) large_string."""
    parts: NDArray[np.int32]
    """(E,), never falling."""
    attempts: NDArray[np.int32]
    """(E,): 1 for an item's first entry, 2 for its first retry."""
    part_size: int
    """Of the first cut; retries are cut alike."""

    @classmethod
    def empty(cls, part_size: int) -> Plan:
        if part_size < 1:
            raise SettingsError(f"--part-size takes a number from 1, not {part_size}")
        return cls(pa.array([], pa.large_string()), np.zeros(0, np.int32), np.zeros(0, np.int32), part_size)

    @property
    def num_parts(self) -> int:
        return int(self.parts[-1]) + 1 if len(self.parts) else 0

    @property
    def num_items(self) -> int:
        return int(np.count_nonzero(self.attempts == 1))

    def entries(self, part: int) -> dict[str, int]:
        """The attempts of a part's items by id, in the order of the ids; empty for a part that is not planned."""
        start, end = np.searchsorted(self.parts, [part, part + 1])
        return dict(zip(self.ids[start:end].to_pylist(), self.attempts[start:end].tolist(), strict=True))

    def with_items(self, items: Iterable[str], part_size: int) -> Plan:
        """Append the items that the plan has not; itself if there are none. Items that vanished stay."""
        try:
            wanted = pa.array(items, pa.large_string())
        except UnicodeEncodeError as error:
            raise SettingsError(f"the file name {error.object!r} is not valid Unicode: rename it") from error
        if len(pc.unique(wanted)) < len(wanted):
            counts = pc.value_counts(wanted)
            doubles = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
            raise SettingsError(f"{len(doubles)} ids are doubled: {', '.join(doubles[:_SHOWN_DOUBLES])}")
        return self._appended(wanted.filter(pc.invert(pc.is_in(wanted, value_set=self.ids))), part_size)

    def with_retries(self, items: Sequence[str]) -> Plan:
        """Append one more entry for each of these planned items."""
        return self._appended(pa.array(items, pa.large_string()), self.part_size)

    def _appended(self, new: pa.Array, part_size: int) -> Plan:
        if not len(new):
            return self
        ids = pa.concat_arrays([self.ids, new.take(pc.array_sort_indices(new))])
        parts = self.num_parts + np.arange(len(new), dtype=np.int32) // part_size
        attempts = self._attempts_so_far(ids[len(self.ids) :]) + 1
        return Plan(ids, np.concatenate([self.parts, parts]), np.concatenate([self.attempts, attempts]), self.part_size)

    def _attempts_so_far(self, ids: pa.Array) -> NDArray[np.int32]:
        known = pc.index_in(self.ids, value_set=ids)
        places = known.drop_null().to_numpy()
        return np.bincount(places, minlength=len(ids)).astype(np.int32)

    def to_bytes(self) -> bytes:
        columns = {"id": self.ids, "part": pa.array(self.parts), "attempt": pa.array(self.attempts)}
        batch = pa.RecordBatch.from_pydict(columns, metadata={_PART_SIZE: str(self.part_size)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        data: bytes = sink.getvalue().to_pybytes()
        return data


def read_plan(folder: Path) -> Plan | None:
    """The plan by memory map; None before the first `Store.plan`. Raises `VlprepError` if it is damaged or lost."""
    path = folder / PLAN_NAME
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source.read_buffer()) as file:
            batch = file.get_batch(0)
            part_size = int(file.schema.metadata[_PART_SIZE])
        ids, parts, attempts = (batch.column(name) for name in ("id", "part", "attempt"))
        return Plan(ids, parts.to_numpy(), attempts.to_numpy(), part_size)
    except FileNotFoundError as error:
        if numbered(folder, ".json"):
            raise VlprepError(f"{folder} has lost its {PLAN_NAME}: begin it anew with --overwrite") from error
        return None
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, IndexError) as error:
        raise VlprepError(f"{path} is damaged ({error}): make the store anew with --overwrite") from error
