"""Writing one part: rows to a temporary file as they come, then part and mark under their names."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from vlprep.errors import VlprepError
from vlprep.shards.arrays import checked_value, column_of
from vlprep.shards.atomic import NewFile, clear_errors, folder_lock, write_file
from vlprep.shards.manifest import Manifest, read_manifest
from vlprep.shards.marks import ErrorInfo, Failure, Mark, encode_mark, mark_path, part_path, read_mark
from vlprep.shards.plan import read_plan

BATCH_BYTES = 8 << 20
"""A record batch is written when its rows reach this size."""

_Row = dict[str, Any]


class PartWriter:
    """Every item of the part must be added or failed once, in any order; used by one thread at a time.

    Rows end up in the order of the plan. Those that come before their turn wait in memory, so the writer needs about
    one batch plus as many rows as the caller runs out of order.
    """

    def __init__(
        self, folder: Path, schema: pa.Schema, manifest: Manifest, part: int, attempts: Mapping[str, int]
    ) -> None:
        self.stats: dict[str, float] = {}
        """What the stage wants to keep in the mark, such as seconds by step."""
        self.mark: Mark | None = None
        """After the commit: what was committed."""
        self._folder, self._schema, self._manifest, self._part = folder, schema, manifest, part
        self._lists = [field.name for field in schema if pa.types.is_list(field.type)]
        self._attempts = attempts
        self._open = set(attempts)
        self._order = iter(attempts)
        self._next = next(self._order, None)
        self._early: dict[str, _Row | Failure] = {}
        self._batch: list[_Row] = []
        self._batch_bytes = 0
        self._batches: list[int] = []
        self._lengths: list[int] = []
        self._failures: list[Failure] = []

    def __enter__(self) -> PartWriter:
        self._started = time.monotonic()
        with folder_lock(self._folder):
            self._file = NewFile(part_path(self._folder, self._part))
        try:
            with clear_errors(self._folder):
                options = pa.ipc.IpcWriteOptions(compression=self._manifest.compression)
                self._arrow = pa.ipc.new_file(pa.PythonFile(self._file, "w"), self._schema, options=options)
        except BaseException:
            self._file.discard()
            raise
        return self

    def add(self, item_id: str, row: Mapping[str, Any]) -> None:
        """Keep an item's row: a value for every column but `id`; those that may be null can be left out.

        Arrays are copied. Raises `ItemError`, and keeps nothing, if a value cannot be stored (not finite, or beyond
        float16): call `fail` then.
        """
        self._require_open(item_id)
        values = {"id": item_id, **row}
        if unknown := values.keys() - set(self._schema.names):
            raise ValueError(f"a {self._manifest.kind} store has no columns {sorted(unknown)}")
        checked = {field.name: checked_value(field, values.get(field.name)) for field in self._schema}
        lengths = {name: len(checked[name]) for name in self._lists}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"lists of {item_id} differ in length: {lengths}")
        self._enter(item_id, checked)

    def fail(self, item_id: str, error: Exception | ErrorInfo) -> None:
        """Keep the reason why an item has no row."""
        self._require_open(item_id)
        if isinstance(error, Exception):
            error = ErrorInfo(type(error).__name__, str(error))
        attempt = self._attempts[item_id]
        self._enter(
            item_id, Failure(id=item_id, error=error.error, message=error.message, part=self._part, attempt=attempt)
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self._file.discard()

    def _require_open(self, item_id: str) -> None:
        if item_id not in self._open:
            raise ValueError(f"{item_id} is no item of part {self._part}, or was entered before")

    def _enter(self, item_id: str, entry: _Row | Failure) -> None:
        self._open.remove(item_id)
        self._early[item_id] = entry
        while self._next in self._early:
            entry = self._early.pop(self._next)
            self._next = next(self._order, None)
            if isinstance(entry, Failure):
                self._failures.append(entry)
            else:
                self._append(entry)

    def _append(self, row: _Row) -> None:
        self._batch.append(row)
        self._batch_bytes += sum(
            value.nbytes if isinstance(value, np.ndarray) else len(str(value)) for value in row.values()
        )
        self._lengths.append(len(row[self._lists[0]]))
        if self._batch_bytes >= BATCH_BYTES:
            self._write_batch()

    def _write_batch(self) -> None:
        columns = [column_of(field, [row[field.name] for row in self._batch]) for field in self._schema]
        with clear_errors(self._folder):
            self._arrow.write_batch(pa.record_batch(columns, schema=self._schema))
        self._batches.append(len(self._batch))
        self._batch, self._batch_bytes = [], 0

    def _commit(self) -> None:
        if self._open:
            raise ValueError(
                f"part {self._part} ended without {len(self._open)} of its items, such as {min(self._open)}"
            )
        if self._batch:
            self._write_batch()
        with clear_errors(self._folder):
            self._arrow.close()
            self._file.sync()
        with folder_lock(self._folder):
            if self._is_overwritten():
                raise VlprepError(
                    f"{self._folder} was overwritten by another run meanwhile: part {self._part} is dropped"
                )
            self.mark = read_mark(self._folder, self._part)
            if self.mark is None:  # otherwise another process was faster, and its part stays
                self._file.publish()
                self.mark = self._new_mark()
                write_file(mark_path(self._folder, self._part), encode_mark(self.mark))

    def _is_overwritten(self) -> bool:
        """Whether another run has begun the store anew: with other settings, or with the items cut otherwise."""
        plan = read_plan(self._folder)
        entries = plan.entries(self._part) if plan else {}
        return read_manifest(self._folder).fingerprint != self._manifest.fingerprint or entries != self._attempts

    def _new_mark(self) -> Mark:
        return Mark(
            part=self._part,
            rows=len(self._lengths),
            bytes=self._file.num_bytes,
            sha256=self._file.sha256,
            seconds=round(time.monotonic() - self._started, 3),
            stats=self.stats,
            failures=tuple(self._failures),
            batches=tuple(self._batches),
            lengths=tuple(self._lengths),
        )
