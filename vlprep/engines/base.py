"""What an engine runs and what it tells: the seam between stages and the machines that do their work.

The unit of work is a *part* of a store's plan. A worker is built once per device, lives long, and commits the parts
that it is given; an engine only starts workers, hands them parts and watches them. Fault policy lives above the
engines, in `vlprep.engines.policy`, so that every engine has the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class Job:
    """One part for one worker."""

    part: int
    only: tuple[str, ...] | None = None
    """A probe: run just these items of the part and commit nothing (bisection of a part that kills its workers)."""
    poison: Mapping[str, str] = field(default_factory=dict)
    """Items known to kill or hang a worker, with what they did: failure rows, not to be touched again."""


@dataclass(frozen=True, slots=True)
class PartDone:
    """What a worker says of a finished job; small, since features never travel between processes."""

    part: int
    rows: int
    failures: int
    seconds: float
    stats: Mapping[str, float] = field(default_factory=dict)
    """Seconds by pipeline stage (`decode`, `network`, `select`, `write`, `wait`), for people and benchmarks."""


class Beat(Protocol):
    """How a worker tells its supervisor which items it works on at this moment. Calls are cheap and thread-safe.

    The items *in hand* when a worker dies or hangs are the suspects, so an item that waits in a queue is set aside.
    """

    def begin(self, item: str) -> None:
        """A step of this item's work begins; its watchdog starts."""

    def set_aside(self, item: str) -> None:
        """The item waits for its next step; its watchdog stops."""

    def done(self, item: str) -> None:
        """The item is finished (a row or a failure); its watchdog stops."""


class Worker(Protocol):
    """Built in its own process by `WorkerSpec.build`; `run` is called for one job after another.

    An item that cannot be used is a failure row, never an exception. A `VlprepError` ends the whole run; any other
    exception costs this process and is laid to the items in hand.
    """

    def run(self, job: Job, beat: Beat) -> PartDone:
        """Do the items of the part and commit it (unless it is a probe)."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A worker that another process can build: picklable, imports nothing until built there."""

    target: str
    """`module:callable`; called as `callable(device=..., threads=..., **arguments)` and returns a `Worker`. `threads`
    are the CPU cores that are this worker's share."""
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ItemsDone:
    """Progress. May fall back: a part whose worker died starts over."""

    count: int
    """Items of this run that are finished so far, in finished parts and in those in hand."""


@dataclass(frozen=True, slots=True)
class PartFinished:
    """A part is committed."""

    done: PartDone


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """A worker is gone; what it had in hand is tried again or bisected, and another takes its place."""

    worker: str
    """Its device, numbered where several share it: `cuda:1`, `cpu/0`."""
    part: int
    cause: str
    """`killed its worker (signal 9)`, `took longer than 60 s`, `raised ValueError: ...`."""
    in_hand: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ItemPoisoned:
    """An item was found to kill or hang its worker; it becomes a failure row."""

    part: int
    item: str
    what: str


Event: TypeAlias = ItemsDone | PartFinished | WorkerDied | ItemPoisoned
OnEvent: TypeAlias = Callable[[Event], None]
