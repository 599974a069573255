"""The driver's side of one worker: start its process, give it a job, hear what it says, notice that it is gone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from vlprep.engines import child
from vlprep.engines.base import Job, PartDone, WorkerSpec
from vlprep.engines.devices import visible_alone
from vlprep.engines.policy import Fault


class Slot:
    """A worker's place: processes come and go in it."""

    def __init__(self, name: str, device: str, threads: int, spec: WorkerSpec) -> None:
        self.name = name
        self.job: Job | None = None
        self.items_done = 0
        self._device, self._threads, self._spec = device, threads, spec
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self.ready = False
        self._begun: dict[str, float] = {}
        self._fault: Fault | None = None

    def handles(self) -> list[Connection | int]:
        """What to wait on: not on one that died idle, which would be news for ever."""
        if self.job is None and not self.alive():
            return []
        return [handle for handle in (self._connection, self._process and self._process.sentinel) if handle]

    def alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def give(self, job: Job) -> None:
        """Send a job, to a new process if there is none."""
        if not self.alive():
            self._start()
        self.job = job
        assert self._connection is not None
        with contextlib.suppress(BrokenPipeError):  # it died just now, which the next look will find
            self._connection.send(job)

    def _start(self) -> None:
        self._close()
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, self._spec, _name_inside(self._device), self._threads)
        process = context.Process(target=child.main, args=arguments, name=f"vlprep {self.name}")
        threads = os.environ.get("OMP_NUM_THREADS", str(self._threads))
        try:
            with _environment({"OMP_NUM_THREADS": threads, **visible_alone(self._device)}):
                process.start()
        finally:  # a signal in the middle of this leaves a process that has to be stopped, or none
            self._process = process if process.pid is not None else None
            theirs.close()

    def messages(self) -> Iterator[child.Message]:
        """All that the worker has said since the last call."""
        while self._connection is not None:
            try:
                if not self._connection.poll():
                    return
                message: child.Message = self._connection.recv()
            except (EOFError, OSError):  # a message cut short by the worker's death is as good as unsaid
                self._connection.close()
                self._connection = None
                return
            yield message

    def hear(self, message: child.Message, now: float) -> tuple[Job, PartDone] | None:
        """Take in one message; returns the job that is finished by it."""
        match message:
            case child.Ready():
                self.ready = True
            case child.Begun(item):
                self._begun[item] = now
            case child.SetAside(item):
                self._begun.pop(item, None)
            case child.Done(item):
                self._begun.pop(item, None)
                self.items_done += self.job is not None and self.job.only is None
            case child.Raised(what):
                self._fault = Fault(what, tuple(self._begun))
            case child.Fatal(error):
                raise error
            case child.Finished(done):
                job, self.job = self.job, None
                assert job is not None
                self._forget()
                return job, done
        return None

    def watch(self, now: float, item_timeout: float) -> None:
        """Kill the worker if an item is over its time; items in hand together, as in a batch, have the sum of their
        times."""
        limit = item_timeout * len(self._begun)
        overdue = tuple(item for item, begun in self._begun.items() if now - begun > limit)
        if overdue and self._process is not None and self._fault is None:
            self._fault = Fault(f"took longer than {item_timeout:g} s", overdue, certain=len(overdue) == 1)
            self._process.kill()

    def clear(self) -> tuple[Job, Fault]:
        """Empty the place of a dead worker: the job that it had, and why it died."""
        assert self.job is not None
        assert self._process is not None
        job = self.job
        fault = self._fault or Fault(_cause(self._process.exitcode), tuple(self._begun))
        self.job = None
        self._forget()
        self._close()
        return job, fault

    def _forget(self) -> None:
        self._begun.clear()
        self._fault = None
        self.items_done = 0

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.join()
            self._process.close()
        self._connection = self._process = None
        self.ready = False

    def ask_to_stop(self) -> None:
        """An idle worker leaves by itself; one with a part in hand is told to drop it."""
        if self._process is None or self._connection is None:
            return
        if self.job is not None:
            self._process.terminate()
        else:
            with contextlib.suppress(BrokenPipeError):
                self._connection.send(None)

    def stop_by(self, deadline: float) -> None:
        """Wait until `deadline` (monotonic seconds), then kill."""
        if self._process is None:
            return
        try:
            self._process.join(max(0.0, deadline - time.monotonic()))
        finally:
            if self._process.is_alive():
                self._process.kill()
            self._close()


def _name_inside(device: str) -> str:
    """A CUDA worker sees its own device only."""
    return "cuda:0" if device.startswith("cuda") else device


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"killed its worker (signal {-exit_code})"
    return f"made its worker exit (code {exit_code})"


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set for a child that is being started: thread and device limits are read when libraries load, so before its
    first import."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
