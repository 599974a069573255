"""Killed at any moment and run again, the stores of a video run are the uninterrupted ones, byte for byte."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Iterator
from pathlib import Path

import inline_engine
import psutil
import pytest
from video_folder import choice, make_videos, run_settings, settings

from vlprep.stages import run
from vlprep.stages.extract_video import extract_video

STORES = ("dummy_encoder.clips", "dummy_encoder.frames")


@pytest.fixture(scope="module")
def context() -> Iterator[multiprocessing.context.ForkServerContext]:
    """Processes that find torch imported: a kill then costs no more than the work that it undoes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vlprep.stages.video_worker"])
    yield context
    multiprocessing.forkserver._forkserver._stop()


def extract(dataset: Path, out: Path, workers: int, seconds: float) -> None:
    """One run; with 0 workers inside this process."""
    if not workers:
        run.run_parts = inline_engine.run_parts
    chosen = settings(choice(weights=f"seconds:{seconds}"), choice("frames"))
    extract_video(dataset, chosen, run_settings(out=out, part_size=2, workers=max(workers, 1)))


def contents(out: Path) -> dict[str, bytes]:
    """Plans and data; the marks differ in their seconds."""
    return {
        f"{store}/{path.name}": path.read_bytes() for store in STORES for path in sorted((out / store).glob("*.arrow"))
    }


def kill_and_resume(
    context: multiprocessing.context.ForkServerContext, tmp_path: Path, moments: int, workers: int
) -> None:
    data = tmp_path / "data"
    make_videos(data, seconds=(2, 1, 3, 1, 1, 2, 2, 1, 1, 1))

    def start(out: Path) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=extract, args=(data, out, workers, 0.02))
        process.start()
        return process

    began = time.monotonic()
    start(tmp_path / "whole").join()
    length = time.monotonic() - began
    whole = contents(tmp_path / "whole")
    assert len(whole) == 12
    rng = random.Random(5)
    for moment in range(moments):
        out = tmp_path / f"killed {moment}"
        process = start(out)
        process.join(rng.uniform(0.1, 0.9) * length)
        children = psutil.Process(process.pid).children(recursive=True) if process.is_alive() else []
        process.kill()
        process.join()
        _, alive = psutil.wait_procs(children, timeout=90)  # one may still be importing torch
        assert not alive, "a worker or a decoder outlived its driver"
        start(out).join()
        assert contents(out) == whole
        assert not [path for store in STORES for path in (out / store).glob(".*.tmp")]


def test_killed_runs_end_in_the_same_bytes(context, tmp_path):
    kill_and_resume(context, tmp_path, moments=2, workers=0)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_workers_and_drivers_end_in_the_same_bytes(context, tmp_path, workers):
    kill_and_resume(context, tmp_path, moments=8, workers=workers)
