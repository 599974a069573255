"""The top of the command line: help without weight, errors without tracebacks, exit codes that tell the truth."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import click
import pytest

from vlprep.errors import ItemError, SettingsError, VlprepError
from vlprep_cli.lazy import LazyCommand
from vlprep_cli.main import cli

HEAVY = ("torch", "torchvision", "numpy", "pyarrow", "PIL", "rich", "av")


def raising(error: BaseException) -> click.Command:
    @click.command("raising")
    def command() -> None:
        raise error

    return command


@pytest.fixture
def raises(monkeypatch, vlprep):
    """Run a command that raises, as one of vlprep's own."""

    def run(error: BaseException, *flags: str):
        monkeypatch.setitem(cli._lazy, "raising", LazyCommand("tests:raising", ""))
        monkeypatch.setattr(LazyCommand, "load", lambda self: raising(error))
        return vlprep(*flags, "raising")

    return run


@pytest.mark.parametrize("arguments", [["--help"], ["extract-regions", "--help"], ["store", "head", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    code = f"""
import sys
from vlprep_cli.main import cli
cli.main({arguments!r}, standalone_mode=False)
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.endswith("[]\n")


def test_every_command_is_where_the_table_says(vlprep):
    for name, command in cli._lazy.items():
        assert isinstance(command.load(), click.Command)
        assert f"  {name} " in vlprep("--help").stdout


@pytest.mark.parametrize(
    ("error", "code"), [(VlprepError("disk full"), 1), (SettingsError("no such option"), 2), (ItemError("torn"), 1)]
)
def test_a_users_mistake_is_one_line_and_no_traceback(raises, error, code):
    result = raises(error)
    assert result.exit_code == code
    assert result.stderr == f"Error: {error}\n"
    assert result.stdout == ""


def test_debug_shows_the_traceback(raises, monkeypatch):
    assert "Traceback" in raises(SettingsError("no"), "--debug").stderr
    assert "Traceback" not in raises(SettingsError("no")).stderr
    monkeypatch.setenv("VLPREP_DEBUG", "1")
    assert "Traceback" in raises(SettingsError("no")).stderr


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("torn"), "torn"),
    ],
)
def test_what_the_system_refuses_is_one_line(raises, error, line):
    result = raises(error)
    assert (result.exit_code, result.stderr, result.stdout) == (1, f"Error: {line}\n", "")
    assert "Traceback" in raises(error, "--debug").stderr


def test_interruption_is_130(raises):
    assert raises(KeyboardInterrupt()).exit_code == 130


def test_a_fault_of_ours_keeps_its_traceback(raises):
    with pytest.raises(ZeroDivisionError):
        raises(ZeroDivisionError())


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["store"], ["store", "info"], ["extract-regions", "x", "--workers", "0"]]
)
def test_usage_errors_are_2_and_on_stderr(vlprep, arguments):
    result = vlprep(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_closed_pipe_ends_quietly(spawn, made):
    process = spawn("store", "head", made.store, "--json")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


@pytest.mark.parametrize(("flags", "level"), [([], "WARNING"), (["-v"], "INFO"), (["-vv"], "DEBUG"), (["-q"], "ERROR")])
def test_verbosity_concerns_our_logger_only(vlprep, made, flags, level):
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    vlprep("store", "info", made.store, *flags)
    assert logging.getLevelName(logging.getLogger("vlprep").level) == level
    assert (root.level, root.handlers) == before


def test_options_come_from_the_environment_too(vlprep, made, monkeypatch):
    monkeypatch.setenv("VLPREP_STORE_HEAD_ROWS", "2")
    assert vlprep("store", "head", made.store).stdout.count("path ") == 2
    monkeypatch.setenv("VLPREP_STORE_HEAD_JSON", "1")
    assert len(json.loads(vlprep("store", "head", made.store).stdout)) == 2
    monkeypatch.setenv("VLPREP_DETECTORS_JSON", "1")
    assert json.loads(vlprep("detectors").stdout)


def test_arguments_that_are_not_utf8_are_refused_before_any_work(vlprep, tmp_path):
    folder = tmp_path / os.fsdecode(b"d\xe9j\xe0")
    folder.mkdir()
    result = vlprep("extract-regions", folder, "--detector", "demo")
    assert result.exit_code == 2
    assert r"d\udce9j\udce0' is not UTF-8: rename" in result.stderr
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "command", [["evaluate", "retrieval", "run"], ["evaluate", "captions", "run"], ["cluster-video"]]
)
def test_a_seed_is_not_below_0(vlprep, command):
    assert "-1 is not in the range" in vlprep(*command, ".", "--seed", "-1").stderr
