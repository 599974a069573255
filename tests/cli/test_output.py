from __future__ import annotations

from dataclasses import dataclass

import pytest

from vlprep_cli.output import bytes_text, counted, duration_text, failure_lines, print_table


@dataclass
class Failed:
    id: str
    error: str
    message: str


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (4_240_000, "4.2 MB"), (3e14, "300.0 TB")]
)
def test_bytes_text(count, text):
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (8.44, "8.4 s"),
        (59.6, "1 min 0 s"),
        (125, "2 min 5 s"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_duration_text(seconds, text):
    assert duration_text(seconds) == text


def test_counted():
    assert [counted(count, "image") for count in (0, 1, 1200)] == ["0 images", "1 image", "1,200 images"]


def test_failures_are_counted_by_class_and_the_first_shown():
    failures = [Failed(f"a/{number}.jpg", "ItemError", f"/data/a/{number}.jpg: empty") for number in range(7)]
    lines = failure_lines([*failures, Failed("b.jpg", "WorkerDied", "killed its worker")])
    assert lines[0] == "failed: 7 ItemError, 1 WorkerDied"
    assert lines[1] == "  a/0.jpg: empty"
    assert lines[-1] == "  and 3 more (--json lists them all)"
    assert len(lines) == 7
    assert failure_lines([]) == []


def test_a_message_without_its_path_is_kept_whole():
    assert failure_lines([Failed("b.jpg", "OSError", "seek: not allowed")])[1] == "  b.jpg: seek: not allowed"


def test_table_aligns_numbers_to_the_right(capsys):
    print_table(["n", "name"], [(1, "cat"), (10, "dog")])
    assert capsys.readouterr().out == " n  name\n 1  cat\n10  dog\n"
