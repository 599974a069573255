"""The engine's contract within one process: no torch to import again for each run, and nothing that may die alone."""

from __future__ import annotations

from collections.abc import Sequence

from vlprep.engines.base import ItemsDone, Job, OnEvent, PartFinished, WorkerSpec
from vlprep.engines.child import build


class CountingBeat:
    """Checks that no item is finished twice or worked on in two places at once."""

    def __init__(self) -> None:
        self.in_hand: set[str] = set()
        self.finished: list[str] = []

    def begin(self, item: str) -> None:
        assert item not in self.in_hand
        self.in_hand.add(item)

    def set_aside(self, item: str) -> None:
        self.in_hand.remove(item)

    def done(self, item: str) -> None:
        self.in_hand.discard(item)
        self.finished.append(item)


def run_parts(
    spec: WorkerSpec,
    parts: Sequence[int],
    *,
    devices: Sequence[str],
    workers: int,
    item_timeout: float,
    on_event: OnEvent,
) -> None:
    """In the place of `vlprep.engines.local.run_parts`."""
    if not parts:
        return
    worker = build(spec, devices[0], threads=2)
    count = 0
    for part in parts:
        beat = CountingBeat()
        done = worker.run(Job(part), beat)
        assert not beat.in_hand
        assert len(beat.finished) == len(set(beat.finished)) == done.rows + done.failures
        count += len(beat.finished)
        on_event(ItemsDone(count))
        on_event(PartFinished(done))
