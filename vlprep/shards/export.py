"""The rows of a store in other containers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vlprep.errors import SettingsError, VlprepError
from vlprep.shards.atomic import NewFile, clear_errors
from vlprep.shards.manifest import read_manifest
from vlprep.shards.marks import mark_path, numbered, part_path, read_marks
from vlprep.shards.pages import damage_named
from vlprep.shards.plan import read_plan


def export_parquet(folder: Path, out: Path) -> list[Path]:
    """Write each part as a Parquet file (zstd) into the folder `out`, which is made; give their paths.

    All parts or none: what an error leaves half done is removed. Raises `SettingsError` if `folder` is no store or an
    unfinished one, or if `out` is a file or holds anything, `VlprepError` if the store is damaged or `out` cannot be
    written to.
    """
    parts = _whole_parts(folder)
    with _clear_errors(out):
        if out.exists() and not out.is_dir():
            raise SettingsError(f"{out} is a file: Parquet goes into a folder, one file a part")
        if out.exists() and any(out.iterdir()):
            raise SettingsError(f"{out} is not empty: its files would mix with the store's; name a new folder")
        out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        for part in parts:
            written.append(_export_part(part, out / f"{part.stem}.parquet"))
    except BaseException:
        for path in written:
            path.unlink()
        raise
    return written


def _whole_parts(folder: Path) -> list[Path]:
    """The Arrow files of all planned parts."""
    read_manifest(folder)
    plan, marks = read_plan(folder), read_marks(folder)
    torn = sorted(set(numbered(folder, ".json")) - marks.keys())
    if torn:
        path = mark_path(folder, torn[0])
        raise VlprepError(f"{path} or its part is damaged or missing: see `vlprep store verify {folder}`")
    if plan is None:
        raise SettingsError(f"{folder} has no parts yet: run its command first")
    if missing := set(range(plan.num_parts)) - marks.keys():
        raise SettingsError(
            f"{len(missing):,} of {plan.num_parts:,} parts of {folder} are not made yet: run its command again first"
        )
    return [part_path(folder, part) for part in marks]


def _export_part(part: Path, target: Path) -> Path:
    with _clear_errors(target.parent):
        file = NewFile(target)
        try:
            with damage_named(part):
                source = pa.ipc.open_file(pa.memory_map(str(part)))
            writer = pq.ParquetWriter(pa.PythonFile(file, "w"), source.schema, compression="zstd")
            for batch in _batches(part, source):
                writer.write_batch(batch)
            writer.close()
            file.sync()
            file.publish()
        finally:
            file.discard()
    return target


def _batches(part: Path, source: pa.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    for number in range(source.num_record_batches):
        with damage_named(part):
            batch = source.get_batch(number)
        yield batch


def _clear_errors(out: Path) -> AbstractContextManager[None]:
    return clear_errors(out, again="which writes every part anew", elsewhere="name another folder")
