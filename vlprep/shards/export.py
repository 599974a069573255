"""The rows of a store in other containers."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vlprep.errors import SettingsError
from vlprep.shards.atomic import NewFile, clear_errors, remove_stale
from vlprep.shards.reader import StoreReader


def export_parquet(folder: Path, out: Path) -> list[Path]:
    """Write each committed part as a Parquet file (zstd) into the folder `out`, which is made; give their paths.

    Raises `SettingsError` if `folder` is no store or `out` is a file, `VlprepError` if `out` cannot be written to.
    """
    reader = StoreReader(folder)
    if out.exists() and not out.is_dir():
        raise SettingsError(f"{out} is a file: Parquet goes into a folder, one file a part")
    with clear_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        remove_stale(out)
    return [_export_part(part, out / f"{part.stem}.parquet") for part in reader.paths]


def _export_part(part: Path, target: Path) -> Path:
    with clear_errors(target.parent):
        file = NewFile(target)
        try:
            with pa.memory_map(str(part)) as source, pa.ipc.open_file(source) as batches:
                writer = pq.ParquetWriter(pa.PythonFile(file, "w"), batches.schema, compression="zstd")
                for number in range(batches.num_record_batches):
                    writer.write_batch(batches.get_batch(number))
                writer.close()
            file.sync()
            file.publish()
        finally:
            file.discard()
    return target
