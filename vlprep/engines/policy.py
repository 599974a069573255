"""What to run next when workers die: attempts per part, then bisection to the item that kills, then on without it.

A state machine without processes or clocks; an engine asks `next_job` and reports `succeeded` or `failed`.

Why not an engine's own retries: a standard library pool hangs for ever when a worker is killed, Ray Data retries a
poison item without end or drops its whole block (both tried).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from vlprep.engines.base import ItemPoisoned, Job, PartDone
from vlprep.errors import VlprepError

STARTS = 2
"""A worker that fails this often in a row before its first job does not fail by chance."""
CONDEMNED_IN_A_ROW = 16
"""So many poison items without one success between them mean a broken machine or detector, not broken items."""


@dataclass(frozen=True, slots=True)
class Fault:
    """How a job ended without a result."""

    cause: str
    """`killed its worker (signal 11)`: reads on from the name of an item."""
    suspects: tuple[str, ...]
    """Items in hand; for a hang, those over their time."""
    certain: bool = False
    """The one suspect is known to be the culprit: no second attempt, no bisection."""


@dataclass(slots=True)
class _Case:
    """A part that has cost a worker."""

    deaths: int = 0
    unexplained: int = 0
    poison: dict[str, str] = field(default_factory=dict)
    fault: Fault | None = None
    """What is being bisected."""
    probes: int = 0
    """Groups of the present bisection that are queued or running."""
    found: bool = False
    """The present bisection has found a poison item."""
    fruitless: int = 0


class FaultPolicy:
    """The queue of jobs of one run and the verdicts on those that failed."""

    def __init__(self, parts: Sequence[int], attempts: int = 2) -> None:
        if attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {attempts}")
        self._attempts = attempts
        self._queue = deque(Job(part) for part in parts)
        self._running = 0
        self._cases: dict[int, _Case] = {}
        self._failed_starts: dict[str, int] = {}
        self._condemned_in_a_row = 0

    @property
    def finished(self) -> bool:
        """All parts are done."""
        return not self._queue and not self._running

    def next_job(self) -> Job | None:
        """The next job for a free worker; None while there is none to give."""
        if not self._queue:
            return None
        self._running += 1
        return self._queue.popleft()

    def started(self, worker: str) -> None:
        """This worker is built and takes its first job."""
        self._failed_starts.pop(worker, None)

    def failed_to_start(self, worker: str, job: Job, cause: str) -> None:
        """The worker died before it could begin; the job is blameless. Raises `VlprepError` when it happens again."""
        self._running -= 1
        self._queue.appendleft(job)
        self._failed_starts[worker] = self._failed_starts.get(worker, 0) + 1
        if self._failed_starts[worker] >= STARTS:
            raise VlprepError(
                f"the worker on {worker} failed {STARTS} times to start: {cause}. Its own messages are above; "
                "run with --device cpu or fewer --workers if the device or its memory is the reason"
            )

    def succeeded(self, job: Job, done: PartDone) -> list[ItemPoisoned]:
        """The job came to its end; returns the items condemned by it (as `_end_probe` says)."""
        self._running -= 1
        if done.rows + done.failures > len(job.poison):
            self._condemned_in_a_row = 0
        return [] if job.only is None else self._end_probe(job.part)

    def failed(self, job: Job, fault: Fault) -> list[ItemPoisoned]:
        """The job's worker died; returns the items condemned by it. Raises `VlprepError` when nobody can be blamed."""
        self._running -= 1
        case = self._cases.setdefault(job.part, _Case())
        suspects = fault.suspects if job.only is None else tuple(item for item in fault.suspects if item in job.only)
        if not suspects:
            self._try_again_unexplained(job, case, fault)
            return []
        if fault.certain:
            return self._condemn_at_once(job, case, suspects, fault.cause)
        if job.only is None:
            self._retry_or_bisect(job.part, case, fault)
            return []
        if len(job.only) == 1:
            case.found = True
            condemned = self._condemn(job.part, case, suspects, fault.cause)
            return condemned + self._end_probe(job.part)
        self._probe_halves(job.part, case, suspects)
        return self._end_probe(job.part)

    def _try_again_unexplained(self, job: Job, case: _Case, fault: Fault) -> None:
        case.unexplained += 1
        if case.unexplained >= self._attempts:
            raise VlprepError(
                f"part {job.part} {fault.cause} {case.unexplained} times with no item in hand; it is not one bad file. "
                "The worker's own messages are above; the same command resumes"
            )
        self._queue.appendleft(job)

    def _condemn_at_once(self, job: Job, case: _Case, items: tuple[str, ...], cause: str) -> list[ItemPoisoned]:
        condemned = self._condemn(job.part, case, items, cause)
        if job.only is None:
            self._queue.appendleft(Job(job.part, poison=dict(case.poison)))
            return condemned
        case.found = True  # what else is wrong with its group comes out when the part runs again
        return condemned + self._end_probe(job.part)

    def _retry_or_bisect(self, part: int, case: _Case, fault: Fault) -> None:
        case.deaths += 1
        if case.deaths < self._attempts:
            self._queue.appendleft(Job(part, poison=dict(case.poison)))
            return
        case.fault, case.found = fault, False
        self._probe_halves(part, case, fault.suspects)

    def _probe_halves(self, part: int, case: _Case, items: tuple[str, ...]) -> None:
        middle = len(items) // 2
        for half in (items[middle:], items[:middle]):
            if half:
                self._add_probe(part, case, half)

    def _add_probe(self, part: int, case: _Case, items: tuple[str, ...]) -> None:
        case.probes += 1
        self._queue.appendleft(Job(part, only=items))

    def _end_probe(self, part: int) -> list[ItemPoisoned]:
        """One group is settled; after the last, the whole part runs again without the poison."""
        case = self._cases[part]
        case.probes -= 1
        if case.probes:
            return []
        condemned: list[ItemPoisoned] = []
        if not case.found:
            case.fruitless += 1
            if case.fruitless > 1:  # each alone is harmless, together they kill: without a verdict this would never end
                assert case.fault is not None
                what = f"{case.fault.cause}, together with others in hand"
                condemned = self._condemn(part, case, case.fault.suspects, what)
        self._queue.appendleft(Job(part, poison=dict(case.poison)))
        return condemned

    def _condemn(self, part: int, case: _Case, items: tuple[str, ...], what: str) -> list[ItemPoisoned]:
        case.poison.update(dict.fromkeys(items, what))
        self._condemned_in_a_row += 1
        if self._condemned_in_a_row >= CONDEMNED_IN_A_ROW:
            raise VlprepError(
                f"{CONDEMNED_IN_A_ROW} items in a row cost their worker, the last of them {items[-1]} ({what}); "
                "this is the machine or the settings, not the files. The same command resumes"
            )
        return [ItemPoisoned(part, item, what) for item in items]
