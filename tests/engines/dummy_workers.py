"""Workers without a stage behind them: they append what they committed to a text file and misbehave on request."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from vlprep.engines.base import Beat, Job, PartDone
from vlprep.errors import VlprepError


class DummyWorker:
    """Parts of `part_size` items named `part/number`; `tricks` maps an item to what happens there."""

    def __init__(self, device: str, threads: int, folder: str, part_size: int, tricks: Mapping[str, str]) -> None:
        self._folder, self._part_size, self._tricks = Path(folder), part_size, tricks
        print(f"built on {device} with {threads} threads, CUDA {os.environ['CUDA_VISIBLE_DEVICES']!r}")
        (self._folder / f"pid-{os.getpid()}").touch()

    def run(self, job: Job, beat: Beat) -> PartDone:
        began = time.monotonic()
        committed: list[str] = []
        for item in [f"{job.part}/{number}" for number in range(self._part_size)]:
            if job.only is not None and item not in job.only:
                continue
            if what := job.poison.get(item):
                committed.append(f"{item} failed: {what}")
                continue
            beat.begin(item)
            self._act(self._tricks.get(item, ""))
            beat.done(item)
            committed.append(f"{item} row")
        if job.only is None:
            (self._folder / f"part-{job.part}.txt").write_text("\n".join(committed))
        failures = sum("failed" in line for line in committed)
        return PartDone(job.part, len(committed) - failures, failures, time.monotonic() - began)

    def _act(self, trick: str) -> None:
        match trick.split():
            case ["signal", number]:
                os.kill(os.getpid(), int(number))
                time.sleep(60)
            case ["signal-once", number]:
                if not (mark := self._folder / "once").exists():
                    mark.touch()
                    os.kill(os.getpid(), int(number))
                    time.sleep(60)
            case ["exit", code]:
                os._exit(int(code))
            case ["sleep", seconds]:
                time.sleep(float(seconds))
            case ["raise"]:
                raise ValueError("cannot add apples")
            case ["fatal"]:
                raise VlprepError("the disk is full: /data; free some space")


def never_built(device: str, threads: int) -> DummyWorker:
    raise RuntimeError("no such model")


class DiesBetweenItems(DummyWorker):
    def run(self, job: Job, beat: Beat) -> PartDone:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError
