"""What people see of a running stage."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

import pytest

from vlprep.engines.base import ItemPoisoned, ItemsDone, PartDone, PartFinished, WorkerDied
from vlprep.shards.status import Status
from vlprep.stages.run import Planned
from vlprep_cli.options import StderrHandler
from vlprep_cli.progress import Tally, plain_lines, show_progress

NOTHING = Status(planned=100, rows=0, failed=0, pending=100, parts=2, parts_done=0, bytes=0, seconds=0, failures=())
PLANNED = Planned(folder=Path("coco/vlprep/regions"), parts=2, items=100, before=NOTHING)


def finished(failures: int) -> PartFinished:
    return PartFinished(PartDone(part=0, rows=50 - failures, failures=failures, seconds=1.0))


def test_rate_and_remaining_time_are_of_late():
    tally = Tally("image")
    tally.take(PLANNED, 0)
    assert tally.line() == "0 of 100 images"
    tally.take(ItemsDone(10), 30)  # loading the model took that long; it says nothing of the pace
    assert tally.rate() is None
    tally.take(ItemsDone(20), 35)
    assert tally.rate() == pytest.approx(2)
    assert tally.line() == "20 of 100 images, 2 images/s, 40 s left"


def test_the_rate_forgets_what_was_long_ago():
    tally = Tally("image")
    for now, count in ((0, 0), (100, 10), (130, 100), (150, 160)):
        tally.take(ItemsDone(count), now)
    assert tally.rate() == pytest.approx(3)


def test_a_part_that_starts_over_does_not_make_the_rate_negative():
    tally = Tally("image")
    for now, count in ((0, 0), (10, 40), (20, 10), (30, 20)):
        tally.take(ItemsDone(count), now)
    assert tally.rate() == pytest.approx(1)


def test_failures_are_shown_from_the_first_on():
    tally = Tally("image")
    tally.take(PLANNED, 0)
    assert "failed" not in tally.line()
    tally.take(finished(3), 1)
    assert tally.line().endswith("3 failed")


def test_plain_lines_come_every_few_seconds(capsys):
    now = 0.0
    on_event = plain_lines(Tally("image"), lambda: now)
    on_event(PLANNED)
    for second in range(1, 13):
        now = float(second)
        on_event(ItemsDone(second))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "100 images to do in 2 parts: coco/vlprep/regions",
        "5 of 100 images, 1 images/s, 1 min 35 s left",
        "10 of 100 images, 1 images/s, 1 min 30 s left",
    ]


def test_quiet_says_nothing(capsys):
    with show_progress("image", quiet=True) as on_event:
        on_event(PLANNED)
        on_event(ItemsDone(1))
    assert capsys.readouterr() == ("", "")


def test_deaths_and_given_up_items_go_to_the_log(caplog):
    tally = Tally("image")
    tally.take(WorkerDied("cpu/0", 3, "killed its worker (signal 9)", ("a.jpg",)), 0)
    tally.take(ItemPoisoned(3, "a.jpg", "killed its worker (signal 9)"), 0)
    assert "part 3 killed its worker (signal 9) on cpu/0" in caplog.text
    assert "a.jpg killed its worker (signal 9)" in caplog.text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_and_warnings_stay_whole_lines(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    logger = logging.getLogger("vlprep")
    handler = StderrHandler()
    logger.addHandler(handler)
    try:
        with show_progress("image", quiet=False) as on_event:
            on_event(PLANNED)
            on_event(ItemsDone(10))
            on_event(WorkerDied("cpu/0", 0, "killed its worker (signal 9)", ()))
            on_event(finished(2))
    finally:
        logger.removeHandler(handler)
    shown = terminal.getvalue()
    assert "100 images to do in 2 parts" in shown
    assert "10/100" in shown
    assert "2 failed" in shown
    assert "part 0 killed its worker (signal 9) on cpu/0; it is tried again\n" in shown
    assert capsys.readouterr().out == ""


def test_no_bar_where_logs_are_kept(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("CI", "1")
    with show_progress("image", quiet=False) as on_event:
        on_event(PLANNED)
    assert "\x1b" not in terminal.getvalue()
