"""The worker's side of the local engine: build a worker, take jobs from a pipe, say what is in hand.

This process must never outlive its driver, print on the driver's stdout, or answer the terminal's Ctrl-C by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import logging
import os
import queue
import signal
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import FrameType
from typing import NoReturn, TypeAlias

from vlprep.engines.base import Job, PartDone, Worker, WorkerSpec
from vlprep.errors import VlprepError

_log = logging.getLogger("vlprep")


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker is built."""


@dataclass(frozen=True, slots=True)
class Begun:
    item: str


@dataclass(frozen=True, slots=True)
class SetAside:
    item: str


@dataclass(frozen=True, slots=True)
class Done:
    item: str


@dataclass(frozen=True, slots=True)
class Finished:
    done: PartDone


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception that is about to end this process, laid to the items in hand."""

    what: str


@dataclass(frozen=True, slots=True)
class Fatal:
    """An error that ends the run."""

    error: VlprepError


Message: TypeAlias = Ready | Begun | SetAside | Done | Finished | Raised | Fatal


class PipeBeat:
    """Tells the driver, synchronously: what was begun before a crash has been said before it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def begin(self, item: str) -> None:
        self.tell(Begun(item))

    def set_aside(self, item: str) -> None:
        self.tell(SetAside(item))

    def done(self, item: str) -> None:
        self.tell(Done(item))

    def tell(self, message: Message) -> None:
        with self._lock:
            try:
                self._connection.send(message)
            except BrokenPipeError:
                _leave()


def build(spec: WorkerSpec, device: str, threads: int) -> Worker:
    """Import and call `spec.target`."""
    module, _, name = spec.target.partition(":")
    worker: Worker = getattr(importlib.import_module(module), name)(device=device, threads=threads, **spec.arguments)
    return worker


def main(connection: Connection, spec: WorkerSpec, device: str, threads: int) -> None:
    """The life of a worker process, from build to the driver's `None`."""
    faulthandler.enable()
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _unwind)
    jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, jobs), daemon=True).start()
    beat = PipeBeat(connection)
    try:
        worker = build(spec, device, threads)
        beat.tell(Ready())
        while (job := jobs.get()) is not None:
            beat.tell(Finished(worker.run(job, beat)))
            _give_memory_back()
    except VlprepError as error:
        beat.tell(Fatal(error))
    except Exception as error:  # noqa: BLE001 (the end of a process, told to its driver)
        _log.exception("the worker on %s ends", device)
        beat.tell(Raised(f"raised {type(error).__name__}: {error}"))
        _leave()  # and not through the interpreter's end, which waits for threads that may hang
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left to put away, and an exception would be a trace


def _listen(connection: Connection, jobs: queue.SimpleQueue[Job | None]) -> None:
    """Take jobs from the pipe; its end means that the driver is gone, even by SIGKILL."""
    try:
        while True:
            jobs.put(connection.recv())
    except (EOFError, OSError):
        _leave()


def _leave() -> NoReturn:
    os._exit(1)


def _give_memory_back() -> None:
    """Make glibc return what was freed: kept in pieces, it had grown by a tenth after a thousand pictures."""
    with contextlib.suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).malloc_trim(0)


def _unwind(signal_number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM as an exception, so that a part in hand takes its temporary file away."""
    raise SystemExit(128 + signal_number)
