"""The fault policy alone, against a simulated machine: whatever dies, the accounts come out right."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlprep.engines.base import ItemPoisoned, Job, PartDone
from vlprep.engines.policy import CONDEMNED_IN_A_ROW, Fault, FaultPolicy
from vlprep.errors import VlprepError

PART_SIZE = 12
HAND = 4
KILLED = "killed its worker (signal 9)"


class Machine:
    """Runs jobs as a worker would, `HAND` items in hand at a time; killers kill, hangers hang."""

    def __init__(self, killers: set[str], hangers: set[str], strikes: int = 0, seed: int = 0) -> None:
        self.killers, self.hangers, self.strikes = killers, hangers, strikes
        self.random = random.Random(seed)
        self.committed: dict[int, set[str]] = {}
        self.poisoned: dict[str, str] = {}
        self.runs = 0

    def run(self, policy: FaultPolicy, workers: int = 1) -> None:
        jobs: list[Job] = []
        while not policy.finished:
            while len(jobs) < workers and (job := policy.next_job()):
                jobs.append(job)
            job = jobs.pop(self.random.randrange(len(jobs)))
            self.runs += 1
            fault = self.outcome(job)
            for event in policy.failed(job, fault) if fault else self.finish(policy, job):
                assert event.item not in self.poisoned
                self.poisoned[event.item] = event.what

    def finish(self, policy: FaultPolicy, job: Job) -> list[ItemPoisoned]:
        if job.only is None:
            assert job.part not in self.committed
            self.committed[job.part] = set(job.poison)
        items = len(job.only or names(job.part))
        return policy.succeeded(job, PartDone(job.part, items - len(job.poison), len(job.poison), 0.0))

    def outcome(self, job: Job) -> Fault | None:
        items = [item for item in names(job.part) if item not in job.poison]
        if job.only is not None:
            items = [item for item in items if item in job.only]
        for start in range(0, len(items), HAND):
            hand = tuple(items[start : start + HAND])
            if self.strikes and self.random.random() < 0.2:  # an operator with kill -9
                self.strikes -= 1
                return Fault(KILLED, hand)
            if hung := [item for item in hand if item in self.hangers]:
                return Fault("took longer than 60 s", (hung[0],), certain=True)
            if any(item in self.killers for item in hand):
                return Fault(KILLED, hand)
        return None


def names(part: int) -> list[str]:
    return [f"{part}/{number}" for number in range(PART_SIZE)]


ITEMS = [item for part in range(4) for item in names(part)]


@settings(max_examples=150, deadline=None)
@given(
    killers=st.sets(st.sampled_from(ITEMS), max_size=8),
    hangers=st.sets(st.sampled_from(ITEMS), max_size=3),
    attempts=st.integers(1, 3),
    workers=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_exactly_the_bad_items_are_condemned(killers, hangers, attempts, workers, seed):
    machine = Machine(killers, hangers - killers, seed=seed)
    machine.run(FaultPolicy(range(4), attempts), workers)
    assert set(machine.committed) == set(range(4))
    assert set(machine.poisoned) == killers | hangers
    for part, poison in machine.committed.items():
        assert poison == (killers | hangers) & set(names(part))
    for item in hangers - killers:
        assert machine.poisoned[item] == "took longer than 60 s"


@settings(max_examples=150, deadline=None)
@given(killers=st.sets(st.sampled_from(ITEMS), max_size=4), strikes=st.integers(0, 12), seed=st.integers(0, 10**6))
def test_random_kills_from_outside_lose_nothing(killers, strikes, seed):
    machine = Machine(killers, set(), strikes, seed)
    machine.run(FaultPolicy(range(4)), workers=2)
    assert set(machine.committed) == set(range(4))
    assert killers <= set(machine.poisoned), "a killer must be found, an innocent may be caught in the cross-fire"
    for part, poison in machine.committed.items():
        assert poison == set(machine.poisoned) & set(names(part))


def test_one_kill_from_outside_condemns_nobody():
    machine = Machine(set(), set(), strikes=1)
    machine.run(FaultPolicy(range(4)))
    assert machine.poisoned == {}


def test_a_bad_item_costs_few_workers():
    machine = Machine({"0/5"}, set())
    machine.run(FaultPolicy([0]))
    assert machine.runs == 2 + 4 + 1, "two attempts, halves and quarters of the four in hand, the part without it"


def test_items_that_only_kill_together_do_not_run_for_ever():
    class Together(Machine):
        def outcome(self, job: Job) -> Fault | None:
            both = {"0/1", "0/2"} <= set(job.only or names(0)) - set(job.poison)
            return Fault(KILLED, ("0/1", "0/2")) if both else None

    machine = Together(set(), set())
    machine.run(FaultPolicy([0]))
    assert machine.poisoned == dict.fromkeys(("0/1", "0/2"), f"{KILLED}, together with others in hand")


def test_deaths_that_no_item_explains_end_the_run():
    policy = FaultPolicy([7])
    policy.failed(policy.next_job(), Fault(KILLED, ()))
    with pytest.raises(VlprepError, match=r"part 7 killed its worker \(signal 9\) 2 times with no item in hand"):
        policy.failed(policy.next_job(), Fault(KILLED, ()))


def test_a_worker_that_cannot_start_ends_the_run():
    policy = FaultPolicy([0, 1])
    policy.failed_to_start("cuda:1", policy.next_job(), "raised RuntimeError: no memory")
    with pytest.raises(VlprepError, match="cuda:1 failed 2 times to start: raised RuntimeError: no memory"):
        policy.failed_to_start("cuda:1", policy.next_job(), "raised RuntimeError: no memory")


def test_a_worker_that_starts_in_the_end_is_forgiven():
    policy = FaultPolicy([0])
    for _ in range(3):
        policy.failed_to_start("cpu", policy.next_job(), KILLED)
        policy.started("cpu")
    assert policy.next_job() == Job(0)


def test_when_everything_is_poison_the_machine_is_blamed():
    machine = Machine(set(names(0)) | set(names(1)), set())
    with pytest.raises(VlprepError, match=rf"{CONDEMNED_IN_A_ROW} items in a row"):
        machine.run(FaultPolicy([0, 1]))


def test_many_bad_items_among_good_ones_are_no_reason_to_stop():
    parts = range(2 * CONDEMNED_IN_A_ROW)
    machine = Machine({f"{part}/3" for part in parts}, set())
    machine.run(FaultPolicy(parts))
    assert set(machine.poisoned) == machine.killers
