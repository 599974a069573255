"""Killed at any moment and run again, a store is the uninterrupted one, byte for byte."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import inline_engine
import psutil
import pytest
from region_fixtures import make_pictures, run_settings, settings

from vlprep.shards import StoreReader
from vlprep.stages import run
from vlprep.stages.extract_regions import extract_regions

PICTURES = 40


@pytest.fixture(scope="module")
def context() -> Iterator[multiprocessing.context.ForkServerContext]:
    """Processes that find torch imported: a kill then costs no more than the work that it undoes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vlprep.stages.region_worker", "vlprep.stages.extract_regions"])
    yield context
    multiprocessing.forkserver._forkserver._stop()


def extract(dataset: Path, out: Path, workers: int, seconds: float) -> None:
    """One run; with 0 workers inside this process."""
    if not workers:
        run.run_parts = inline_engine.run_parts
    chosen = settings(overrides={"feature_dim": 256, "seconds": seconds})
    extract_regions(dataset, chosen, run_settings(out=out, part_size=6, workers=max(workers, 1)))


def contents(store: Path) -> dict[str, bytes]:
    """The plan and the data; the marks differ in their seconds."""
    return {path.name: path.read_bytes() for path in sorted(store.glob("*.arrow"))}


def kill_and_resume(
    context: multiprocessing.context.ForkServerContext, tmp_path: Path, moments: int, workers: int, seconds: float
) -> None:
    make_pictures(tmp_path / "pictures", PICTURES)

    def start(out: Path) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=extract, args=(tmp_path / "pictures", out, workers, seconds))
        process.start()
        return process

    began = time.monotonic()
    start(tmp_path / "whole").join()
    length = time.monotonic() - began
    whole = contents(tmp_path / "whole")
    assert len(StoreReader(tmp_path / "whole")) == PICTURES
    rng = random.Random(2)
    for moment in range(moments):
        out = tmp_path / f"killed-{moment}"
        process = start(out)
        process.join(rng.uniform(0, length))
        process.kill()
        process.join()
        assert not list(out.glob("part-*.tmp")), "a file in the making must not look like a part"
        again = start(out)
        again.join()
        assert again.exitcode == 0
        assert contents(out) == whole
        assert not [path for path in out.iterdir() if path.suffix == ".tmp"]


def test_a_few_kills(tmp_path, context):
    kill_and_resume(context, tmp_path, moments=6, workers=0, seconds=0.01)


@pytest.mark.slow
def test_fifty_kills(tmp_path, context):
    kill_and_resume(context, tmp_path, moments=50, workers=0, seconds=0.01)


@pytest.mark.slow
def test_kills_of_a_driver_with_two_workers(tmp_path, context):
    kill_and_resume(context, tmp_path, moments=6, workers=2, seconds=0.01)


def until(condition: Callable[[], object]) -> None:
    for _ in range(2400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited 2 minutes in vain")


@pytest.mark.slow
def test_killing_one_of_two_workers_loses_nothing(tmp_path, context):
    make_pictures(tmp_path / "pictures", PICTURES)
    process = context.Process(target=extract, args=(tmp_path / "pictures", tmp_path / "store", 2, 0.05))
    process.start()
    until(lambda: list((tmp_path / "store").glob("part-*.json")))
    workers = [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    os.kill(workers[0].pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == 0
    assert len(StoreReader(tmp_path / "store")) == PICTURES
