"""The formats that reading.py compares: how each keeps rows of an image's regions on disk, and its fastest usual way
to read them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import h5py
import lmdb
import msgpack
import numpy as np
import webdataset
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
DISTINCT = 64
"""Rows with content of their own; it repeats, and nothing here compresses."""
_TAR_BYTES = 100_000_000
_AHEAD = 64

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
    """Another way to read the same files."""

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
FOLDERS = {"lmdb-ra": "lmdb"}
"""Where that is not the format's name."""


def _key(number: int) -> bytes:
    return f"{number:09}".encode()


def _arrays(raw: Mapping[str, bytes]) -> Arrays:
    return {name: np.frombuffer(raw[name], dtype).reshape(shape) for name, (dtype, shape) in FIELDS.items()}


def rows() -> Iterator[Arrays]:
    """Endless."""
    rng = np.random.default_rng(0)
    made = [
        {name: rng.integers(0, 1000, shape).astype(dtype) for name, (dtype, shape) in FIELDS.items()}
        for _ in range(DISTINCT)
    ]
    while True:
        yield from made
