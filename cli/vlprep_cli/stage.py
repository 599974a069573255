"""What the commands of all stages share: options of a run, progress, the report at the end, the line that resumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vlprep_cli.options import Speech
from vlprep_cli.output import (
    bytes_text,
    counted,
    duration_text,
    failure_lines,
    print_facts,
    print_json,
    shallow_dict,
    this_command,
)
from vlprep_cli.progress import show_progress

if TYPE_CHECKING:
    from vlprep.stages.run import OnStageEvent, PlanReport, RunSettings, StageReport

EXIT_FAILURES = 3

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_ONCE = ("--overwrite", "--retry-failed", "--dry-run")
"""Flags that must not come a second time: a command with the others goes on with what they began."""


def run_options(noun: str, *, parts: str, store: str) -> Callable[[Decorated], Decorated]:
    """The options of `vlprep.stages.run.RunSettings`.

    Args:
        noun: What an item is.
        parts: How many of them a part has where the user does not say.
        store: The store's name.
    """
    options = (
        click.option("--device", default="auto", help="auto, cpu, cuda (all) or cuda:0,1."),
        click.option("--workers", type=click.IntRange(min=1), default=1, help="Processes a device."),
        click.option(
            "--part-size", type=click.IntRange(min=1), help=f"{noun.capitalize()}s a part.  [default: {parts}]"
        ),
        click.option(
            "--item-timeout", type=float, default=300.0, metavar="SECONDS", help=f"After this a {noun} counts as hung."
        ),
        click.option("--limit", type=click.IntRange(min=1), help=f"Only the first {noun}s by id."),
        click.option("--shard-of", metavar="I/N", help="Do every N-th part, where N machines share the folder."),
        click.option("--retry-failed", is_flag=True, help="Try again what failed before."),
        click.option("--overwrite", is_flag=True, help="Begin the store anew."),
        click.option(
            "--out", type=click.Path(path_type=Path), help=f"The store's folder.  [default: DATASET/vlprep/{store}]"
        ),
    )
    return lambda command: reduce(lambda decorated, option: option(decorated), reversed(options), command)


def dry_run_option(noun: str) -> Callable[[Decorated], Decorated]:
    """`--dry-run`."""
    text = f"Measure a few {noun}s and print the plan: parts, bytes, hours."
    return click.option("--dry-run", is_flag=True, help=text)


def take_run_settings(options: dict[str, Any]) -> RunSettings:
    """Take the run's options out of a command's."""
    from vlprep.stages.run import RunSettings

    return RunSettings(**{field.name: options.pop(field.name) for field in fields(RunSettings)})


@contextmanager
def watched(ctx: click.Context, noun: str) -> Iterator[OnStageEvent]:
    """Show the progress of a stage; when a signal stops it, say how to go on."""
    try:
        with show_progress(noun, quiet=ctx.ensure_object(Speech).quiet) as on_event:
            yield on_event
    except (KeyboardInterrupt, SystemExit):
        command = this_command(ctx, without=_ONCE)
        click.echo(f"Stopped. Finished parts are kept, those in hand dropped. To go on:\n  {command}", err=True)
        raise


def print_plan(plan: PlanReport, noun: str, *, as_json: bool) -> None:
    """What a dry run found."""
    if as_json:
        print_json(plan)
        return
    measured = f"{counted(plan.measured, noun)} measured" + (f", {plan.failed:,} of them failed" if plan.failed else "")
    print_facts(
        [
            ("store", str(plan.folder)),
            ("to do", f"{counted(plan.items, noun)} in {counted(plan.parts, 'part')}"),
            ("device", ", ".join(plan.devices)),
            ("size", f"about {bytes_text(plan.bytes)}"),
            ("time", f"about {duration_text(plan.hours * 3600)} ({measured})"),
        ]
    )


def finish(
    ctx: click.Context, report: StageReport, noun: str, *, as_json: bool, also: Mapping[str, Any] | None = None
) -> None:
    """Print how a run ended: the store, counts, failures, what to run next. Exit code 3 if items failed.

    `also` goes into the JSON document.
    """
    status = report.status
    following = None
    if status.pending:
        following = this_command(ctx, without=_ONCE)
    elif status.failed:
        following = this_command(ctx, without=_ONCE, plus=["--retry-failed"])
    if as_json:
        print_json({**shallow_dict(report), **(also or {}), "next": following})
    else:
        print_report(report, noun)
        if following:
            click.echo(f"{'resume' if status.pending else 'retry them'}: {following}")
    if status.failed:
        ctx.exit(EXIT_FAILURES)


def print_report(report: StageReport, noun: str, also: Sequence[tuple[str, str]] = ()) -> None:
    """The store, counts, further facts, and failures, for people."""
    status = report.status
    pending = f", {status.pending:,} to do" if status.pending else ""
    pace = f", {report.done / report.seconds:.3g} {noun}s/s" if report.done else ""
    print_facts(
        [
            ("store", str(report.folder)),
            (f"{noun}s", f"{status.rows:,} of {status.planned:,} done, {status.failed:,} failed{pending}"),
            ("size", f"{bytes_text(status.bytes)} in {counted(status.parts_done, 'part')}"),
            ("this run", f"{counted(report.done, noun)} in {duration_text(report.seconds)}{pace}"),
            *also,
        ]
    )
    for line in failure_lines(status.failures):
        click.echo(line)
