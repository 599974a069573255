"""How far a stage is: a bar on a terminal, a plain line every few seconds elsewhere, both on stderr."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from vlprep_cli.output import counted, duration_text

if TYPE_CHECKING:
    from vlprep.stages.run import OnStageEvent, Planned, StageEvent

log = logging.getLogger("vlprep.progress")

LINE_EVERY_S = 5.0
_WINDOW_S = 60.0
"""Over which the rate is taken, so that loading a model does not weigh on it."""


class Tally:
    """What the events of a run add up to. `now` is in seconds of any clock that does not run backwards."""

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self.total = self.done = self.failed = 0
        self._window: deque[tuple[float, int]] = deque()

    def take(self, event: StageEvent, now: float) -> None:
        """Count an event; what befell a worker or an item goes to the log."""
        from vlprep.engines.base import ItemPoisoned, ItemsDone, PartFinished, WorkerDied
        from vlprep.stages.run import Planned

        match event:
            case Planned():
                self.total = event.items
            case ItemsDone(count):
                self._advance(count, now)
            case PartFinished(done):
                self.failed += done.failures
            case WorkerDied(worker, part, cause):
                log.warning("part %d %s on %s; it is tried again", part, cause, worker)
            case ItemPoisoned(_, item, what):
                log.warning("%s %s: given up", item, what)

    def _advance(self, count: int, now: float) -> None:
        if count < self.done:  # a worker died, and its part starts over
            self._window.clear()
        self.done = count
        self._window.append((now, count))
        while len(self._window) > 2 and now - self._window[0][0] > _WINDOW_S:
            self._window.popleft()

    def rate(self) -> float | None:
        """Items a second lately; None before anything can be said."""
        if len(self._window) < 2:
            return None
        (start, first), (end, last) = self._window[0], self._window[-1]
        return (last - first) / (end - start) if end > start and last > first else None

    def pace(self) -> str:
        """`5.2 images/s, 28 min 3 s left, 3 failed`."""
        parts = [f"{self.failed:,} failed"] if self.failed else []
        if rate := self.rate():
            left = duration_text((self.total - self.done) / rate)
            parts = [f"{rate:.3g} {self.noun}s/s", f"{left} left", *parts]
        return ", ".join(parts)

    def line(self) -> str:
        """`1,200 of 10,000 images, …`."""
        return ", ".join(filter(None, [f"{self.done:,} of {counted(self.total, self.noun)}", self.pace()]))


@contextmanager
def show_progress(noun: str, *, quiet: bool) -> Iterator[OnStageEvent]:
    """Give a function that takes a stage's events."""
    tally = Tally(noun)
    if quiet:
        yield lambda event: tally.take(event, time.monotonic())
    elif sys.stderr.isatty() and not os.environ.get("CI"):
        with _bar(tally) as on_event:
            yield on_event
    else:
        yield plain_lines(tally, time.monotonic)


def plain_lines(tally: Tally, clock: Callable[[], float]) -> OnStageEvent:
    """For log files: what is planned, then a line at most every few seconds."""
    from vlprep.stages.run import Planned

    last = clock()

    def on_event(event: StageEvent) -> None:
        nonlocal last
        now = clock()
        tally.take(event, now)
        if isinstance(event, Planned):
            click.echo(_plan_line(event, tally.noun), err=True)
        elif now - last >= LINE_EVERY_S:
            last = now
            click.echo(tally.line(), err=True)

    return on_event


@contextmanager
def _bar(tally: Tally) -> Iterator[OnStageEvent]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    from vlprep.stages.run import Planned

    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"))
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False, transient=True) as progress:
        task = progress.add_task("", total=None, pace="looking at the dataset")

        def on_event(event: StageEvent) -> None:
            tally.take(event, time.monotonic())
            if isinstance(event, Planned):
                progress.console.print(_plan_line(event, tally.noun), highlight=False)
            progress.update(task, total=tally.total or None, completed=tally.done, pace=tally.pace())

        yield on_event


def _plan_line(planned: Planned, noun: str) -> str:
    before = f"{planned.before.rows:,} done before" if planned.before.rows else ""
    to_do = (
        f"{counted(planned.items, noun)} to do in {counted(planned.parts, 'part')}"
        if planned.items
        else "nothing to do"
    )
    return f"{', '.join(filter(None, [to_do, before]))}: {planned.folder}"
