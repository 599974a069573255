"""Reading rows: our store against LMDB, npz, HDF5 and tars of the same content, and a plain copy of the same bytes.

    python benchmarks/reading.py                  1 GB a format, in a temporary folder
    python benchmarks/reading.py --gigabytes 8

A row is an image's 36 regions of 2048 float16, with boxes and classes. To read a row is to have it copied into one
buffer, as a batch is made. Each format is used in its fastest usual way:

- ours      `StoreReader`, memory map; shuffled rows are announced 64 at a time (`read_ahead`), as the loader does
- lmdb      msgpack of raw bytes, one transaction, no read-ahead where shuffled (UNITER's layout)
- lmdb-ra   the same with the kernel's read-ahead everywhere
- npz       one uncompressed file an image (BUTD's layout)
- hdf5      one contiguous data set a field, one file
- tars      WebDataset shards of 100 MB, decoded by hand; shuffled by its buffer of 1000, since it has no other way
- copy      (of each) the bytes of its files, read in order into a buffer

Cold: a new reader, after the kernel was told to drop the pages of the files (posix_fadvise). Warm: a reader that has
read everything before, as in the second epoch of a loader process. What came from the disk is counted beside each.
Figures are rows per second of the wall clock, and of the CPU, which on a busy machine is the one to compare where the
cache is warm. A format's ways take turns with the plain copy, which also shows how busy the machine was.
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
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import takewhile
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
_AHEAD = 64
_SECONDS_OF_ROUNDS = 60

Arrays = Mapping[str, NDArray[Any]]
Order = Sequence[int] | None
"""Numbers of rows; None: as they lie."""
Read = Callable[[Order], Iterator[Arrays]]


class Buffer:
    """Where rows are copied to."""

    def __init__(self) -> None:
        self.arrays = {name: np.empty(shape, dtype) for name, (dtype, shape) in FIELDS.items()}

    def take(self, row: Arrays) -> None:
        """A row; nothing of one that its format has copied itself."""
        if row:
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
    def reader(self, count: int, *, shuffled: bool) -> AbstractContextManager[Read]:
        """Open the files; what comes of it reads all rows, as often as it is called."""

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

    def reader(self, count: int, *, shuffled: bool) -> AbstractContextManager[Read]:
        store = StoreReader(self.folder / "store")

        def read(order: Order) -> Iterator[Arrays]:
            if order is None:
                yield from store
                return
            for start in range(0, count, _AHEAD):
                numbers = order[start : start + _AHEAD]
                store.read_ahead(numbers)
                yield from (store[number] for number in numbers)

        return nullcontext(read)


class Lmdb(Format):
    read_ahead_shuffled = False

    def write(self, rows: Iterator[Arrays], count: int) -> None:
        with lmdb.open(str(self.folder), map_size=4 * count * ROW_BYTES) as database:
            for start in range(0, count, 1000):
                with database.begin(write=True) as transaction:
                    for number in range(start, min(start + 1000, count)):
                        packed = msgpack.packb({name: array.tobytes() for name, array in next(rows).items()})
                        transaction.put(_key(number), packed)

    @contextmanager
    def reader(self, count: int, *, shuffled: bool) -> Iterator[Read]:
        read_ahead = self.read_ahead_shuffled or not shuffled
        with (
            lmdb.open(str(self.folder), readonly=True, lock=False, readahead=read_ahead) as database,
            database.begin(buffers=True) as transaction,
        ):

            def read(order: Order) -> Iterator[Arrays]:
                if order is None:
                    values = (value for _, value in transaction.cursor())
                else:
                    values = (transaction.get(_key(number)) for number in order)
                return (_arrays(msgpack.unpackb(value)) for value in values)

            yield read


class LmdbReadAhead(Lmdb):
    read_ahead_shuffled = True


class Npz(Format):
    def write(self, rows: Iterator[Arrays], count: int) -> None:
        for number in range(count):
            np.savez(self.folder / f"{number:09}.npz", **next(rows))

    def reader(self, count: int, *, shuffled: bool) -> AbstractContextManager[Read]:
        def read(order: Order) -> Iterator[Arrays]:
            for number in range(count) if order is None else order:
                with np.load(self.folder / f"{number:09}.npz") as row:
                    yield row

        return nullcontext(read)


class Hdf5(Format):
    def write(self, rows: Iterator[Arrays], count: int) -> None:
        with h5py.File(self.folder / "rows.h5", "w") as file:
            sets = {name: file.create_dataset(name, (count, *shape), dtype) for name, (dtype, shape) in FIELDS.items()}
            for number in range(count):
                for name, array in next(rows).items():
                    sets[name][number] = array

    @contextmanager
    def reader(self, count: int, *, shuffled: bool) -> Iterator[Read]:
        with h5py.File(self.folder / "rows.h5") as file:
            sets = {name: file[name] for name in FIELDS}
            into = Buffer().arrays  # h5py copies by itself: there is no second copy to be made of this

            def read(order: Order) -> Iterator[Arrays]:
                for number in range(count) if order is None else order:
                    for name, array in into.items():
                        sets[name].read_direct(array, np.s_[number])
                    yield {}

            yield read


class Tars(Format):
    def write(self, rows: Iterator[Arrays], count: int) -> None:
        pattern = str(self.folder / "%05d.tar")
        with webdataset.ShardWriter(pattern, maxsize=_TAR_BYTES, verbose=0) as sink:
            for number in range(count):
                sink.write({"__key__": f"{number:09}", **{f"{n}.bin": a.tobytes() for n, a in next(rows).items()}})

    def reader(self, count: int, *, shuffled: bool) -> AbstractContextManager[Read]:
        data = webdataset.WebDataset(
            [str(path) for path in sorted(self.files())], shardshuffle=False, empty_check=False
        )

        def read(order: Order) -> Iterator[Arrays]:
            for row in data if order is None else data.shuffle(1000):
                yield _arrays({name: row[f"{name}.bin"] for name in FIELDS})

        return nullcontext(read)


FORMATS: Mapping[str, Callable[[Path], Format]] = {
    "ours": Ours,
    "lmdb": Lmdb,
    "lmdb-ra": LmdbReadAhead,
    "npz": Npz,
    "hdf5": Hdf5,
    "tars": Tars,
}


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
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def bytes_from_disk() -> int:
    """By this process so far; 0 where that is not told."""
    told = Path("/proc/self/io")
    lines = told.read_text().splitlines() if told.is_file() else ()
    return sum(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def measured(call: Callable[[], None], count: int) -> dict[str, float]:
    gc.collect()  # nobody pays for what others left
    disk, wall, cpu = bytes_from_disk(), time.perf_counter(), time.process_time()
    call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": count / wall, "cpu": count / cpu, "disk": float(bytes_from_disk() - disk)}


def fastest(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """By either clock, and the least from the disk."""
    return {name: (min if name == "disk" else max)(run[name] for run in runs) for name in runs[0]}


def measure(format_: Format, order: Sequence[int], rounds: int) -> dict[str, Any]:
    """All ways to read a format. A slow one gets no further round after a minute."""
    count, files, into = len(order), format_.files(), Buffer()
    runs: dict[str, list[dict[str, float]]] = {}
    ways: Mapping[str, Order] = {"sequential": None, "shuffled": order}

    def take(name: str, call: Callable[[], None]) -> None:
        runs.setdefault(name, []).append(measured(call, count))

    def take_all(read: Read, chosen: Order) -> None:
        for row in read(chosen):
            into.take(row)

    def anew(chosen: Order) -> None:
        with format_.reader(count, shuffled=chosen is not None) as read:
            take_all(read, chosen)

    for _ in _within_a_minute(rounds):
        for kind, chosen in ways.items():
            forget(files)
            take(f"{kind}, cold", lambda chosen=chosen: anew(chosen))
        forget(files)
        take("copy, cold", lambda: copy(files, ROW_BYTES))
    for kind, chosen in ways.items():
        with format_.reader(count, shuffled=chosen is not None) as read:
            take_all(read, chosen)
            for _ in _within_a_minute(rounds):
                take(f"{kind}, warm", lambda read=read, chosen=chosen: take_all(read, chosen))
                take("copy, warm", lambda: copy(files, ROW_BYTES))
    return {
        "bytes": sum(path.stat().st_size for path in files),
        **{name: fastest(found) for name, found in runs.items()},
    }


def _within_a_minute(rounds: int) -> Iterator[int]:
    """Round numbers; at least one."""
    began = time.perf_counter()
    return takewhile(lambda turn: not turn or time.perf_counter() - began < _SECONDS_OF_ROUNDS, range(rounds))


def compare(scratch: Path, gigabytes: float, rounds: int) -> dict[str, Any]:
    """Write, read and remove each format in turn: two of them may not fit in memory together."""
    count = max(2 * _DISTINCT, int(gigabytes * 1e9 / ROW_BYTES))
    order = np.random.default_rng(1).permutation(count).tolist()
    found = {}
    for name, make in FORMATS.items():
        format_ = make(scratch / name)
        format_.write(rows(), count)
        found[name] = measure(format_, order, rounds)
        shutil.rmtree(scratch / name)
        print(name, flush=True)
    return {"rows": count, "row bytes": ROW_BYTES, "formats": found}


def show(result: Mapping[str, Any]) -> None:
    kinds = [f"{kind}, {cache}" for kind in ("sequential", "shuffled", "copy") for cache in ("cold", "warm")]
    for clock in ("wall", "cpu"):
        table = [
            (name, *(round(figures[kind][clock]) for kind in kinds)) for name, figures in result["formats"].items()
        ]
        print_table(f"Rows per second, {clock}; {result['rows']} rows of {ROW_BYTES} bytes", ("", *kinds), table)
    table = [
        (name, *(figures[kind]["disk"] / figures["bytes"] for kind in kinds))
        for name, figures in result["formats"].items()
    ]
    print_table("Share of the files' bytes that came from the disk", ("", *kinds), table)


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
