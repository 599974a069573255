"""Reading rows: our store against LMDB, npz, HDF5 and tars of the same content, and a plain copy of the same bytes.

    python benchmarks/reading.py                  1 GB a format, in a temporary folder
    python benchmarks/reading.py --gigabytes 8

A row is an image's 36 regions of 2048 float16, with boxes and classes. To read a row is to have it copied into one
buffer, as a batch is made. Each format is used in its fastest usual way:

- ours      `StoreReader`, memory map
- lmdb      msgpack of raw bytes, one transaction, no read-ahead (UNITER's layout)
- npz       one uncompressed file an image (BUTD's layout)
- hdf5      one contiguous data set a field, one file
- tars      WebDataset shards of 100 MB, decoded by hand; shuffled by its buffer of 1000, since it has no other way
- copy      the bytes of our store, read in order into the same buffer

Cold means that the kernel was told to drop the pages of the files (posix_fadvise). Figures are rows per second of the
wall clock, and of the CPU, which on a busy machine is the one to compare where the cache is warm.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import lmdb
import msgpack
import numpy as np
import webdataset
from _measure import print_table, save
from numpy.typing import NDArray

from vlprep.shards import StoreReader, StoreSettings, open_store
from vlprep.shards.schema import regions_schema

REGIONS, DIM = 36, 2048
FIELDS = {
    "features": (np.float16, (REGIONS, DIM)),
    "boxes": (np.float32, (REGIONS, 4)),
    "object_ids": (np.uint16, (REGIONS,)),
}
ROW_BYTES = sum(np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in FIELDS.values())
_DISTINCT = 64
"""Rows with content of their own; it repeats, and nothing here compresses."""
_TAR_BYTES = 100_000_000

Arrays = Mapping[str, NDArray[Any]]


class Buffer:
    """Where rows are copied to."""

    def __init__(self) -> None:
        self.arrays = {name: np.empty(shape, dtype) for name, (dtype, shape) in FIELDS.items()}

    def take(self, row: Arrays) -> None:
        for name, into in self.arrays.items():
            np.copyto(into, row[name])


class Format(ABC):
    """One way to keep rows on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    @abstractmethod
    def write(self, rows: Iterator[Arrays], count: int) -> None: ...

    @abstractmethod
    def read(self, order: Sequence[int] | None, count: int, into: Buffer) -> None:
        """All rows, in this order (None: as they lie)."""

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]


class Ours(Format):
    def write(self, rows: Iterator[Arrays], count: int) -> None:
        names = {"classes": ["thing"]}
        settings = StoreSettings(kind="regions", settings={}, weights=None, names=names)
        store = open_store(self.folder / "store", regions_schema(DIM, 1), settings)
        store.plan([f"{number:09}" for number in range(count)], 512)
        rest = {"source_id": None, "width": 640, "height": 480, "proposals": np.zeros((REGIONS, 4), np.float32)}
        probabilities = {"max_conf": np.zeros(REGIONS), "background_prob": np.zeros(REGIONS)}
        rest |= probabilities | {"class_probs": np.zeros((REGIONS, 1))}
        for part in store.pending():
            with store.write_part(part) as writer:
                for name in store.part_items(part):
                    writer.add(name, {"path": name, **rest, **next(rows)})

    def read(self, order: Sequence[int] | None, count: int, into: Buffer) -> None:
        reader = StoreReader(self.folder / "store")
        for row in reader if order is None else (reader[number] for number in order):
            into.take(row)


class Lmdb(Format):
    def write(self, rows: Iterator[Arrays], count: int) -> None:
        with lmdb.open(str(self.folder), map_size=4 * count * ROW_BYTES) as database:
            for start in range(0, count, 1000):
                with database.begin(write=True) as transaction:
                    for number in range(start, min(start + 1000, count)):
                        packed = msgpack.packb({name: array.tobytes() for name, array in next(rows).items()})
                        transaction.put(_key(number), packed)

    def read(self, order: Sequence[int] | None, count: int, into: Buffer) -> None:
        with (
            lmdb.open(str(self.folder), readonly=True, lock=False, readahead=order is None) as database,
            database.begin(buffers=True) as transaction,
        ):
            if order is None:
                values = (value for _, value in transaction.cursor())
            else:
                values = (transaction.get(_key(number)) for number in order)
            for value in values:
                into.take(_arrays(msgpack.unpackb(value)))


class Npz(Format):
    def write(self, rows: Iterator[Arrays], count: int) -> None:
        for number in range(count):
            np.savez(self.folder / f"{number:09}.npz", **next(rows))

    def read(self, order: Sequence[int] | None, count: int, into: Buffer) -> None:
        for number in range(count) if order is None else order:
            with np.load(self.folder / f"{number:09}.npz") as row:
                into.take(row)


