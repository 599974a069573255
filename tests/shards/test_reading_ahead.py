"""What a reader asks of the kernel is what will be used, and nothing depends on the answer."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from shards.filling import ITEMS, fill, open_videos
from shards.test_round_trip import mapped_addresses

from vlprep.shards import StoreReader, pages
from vlprep.shards import reader as reader_module
from vlprep.shards import writer as writer_module

Asked = list[tuple[int, int]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of several parts of several record batches."""
    monkeypatch.setattr(writer_module, "BATCH_BYTES", 500)
    store = open_videos(tmp_path)
    store.plan(ITEMS, 12)
    fill(store, failing=set())
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Ranges of memory."""
    found: Asked = []
    monkeypatch.setattr(reader_module, "will_need", lambda begin, size: found.append((begin, begin + size)))
    return found


def covered(view: np.ndarray, asked: Asked) -> bool:
    return any(begin <= view.ctypes.data and view.ctypes.data + view.nbytes <= end for begin, end in asked)


def test_a_store_that_fits_in_memory_is_asked_for_by_batches_and_once(folder: Path, asked: Asked) -> None:
    reader = StoreReader(folder)
    reader.read_ahead([3, 3, 0])
    batches = len(asked)
    assert 1 <= batches <= 2
    assert all(covered(reader[row]["features"], asked) for row in (0, 3))
    reader.read_ahead([0, 3])
    assert len(asked) == batches
    reader.read_ahead(range(len(reader)))
    assert len(asked) == len(set(asked))
    assert all(covered(row["features"], asked) and covered(row["times"], asked) for row in reader)


def test_of_a_larger_store_rows_alone_are_asked_for(
    folder: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "memory_bytes", lambda: 0)
    reader = StoreReader(folder)
    reader.read_ahead([5])
    row = reader[5]
    assert sorted(asked) == sorted(
        (row[name].ctypes.data, row[name].ctypes.data + row[name].nbytes) for name in ("features", "times")
    )


def test_iteration_asks_for_the_next_batch_within_the_files(folder: Path, asked: Asked) -> None:
    rows = iter(StoreReader(folder))
    first = next(rows)
    assert len(asked) == 1
    assert not covered(first["features"], asked)
    rest = list(rows)
    assert all(covered(row["features"], asked) for row in rest if row["features"].ctypes.data > asked[0][0])
    maps = mapped_addresses(".arrow")
    assert all(any(begin <= start and end <= stop for begin, stop in maps) for start, end in asked)


@pytest.mark.parametrize("memory", [0, 1 << 40])
@pytest.mark.parametrize("can_ask", [True, False])
def test_rows_are_the_same_however_they_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, memory: int, can_ask: bool
) -> None:
    plain = [row["features"].copy() for row in StoreReader(folder)]
    monkeypatch.setattr(reader_module, "memory_bytes", lambda: memory)
    if not can_ask:  # as where the C library has no madvise
        monkeypatch.setattr(pages, "_madvise", None)
    reader = StoreReader(folder)
    order = np.random.default_rng(0).permutation(len(reader)).tolist()
    reader.read_ahead(order)
    for number in order:
        np.testing.assert_array_equal(reader[number]["features"], plain[number])


def test_rows_that_are_not_there_cannot_be_asked_for(folder: Path) -> None:
    reader = StoreReader(folder)
    with pytest.raises(IndexError):
        reader.read_ahead([len(reader)])


def test_maps_end_with_their_reader(folder: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        reader = StoreReader(folder)
        assert reader[0]["features"].ndim == 2
        assert mapped_addresses(str(folder / "part-00000.arrow"))
        del reader
        assert not mapped_addresses(str(folder / "part-00000.arrow"))
    finally:
        gc.enable()
