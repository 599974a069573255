"""Processes that die, and several at work on one store."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import tempfile
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from shards.filling import (
    FEATURE_DIM,
    ITEMS,
    contents,
    fill,
    make_and_die,
    make_slowly,
    make_videos,
    open_videos,
    row_of,
    settings,
)

from vlprep.errors import VlprepError
from vlprep.shards import StoreReader, open_store
from vlprep.shards.atomic import NewFile, folder_lock
from vlprep.shards.schema import video_schema
from vlprep.shards.verify import verify

KILLS = 50
SIGKILLED = -9


def start(target: Any, *arguments: Any) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vlprep.shards.describe"])
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where possible: what a kill leaves does not depend on the disk, and waiting for it is slow."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, Any]:
    make_videos(tmp_path / "whole")
    return contents(tmp_path / "whole")


def test_a_store_killed_at_any_line_resumes_to_the_same_bytes(tmp_path: Path, whole: dict[str, Any]) -> None:
    counting = start(make_and_die, tmp_path / "counting", 0)
    counting.join()
    lines = int((tmp_path / "lines").read_text())
    moments = sorted(random.Random(0).sample(range(1, lines), KILLS))
    for moment in moments:
        folder = tmp_path / f"killed-{moment}"
        process = start(make_and_die, folder, moment)
        process.join()
        assert process.exitcode == SIGKILLED
        reader_sees_whole_parts_only(folder)
        make_videos(folder)
        assert contents(folder) == whole, f"killed at line {moment}"
        assert verify(folder) == []
        shutil.rmtree(folder)


def reader_sees_whole_parts_only(folder: Path) -> None:
    if (folder / "store.json").exists():
        reader = StoreReader(folder)
        assert len(list(reader)) == len(reader)
        assert not [problem for problem in verify(folder) if "killed" not in problem and "no mark" not in problem]


def test_a_process_killed_from_outside_loses_only_its_part(tmp_path: Path, whole: dict[str, Any]) -> None:
    seconds = random.Random(1)
    folder = tmp_path / "store"
    for _ in range(6):
        process = start(make_slowly, folder)
        process.join(seconds.uniform(0.01, 0.12))
        process.kill()
        process.join()
    make_videos(folder)
    assert contents(folder) == whole


def test_two_processes_on_the_same_parts_are_harmless(tmp_path: Path, whole: dict[str, Any]) -> None:
    folder = tmp_path / "store"
    processes = [start(make_slowly, folder) for _ in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert contents(folder) == whole
    assert verify(folder) == []


def test_the_first_of_two_commits_stays(tmp_path: Path) -> None:
    store = open_videos(tmp_path)
    store.plan(["a", "b"], 2)
    with store.write_part(0) as slow:
        with store.write_part(0) as fast:
            fast.fail("a", OSError("fast"))
            fast.fail("b", OSError("fast"))
        slow.fail("a", OSError("slow"))
        slow.fail("b", OSError("slow"))
    assert slow.mark == fast.mark
    assert {failure.message for failure in store.status().failures} == {"fast"}
    assert verify(tmp_path) == []


def test_opening_removes_the_files_of_dead_writers_only(tmp_path: Path) -> None:
    make_videos(tmp_path)
    (tmp_path / ".part-00001.arrow.0123.tmp").write_bytes(b"of a killed process")
    with folder_lock(tmp_path):
        alive = NewFile(tmp_path / "part-00002.arrow")
    assert [problem for problem in verify(tmp_path) if "killed" in problem]
    open_videos(tmp_path)
    assert len(list(tmp_path.glob(".*.tmp"))) == 1
    assert verify(tmp_path) == []
    alive.discard()
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_part_of_a_run_whose_store_was_overwritten_is_dropped(tmp_path: Path) -> None:
    store = open_videos(tmp_path)
    store.plan(ITEMS[:1], 1)
    writer = store.write_part(0).__enter__()
    writer.fail(ITEMS[0], ValueError())
    open_store(tmp_path, video_schema(FEATURE_DIM + 1), settings(), overwrite=True)
    with pytest.raises(VlprepError, match="overwritten"):
        writer.__exit__(None, None, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "store.json"]


@pytest.mark.parametrize("part_size", [None, 1, 4])
def test_a_part_of_another_cut_is_dropped(tmp_path: Path, part_size: int | None) -> None:
    slow = open_videos(tmp_path)
    slow.plan(ITEMS[:8], 2)
    writer = slow.write_part(0).__enter__()
    for item in ITEMS[:2]:
        writer.add(item, row_of(item))
    again = open_videos(tmp_path, overwrite=True)
    if part_size is not None:
        again.plan(ITEMS[:8], part_size)
    with pytest.raises(VlprepError, match="overwritten by another run meanwhile: part 0 is dropped"):
        writer.__exit__(None, None, None)
    again.plan(ITEMS[:8], 4)
    fill(again, failing=set())
    assert sorted(StoreReader(tmp_path).ids) == ITEMS[:8]
    assert verify(tmp_path) == []


def test_a_part_of_the_same_cut_is_as_good_as_the_next_runs(tmp_path: Path) -> None:
    slow = open_videos(tmp_path)
    slow.plan(ITEMS[:4], 2)
    with slow.write_part(0) as writer:
        for item in ITEMS[:2]:
            writer.add(item, row_of(item))
        again = open_videos(tmp_path, overwrite=True)
        again.plan(ITEMS[:4], 2)
    assert again.pending() == [1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ZeroDivisionError])
def test_an_exception_leaves_no_trace_of_the_part(tmp_path: Path, error: type[BaseException]) -> None:
    store = open_videos(tmp_path)
    store.plan(ITEMS, 50)
    before = contents(tmp_path)

    def interrupted() -> None:
        with store.write_part(0) as writer:
            writer.fail(ITEMS[0], ValueError())
            raise error

    with pytest.raises(error):
        interrupted()
    assert contents(tmp_path) == before
    assert store.pending() == [0]
