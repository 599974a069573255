"""Whose turn it is: in order, each once, and never far ahead of the slowest."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vlprep.media.video.turns import Turns

VIDEOS = [(str(number), Path(str(number))) for number in range(6)]


def in_thread(work) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_one_thread_gets_all_in_order():
    assert list(Turns(VIDEOS, lead=1)) == VIDEOS
    assert list(Turns([], lead=1)) == []


def test_several_threads_get_each_once():
    turns, taken = Turns(VIDEOS * 50, lead=3), []
    threads = [in_thread(lambda: taken.extend(turns)) for _ in range(4)]
    for thread in threads:
        thread.join(10)
    assert sorted(taken) == sorted(VIDEOS * 50)


@pytest.mark.parametrize("lead", [2, 4])
def test_nobody_runs_further_ahead_than_the_lead(lead):
    turns, taken = Turns(VIDEOS, lead), []
    slow = iter(turns)
    assert next(slow) == VIDEOS[0]
    quick = in_thread(lambda: taken.extend(turns))
    quick.join(0.2)
    assert quick.is_alive()
    assert taken == VIDEOS[1:lead]
    slow.close()
    quick.join(10)
    assert taken == VIDEOS[1:]


def test_closing_wakes_who_waits():
    turns = Turns(VIDEOS, lead=1)
    slow = iter(turns)
    next(slow)
    waiting = in_thread(lambda: list(turns))
    turns.close()
    waiting.join(10)
    assert not waiting.is_alive()
    assert list(turns) == []
