"""Reading rows: our store against LMDB, npz, HDF5 and tars of the same content, and a plain copy of the same bytes.

    python benchmarks/reading.py                  1 GB a format, in a temporary folder
    python benchmarks/reading.py --gigabytes 8    five times that on the disk
    python benchmarks/reading.py --only ours --only lmdb

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
cache is warm. Cold, all formats take turns, round after round, since the disk of a shared machine may be three times as
fast a minute later; warm, each takes turns with the plain copy of its bytes. The fastest round counts.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _formats import DISTINCT, FOLDERS, FORMATS, ROW_BYTES, Buffer, Format, Order, Read, rows
from _measure import print_table, save

_LONGEST_SECONDS = 60


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


class Measurements:
    """Of one format, which has no further round once a pass took more than a minute."""

    def __init__(self, format_: Format, order: Sequence[int]) -> None:
        self.format, self.order, self.files = format_, order, format_.files()
        self._into = Buffer()
        self._runs: dict[str, list[dict[str, float]]] = {}
        self._longest = 0.0

    def cold(self, everything: Sequence[Path]) -> None:
        """A round of both orders and of the copy, each with nothing of `everything` in memory."""
        for kind, chosen in self._orders().items():
            forget(everything)
            self._take(f"{kind}, cold", lambda chosen=chosen: self._anew(chosen))
        forget(everything)
        self._take("copy, cold", self._copy)

    def warm(self, rounds: int) -> None:
        """All rounds of both orders, after a first one that does not count."""
        for kind, chosen in self._orders().items():
            with self.format.reader(len(self.order), shuffled=chosen is not None) as read:
                self._take_all(read, chosen)
                for turn in range(rounds):
                    if not turn or not self.is_slow:
                        self._take(f"{kind}, warm", lambda read=read, chosen=chosen: self._take_all(read, chosen))
                        self._take("copy, warm", self._copy)

    @property
    def is_slow(self) -> bool:
        return self._longest > _LONGEST_SECONDS

    def result(self) -> dict[str, Any]:
        every = {name: fastest(found) for name, found in self._runs.items()}
        return {"bytes": sum(path.stat().st_size for path in self.files), "rounds": self._rounds(), **every}

    def _rounds(self) -> dict[str, int]:
        return {name: len(found) for name, found in self._runs.items()}

    def _orders(self) -> Mapping[str, Order]:
        return {"sequential": None, "shuffled": self.order}

    def _take(self, name: str, call: Callable[[], None]) -> None:
        found = measured(call, len(self.order))
        self._longest = max(self._longest, len(self.order) / found["wall"])
        self._runs.setdefault(name, []).append(found)

    def _anew(self, chosen: Order) -> None:
        with self.format.reader(len(self.order), shuffled=chosen is not None) as read:
            self._take_all(read, chosen)

    def _take_all(self, read: Read, chosen: Order) -> None:
        for row in read(chosen):
            self._into.take(row)

    def _copy(self) -> None:
        copy(self.files, ROW_BYTES)


def compare(scratch: Path, gigabytes: float, rounds: int, only: Sequence[str]) -> dict[str, Any]:
    """Write each format; cold rounds of all in turn, then the warm ones of one after another, since two of them may not
    fit in memory together.
    """
    count = max(2 * DISTINCT, int(gigabytes * 1e9 / ROW_BYTES))
    order = np.random.default_rng(1).permutation(count).tolist()
    measurements: dict[str, Measurements] = {}
    for name in only:
        format_ = FORMATS[name](scratch / FOLDERS.get(name, name))
        if not format_.folder.exists():
            format_.folder.mkdir()
            format_.write(rows(), count)
        measurements[name] = Measurements(format_, order)
        print(f"{name}: written", flush=True)
    everything = sorted({path for one in measurements.values() for path in one.files})
    for turn in range(rounds):
        for name, one in measurements.items():
            if not turn or not one.is_slow:
                one.cold(everything)
                print(f"{name}: cold, round {turn + 1}", flush=True)
    for name, one in measurements.items():
        forget(everything)
        one.warm(rounds)
        print(f"{name}: warm", flush=True)
    return {
        "rows": count,
        "row bytes": ROW_BYTES,
        "formats": {name: one.result() for name, one in measurements.items()},
    }


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
    parser.add_argument("--only", action="append", choices=list(FORMATS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vlprep-bench-") as scratch:
        result = compare(Path(scratch), chosen.gigabytes, chosen.rounds, chosen.only or list(FORMATS))
    show(result)
    save("reading", result, chosen.out)


if __name__ == "__main__":
    main()
