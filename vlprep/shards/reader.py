"""Reading a store by memory map: a row is NumPy views into its files."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vlprep.shards.arrays import row_views
from vlprep.shards.manifest import read_manifest
from vlprep.shards.marks import part_path, read_marks
from vlprep.shards.pages import damage_named, map_file, memory_bytes, read_by_page, will_need

# What is kept of an open batch is a few kilobytes of addresses, unless it had to be unpacked.
_BATCHES_OPEN = 4096
_BATCHES_OPEN_COMPRESSED = 4


class StoreReader:
    """The rows of all committed parts: `len`, `reader[i]`, iteration. Parts committed later are not seen.

    Small to pickle (its path), so that data-loading processes can have one each. Opening it reads the commit marks and
    no data; parts are mapped when first touched. Raises `SettingsError` if the folder is no store.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        marks = read_marks(self.folder)
        self.paths = [part_path(self.folder, part) for part in marks]
        """The Arrow files, for other readers."""
        self._lengths = np.fromiter((length for mark in marks.values() for length in mark.lengths), np.int64)
        self._batches = [
            (part_path(self.folder, part), number)
            for part, mark in marks.items()
            for number in range(len(mark.batches))
        ]
        self._starts = [0, *accumulate(rows for mark in marks.values() for rows in mark.batches)]
        self._fits_in_memory = sum(mark.bytes for mark in marks.values()) <= memory_bytes() // 2
        self._asked: set[int] = set()
        # Not decorators: the caches belong to this reader. No methods in them, so that its maps end with it.
        self._mapped = lru_cache(maxsize=None)(map_file)
        file = lru_cache(maxsize=None)(partial(_open_file, self._mapped))
        kept = _BATCHES_OPEN_COMPRESSED if self.manifest.compression else _BATCHES_OPEN
        self._batch = lru_cache(maxsize=kept)(partial(_open_batch, file, self._batches))

    def __reduce__(self) -> tuple[type[StoreReader], tuple[Path]]:
        return StoreReader, (self.folder,)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Row:
        """Raises `IndexError` beyond the rows; negative numbers count from the end."""
        batch, row = self._place(index)
        return Row(self._batch(batch), row)

    def __iter__(self) -> Iterator[Row]:
        for number in range(len(self._batches)):
            batch = self._batch(number)
            if number + 1 < len(self._batches) and not self.manifest.compression:
                self._batch(number + 1).read_ahead()
            yield from (Row(batch, row) for row in range(batch.num_rows))

    def read_ahead(self, rows: Iterable[int]) -> None:
        """Have rows read from the disk in the background that will soon be used, in whatever order.

        Of a store that fits in memory, where every page is read once, these are whole record batches, in large blocks;
        of a larger one the rows alone. Does nothing for a compressed store.
        """
        if self.manifest.compression or len(self._asked) == len(self._batches):
            return
        for batch, row in map(self._place, rows):
            if not self._fits_in_memory:
                read_by_page(self._mapped(self._batches[batch][0]))
                self._batch(batch).read_ahead(row)
            elif batch not in self._asked:
                self._asked.add(batch)
                self._batch(batch).read_ahead()

    def lengths(self) -> NDArray[np.int64]:
        """(rows,): how many regions, clips or tokens each row has; from the commit marks, no data is read."""
        return self._lengths

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Whole columns over all parts, without a copy; pages are read as they are used, and of these columns only."""
        wanted = list(names)
        batches = []
        for path in self.paths:
            with damage_named(path):
                mapped = self._mapped(path)
                fields = pa.ipc.open_file(mapped).schema
                options = pa.ipc.IpcReadOptions(included_fields=sorted(fields.get_field_index(name) for name in wanted))
                file = pa.ipc.open_file(mapped, options=options)
                batches += [file.get_batch(number).select(wanted) for number in range(file.num_record_batches)]
        return pa.Table.from_batches(batches) if batches else pa.table({name: pa.array([]) for name in wanted})

    @cached_property
    def ids(self) -> list[str]:
        """The id of every row."""
        ids: list[str] = self.columns(["id"]).column("id").to_pylist()
        return ids

    def index(self, item_id: str) -> int:
        """The row of an id. Raises `KeyError` if it has none. For joins of many ids see `locate`."""
        ids, order = self._sorted_ids
        place = bisect_left(order, item_id, key=lambda row: ids[row].as_py())
        if place == len(order) or ids[order[place]].as_py() != item_id:
            raise KeyError(f"{item_id} has no row in {self.folder}")
        return int(order[place])

    def locate(self, keys: Sequence[str], column: str = "id") -> NDArray[np.int64]:
        """(keys,): the first row that has each key in this column (`id` or `source_id`, say), -1 where none has."""
        values = self.columns([column]).column(column).cast(pa.string())
        found = pc.index_in(pa.array(keys, pa.string()), value_set=values)
        rows: NDArray[np.int64] = pc.fill_null(found, -1).to_numpy().astype(np.int64)
        return rows

    def _place(self, index: int) -> tuple[int, int]:
        """Of a row: its record batch, and its number there."""
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"row {index} of {len(self)} in {self.folder}")
        batch = bisect_right(self._starts, row) - 1
        return batch, row - self._starts[batch]

    @cached_property
    def _sorted_ids(self) -> tuple[pa.Array, NDArray[np.uint64]]:
        ids = self.columns(["id"]).column("id").cast(pa.large_string()).combine_chunks()
        return ids, pc.array_sort_indices(ids).to_numpy()


class Row(Mapping[str, Any]):
    """One row: `row["features"]` is a read-only (R, D) view into the file, `row["width"]` a number, `row["path"]` text.

    A view stays valid for as long as it is held, also after its reader is gone.
    """

    __slots__ = ("_batch", "_row")

    def __init__(self, batch: _Batch, row: int) -> None:
        self._batch = batch
        self._row = row

    def __getitem__(self, name: str) -> Any:
        return self._batch.value(name, self._row)

    def __iter__(self) -> Iterator[str]:
        return iter(self._batch.names)

    def __len__(self) -> int:
        return len(self._batch.names)


class _Batch:
    """An open record batch; a column becomes a view when it is first asked for."""

    __slots__ = ("_batch", "_views", "names", "num_rows")

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self._views: dict[str, Any] = {}
        self.names: list[str] = batch.schema.names
        self.num_rows: int = batch.num_rows

    def value(self, name: str, row: int) -> Any:
        try:
            view = self._views[name]
        except KeyError:
            view = self._views[name] = row_views(self._batch.column(name))
        return view(row)

    def read_ahead(self, row: int | None = None) -> None:
        """Of one row, or of all."""
        if row is None:
            # an empty one lies anywhere
            buffers = [buffer for column in self._batch.columns for buffer in column.buffers() if buffer]
            begin = min(buffer.address for buffer in buffers)
            will_need(begin, max(buffer.address + buffer.size for buffer in buffers) - begin)
            return
        for value in (self.value(name, row) for name in self.names):
            if isinstance(value, np.ndarray):
                will_need(value.ctypes.data, value.nbytes)


def _open_file(mapped: Callable[[Path], pa.Buffer], path: Path) -> pa.RecordBatchFileReader:
    return pa.ipc.open_file(mapped(path))


def _open_batch(
    file: Callable[[Path], pa.RecordBatchFileReader], batches: Sequence[tuple[Path, int]], number: int
) -> _Batch:
    path, batch = batches[number]
    with damage_named(path):
        return _Batch(file(path).get_batch(batch))
