"""Reading ahead, batching and writing behind: order, bounds, and errors that come out."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlprep.stages.flow import Behind, Stopwatch, ahead, alike


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_ahead_keeps_the_order_whatever_takes_long(pool):
    def work(number):
        time.sleep(random.random() / 200)
        return number

    assert list(ahead(pool, work, range(40), depth=6)) == list(range(40))


def test_ahead_is_bounded(pool):
    begun = []
    stream = ahead(pool, begun.append, range(100), depth=5)
    next(stream)
    time.sleep(0.05)
    assert len(begun) == 5


def test_an_error_comes_out_at_its_place_and_the_rest_is_dropped():
    begun = []

    def work(number):
        begun.append(number)
        time.sleep(0.02)
        if number == 1:
            raise ValueError("one")
        return number

    with ThreadPoolExecutor(1) as pool:
        stream = ahead(pool, work, range(100), depth=20)
        assert next(stream) == 0
        with pytest.raises(ValueError, match="one"):
            next(stream)
    assert max(begun) < 5


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 5), st.integers(1, 9))
def test_batches_are_alike_whole_and_repeatable(keys, batch, lookahead):
    items = list(enumerate(keys))
    batches = list(alike(iter(items), lambda item: item[1], batch=batch, lookahead=lookahead))
    assert sorted(item for chosen in batches for item in chosen) == items
    assert batches == list(alike(iter(items), lambda item: item[1], batch=batch, lookahead=lookahead))
    taken = set()
    for chosen in batches:
        assert len({key for _, key in chosen}) == 1
        assert len(chosen) <= batch
        first = min(set(range(len(items))) - taken)
        assert chosen[0][0] == first, "the item that has waited longest goes first"
        assert max(place for place, _ in chosen) < first + len(taken - set(range(first))) + lookahead
        taken |= {place for place, _ in chosen}


def test_alike_fills_batches_from_what_it_may_look_at():
    batches = list(alike(iter("abababab"), lambda key: key, batch=4, lookahead=8))
    assert batches == [["a"] * 4, ["b"] * 4]


def test_behind_keeps_order_and_waits_at_the_end():
    done = []
    with Behind(3) as behind:
        for number in range(20):
            behind.do(lambda number=number: done.append(number))
    assert done == list(range(20))


def test_behind_is_bounded():
    gate = threading.Event()
    queued = []

    def feed():
        with Behind(3) as behind:
            for number in range(6):
                behind.do(gate.wait)
                queued.append(number)

    thread = threading.Thread(target=feed)
    thread.start()
    time.sleep(0.1)
    assert len(queued) == 3
    gate.set()
    thread.join()
    assert len(queued) == 6


@pytest.mark.parametrize("depth", [1, 10])
def test_an_error_behind_comes_out(depth):
    def fail():
        raise OSError("disk full")

    def feed():
        with Behind(depth) as behind:
            for _ in range(5):
                behind.do(fail)

    with pytest.raises(OSError, match="disk full"):
        feed()


def test_an_error_in_front_drops_what_waits():
    done = []

    def feed():
        with Behind(50) as behind:
            behind.do(lambda: time.sleep(0.1))
            for number in range(20):
                behind.do(lambda number=number: done.append(number))
            raise ValueError("in front")

    with pytest.raises(ValueError, match="in front"):
        feed()
    assert done == []


def test_stopwatch_adds_up():
    watch = Stopwatch()
    for _ in range(2):
        with watch.time("a"):
            time.sleep(0.01)
    assert set(watch.seconds) == {"a"}
    assert watch.seconds["a"] >= 0.02