class Hdf5(Format):
    def write(self, rows: Iterator[Arrays], count: int) -> None:
        with h5py.File(self.folder / "rows.h5", "w") as file:
            sets = {name: file.create_dataset(name, (count, *shape), dtype) for name, (dtype, shape) in FIELDS.items()}
            for number in range(count):
                for name, array in next(rows).items():
                    sets[name][number] = array

    def read(self, order: Sequence[int] | None, count: int, into: Buffer) -> None:
        with h5py.File(self.folder / "rows.h5") as file:
            sets = {name: file[name] for name in FIELDS}
            for number in range(count) if order is None else order:
                for name, array in into.arrays.items():
                    sets[name].read_direct(array, np.s_[number])


class Tars(Format):
    def write(self, rows: Iterator[Arrays], count: int) -> None:
        pattern = str(self.folder / "%05d.tar")
        with webdataset.ShardWriter(pattern, maxsize=_TAR_BYTES, verbose=0) as sink:
            for number in range(count):
                sink.write({"__key__": f"{number:09}", **{f"{n}.bin": a.tobytes() for n, a in next(rows).items()}})

    def read(self, order: Sequence[int] | None, count: int, into: Buffer) -> None:
        data = webdataset.WebDataset(
            [str(path) for path in sorted(self.files())], shardshuffle=False, empty_check=False
        )
        for row in data if order is None else data.shuffle(1000):
            into.take(_arrays({name: row[f"{name}.bin"] for name in FIELDS}))


FORMATS: Mapping[str, Callable[[Path], Format]] = {"ours": Ours, "lmdb": Lmdb, "npz": Npz, "hdf5": Hdf5, "tars": Tars}


def _key(number: int) -> bytes:
    return f"{number:09}".encode()


def _arrays(raw: Mapping[str, bytes]) -> Arrays:
    return {name: np.frombuffer(raw[name], dtype).reshape(shape) for name, (dtype, shape) in FIELDS.items()}


def rows() -> Iterator[Arrays]:
    """Endless."""
    rng = np.random.default_rng(0)
    made = [
        {name: rng.integers(0, 1000, shape).astype(dtype) for name, (dtype, shape) in FIELDS.items()}
        for _ in range(_DISTINCT)
    ]
    while True:
        yield from made


def copy(files: Sequence[Path], block: int) -> None:
    """Read files in order into one buffer."""
    into = bytearray(block)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(into):
                pass


def forget(files: Sequence[Path]) -> None:
    """Take the files' pages out of the page cache. Those that are still mapped would stay."""
    gc.collect()
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def measured(call: Callable[[], None], count: int) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return {"wall": count / (time.perf_counter() - wall), "cpu": count / (time.process_time() - cpu)}


def fastest(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {clock: max(run[clock] for run in runs) for clock in runs[0]}


def compare(scratch: Path, gigabytes: float, rounds: int) -> dict[str, Any]:
    """Write, read and remove each format in turn. Warm figures are the fastest of `rounds`, in which
    a format's ways take turns."""
    count = max(2 * _DISTINCT, int(gigabytes * 1e9 / ROW_BYTES))
    order = np.random.default_rng(1).permutation(count).tolist()
    into, found = Buffer(), {}
    for name, make in FORMATS.items():
        format_ = make(scratch / name)
        format_.write(rows(), count)
        files = format_.files()
        figures: dict[str, Any] = {"bytes": sum(path.stat().st_size for path in files)}
        calls: dict[str, Callable[[], None]] = {
            "sequential": lambda format_=format_: format_.read(None, count, into),
            "shuffled": lambda format_=format_: format_.read(order, count, into),
        }
        if name == "ours":
            data = sorted(path for path in files if path.suffix == ".arrow")
            calls["copy"] = lambda data=data: copy(data, ROW_BYTES)
        for kind, call in calls.items():
            forget(files)
            figures[f"{kind}, cold"] = measured(call, count)
        warm = [{kind: measured(call, count) for kind, call in calls.items()} for _ in range(rounds)]
        figures |= {f"{kind}, warm": fastest([run[kind] for run in warm]) for kind in calls}
        found[name] = figures
        shutil.rmtree(scratch / name)
    ours = found["ours"]
    found["copy"] = {f"sequential, {cache}": ours.pop(f"copy, {cache}") for cache in ("cold", "warm")}
    return {"rows": count, "row bytes": ROW_BYTES, "formats": found}


def show(result: Mapping[str, Any]) -> None:
    kinds = [f"{kind}, {cache}" for kind in ("sequential", "shuffled") for cache in ("cold", "warm")]
    for clock in ("wall", "cpu"):
        table = [
            (name, *(round(figures[kind][clock]) if kind in figures else "" for kind in kinds))
            for name, figures in result["formats"].items()
        ]
        print_table(f"Rows per second, {clock}; {result['rows']} rows of {ROW_BYTES} bytes", ("", *kinds), table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vlprep-bench-") as scratch:
        result = compare(Path(scratch), chosen.gigabytes, chosen.rounds)
    show(result)
    save("reading", result, chosen.out)


if __name__ == "__main__":
    main()
