"""What an engine runs and what it tells: the seam between stages and the machines that do their work.

The unit of work is a *part* of a store's plan. A worker is built once per device, lives long, and commits the parts that it is
given; an engine only starts workers, hands them parts and watches them. Fault policy lives above the engines, in
`vlprep.engines.policy`, so that every engine has the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


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
    """How a worker tells its supervisor what it has in hand. Calls are cheap and thread-safe."""

    def begin(self, item: str) -> None:
        """Work on this item has begun; its watchdog starts."""

    def done(self, item: str) -> None:
        """The item is finished (a row or a failure); its watchdog stops."""


class Worker(Protocol):
    """Built in its own process by `WorkerSpec.build`; `run` is called for one job after another."""

    def run(self, job: Job, beat: Beat) -> PartDone:
        """Do the items of the part and commit it (unless it is a probe)."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A worker that another process can build: picklable, imports nothing until built there."""

    target: str
    """`module:callable`; called as `callable(device=..., **arguments)` and returns a `Worker`."""
    arguments: Mapping[str, Any]
