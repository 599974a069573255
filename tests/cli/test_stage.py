"""How every stage ends on the command line: what is printed, which code, which command comes next."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import click
import pytest

from vlprep.engines.local import Terminated
from vlprep.shards import Failure, Status
from vlprep.stages.run import PlanReport, RunSettings, StageReport
from vlprep_cli.lazy import LazyCommand
from vlprep_cli.main import cli
from vlprep_cli.options import json_option
from vlprep_cli.stage import dry_run_option, finish, print_plan, run_options, take_run_settings, watched

STORE = Path("my coco/vlprep/regions")


def report(rows: int = 10, failed: int = 0, pending: int = 0) -> StageReport:
    failures = tuple(
        Failure(
            id=f"{number}.jpg", error="ItemError", message=f"my coco/{number}.jpg: the file is empty", part=0, attempt=1
        )
        for number in range(failed)
    )
    status = Status(
        planned=rows + failed + pending,
        rows=rows,
        failed=failed,
        pending=pending,
        parts=2,
        parts_done=1,
        bytes=1_500_000,
        seconds=9.0,
        failures=failures,
    )
    return StageReport(folder=STORE, seconds=5.0, done=rows + failed, status=status, steps={"network": 4.0})


@pytest.fixture
def stage(monkeypatch, vlprep):
    """Run a command with a stage's options, whose work is the given function."""

    def run(work, *arguments: object):
        @click.command()
        @click.argument("dataset")
        @run_options("image", parts="64", store="regions")
        @dry_run_option("image")
        @json_option
        @click.pass_context
        def command(ctx, /, dataset, dry_run, as_json, **options):
            settings = take_run_settings(options)
            with watched(ctx, "image"):
                outcome = work(settings)
            if dry_run:
                print_plan(outcome, "image", as_json=as_json)
            else:
                finish(ctx, outcome, "image", as_json=as_json)

        monkeypatch.setitem(cli._lazy, "extract", LazyCommand("tests:command", ""))
        monkeypatch.setattr(LazyCommand, "load", lambda self: command)
        return vlprep("extract", "my coco", *arguments)

    return run


def test_all_done(stage):
    result = stage(lambda run: report())
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "store     my coco/vlprep/regions",
        "images    10 of 10 done, 0 failed",
        "size      1.5 MB in 1 part",
        "this run  10 images in 5.0 s, 2 images/s",
    ]


def test_done_with_failures_is_3_and_tells_how_to_retry(stage):
    result = stage(lambda run: report(failed=2), "--workers", "2", "--overwrite")
    assert result.exit_code == 3
    assert "failed: 2 ItemError\n  0.jpg: the file is empty\n" in result.stdout
    assert result.stdout.endswith("retry them: vlprep extract 'my coco' --workers 2 --retry-failed\n")


def test_what_other_shards_have_to_do_comes_before_retries(stage):
    result = stage(lambda run: report(failed=1, pending=5), "--shard-of", "1/2")
    assert "5 to do" in result.stdout
    assert result.stdout.endswith("resume: vlprep extract 'my coco' --shard-of 1/2\n")


def test_json_is_the_whole_report(stage):
    result = stage(lambda run: report(failed=7), "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 3
    assert document["folder"] == str(STORE)
    assert len(document["status"]["failures"]) == 7
    assert document["next"] == "vlprep extract 'my coco' --json --retry-failed"


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Terminated(143), 143)])
def test_signals_print_the_command_that_resumes(stage, error, code):
    def stopped(run):
        raise error

    result = stage(stopped, "--overwrite", "--retry-failed", "--part-size", "5")
    assert result.exit_code == code
    assert result.stdout == ""
    assert "vlprep extract 'my coco' --part-size 5\n" in result.stderr


def test_a_dry_run_prints_the_plan(stage):
    plan = PlanReport(
        folder=STORE,
        items=120_000,
        parts=235,
        devices=("cuda:0", "cuda:1"),
        measured=8,
        failed=1,
        bytes=23 * 10**9,
        hours=5.5,
    )
    result = stage(lambda run: plan, "--dry-run")
    assert result.stdout.splitlines() == [
        "store   my coco/vlprep/regions",
        "to do   120,000 images in 235 parts",
        "device  cuda:0, cuda:1",
        "size    about 23.0 GB",
        "time    about 5 h 30 min (8 images measured, 1 of them failed)",
    ]
    assert json.loads(stage(lambda run: plan, "--dry-run", "--json").stdout)["hours"] == 5.5


def test_options_without_a_value_are_the_settings_own(stage):
    seen = []
    stage(lambda run: seen.append(run) or report())
    assert seen == [RunSettings()]


def test_every_run_setting_has_an_option(stage):
    seen = []
    given = (
        "--device=cpu",
        "--workers=3",
        "--part-size=4",
        "--item-timeout=5",
        "--limit=6",
        "--shard-of=2/7",
        "--out=x",
    )
    stage(lambda run: seen.append(run) or report(), *given, "--retry-failed", "--overwrite")
    default = RunSettings()
    assert all(getattr(seen[0], field.name) != getattr(default, field.name) for field in fields(RunSettings))


def test_settings_that_make_no_sense_are_2(stage):
    result = stage(lambda run: report(), "--shard-of", "3/2")
    assert result.exit_code == 2
    assert "--shard-of 3/2" in result.stderr
