"""This machine as an engine: one long-lived, supervised process a device.

The driver owns the queue. It waits on pipes and on the processes themselves, so that a worker killed at any instant is
noticed; it kills a worker whose item is over its time; it leaves no process behind, however it ends.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from types import FrameType
from typing import NoReturn

from vlprep.engines.base import ItemsDone, Job, OnEvent, PartDone, PartFinished, WorkerDied, WorkerSpec
from vlprep.engines.devices import cores
from vlprep.engines.policy import FaultPolicy
from vlprep.engines.slot import Slot

_TICK_S = 1.0
_GRACE_S = 5.0
"""How long a worker has to put its part down when the run ends early."""


class Terminated(SystemExit):
    """SIGTERM arrived; the run has been unwound. Exit code 143."""


def run_parts(
    spec: WorkerSpec,
    parts: Sequence[int],
    *,
    devices: Sequence[str],
    workers: int = 1,
    item_timeout: float,
    on_event: OnEvent,
) -> None:
    """Run every part on `workers` processes a device; returns when all are committed.

    `item_timeout` is in seconds of work on one item. Raises the `VlprepError` of a worker that cannot go on, or one
    of the fault policy; KeyboardInterrupt on Ctrl-C and `Terminated` on SIGTERM, the parts in hand dropped.
    """
    policy = FaultPolicy(parts)
    names = {f"{device}/{number}" if workers > 1 else device: device for device in devices for number in range(workers)}
    threads = max(1, cores() // len(names))
    crew = [Slot(name, device, threads, spec) for name, device in names.items()]
    with _sigterm_raises(), _disbanding(crew):
        _supervise(crew, policy, item_timeout, on_event)


def _supervise(crew: Sequence[Slot], policy: FaultPolicy, item_timeout: float, on_event: OnEvent) -> None:
    clock = _WatchClock()
    finished = reported = 0
    while not policy.finished:
        for slot in crew:
            if slot.job is None and (job := policy.next_job()):
                slot.give(job)
        wait([handle for slot in crew for handle in slot.handles()], timeout=min(_TICK_S, item_timeout / 4))
        now = clock.look()
        for slot in crew:
            alive = slot.alive()  # asked before the pipe is emptied, so that nothing said is missed
            for message in slot.messages():
                if (result := slot.hear(message, now)) is not None:
                    finished += _account(*result, policy, on_event)
            if alive:
                slot.watch(now, item_timeout)
            elif slot.job is not None:
                _bury(slot, policy, on_event)
        count = finished + sum(slot.items_done for slot in crew)
        if count != reported:
            reported = count
            on_event(ItemsDone(count))


def _account(job: Job, done: PartDone, policy: FaultPolicy, on_event: OnEvent) -> int:
    """A job came to its end; returns the number of items that are now committed."""
    for condemned in policy.succeeded(job, done):
        on_event(condemned)
    if job.only is not None:
        return 0
    on_event(PartFinished(done))
    return done.rows + done.failures


def _bury(slot: Slot, policy: FaultPolicy, on_event: OnEvent) -> None:
    """A worker died with a job: tell, and let the policy decide what comes next."""
    had_started = slot.ready
    job, fault = slot.clear()
    on_event(WorkerDied(slot.name, job.part, fault.cause, fault.suspects))
    if not had_started:
        policy.failed_to_start(slot.name, job, fault.cause)
        return
    policy.started(slot.name)
    for condemned in policy.failed(job, fault):
        on_event(condemned)


class _WatchClock:
    """Seconds in which the driver was awake: a suspended job (Ctrl-Z) or laptop does not age the items in hand."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._now = 0.0

    def look(self) -> float:
        last, self._last = self._last, time.monotonic()
        self._now += min(self._last - last, 2 * _TICK_S)
        return self._now


@contextlib.contextmanager
def _disbanding(crew: Sequence[Slot]) -> Iterator[None]:
    """No worker outlives the block, whichever way it is left."""
    try:
        yield
    finally:
        deadline = time.monotonic() + _GRACE_S
        with contextlib.ExitStack() as stack:  # a second Ctrl-C cuts the waiting short, not the killing
            for slot in crew:
                stack.callback(slot.stop_by, deadline)
            for slot in crew:
                slot.ask_to_stop()


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM as an exception while workers must be stopped first; only the main thread can arrange it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(signal_number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated(128 + signal_number)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
