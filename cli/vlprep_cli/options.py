"""What every command takes: how much it says, and JSON instead of text."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from vlprep.errors import SettingsError

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}


@dataclass(slots=True)
class Speech:
    """How much a run says on stderr; shared by all contexts of one command line as `ctx.obj`."""

    verbosity: int = 0
    debug: bool = False

    @property
    def quiet(self) -> bool:
        return self.verbosity < 0


class StderrHandler(logging.Handler):
    """Writes to what `sys.stderr` is at that moment, which a progress bar puts itself in front of."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def common_options(command: Decorated) -> Decorated:
    """-v, -q and --debug, at any place of the command line."""
    verbose = click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        callback=_louder,
        show_default=False,
        help="Say more; twice, everything.",
    )
    quiet = click.option(
        "-q",
        "--quiet",
        count=True,
        expose_value=False,
        callback=_quieter,
        show_default=False,
        help="Results and errors only.",
    )
    debug = click.option(
        "--debug", is_flag=True, expose_value=False, callback=_debug, show_default=False, help="Show tracebacks."
    )
    return verbose(quiet(debug(command)))


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, nothing else.")


def _louder(ctx: click.Context, option: click.Parameter, count: int) -> None:
    _speak(ctx, count)


def _quieter(ctx: click.Context, option: click.Parameter, count: int) -> None:
    _speak(ctx, -count)


def _debug(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    ctx.ensure_object(Speech).debug |= wanted


def _speak(ctx: click.Context, change: int) -> None:
    speech = ctx.ensure_object(Speech)
    speech.verbosity += change
    logger = logging.getLogger("vlprep")
    logger.setLevel(_LEVELS.get(max(speech.verbosity, -1), logging.DEBUG))
    if not any(isinstance(handler, StderrHandler) for handler in logger.handlers):
        handler = StderrHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger.addHandler(handler)


def refuse_beside(ctx: click.Context, option: str, others: Iterable[str], why: str) -> None:
    """Raise `SettingsError` where the user gave one of the `others`, in which case `option` has no use for it."""
    for other in others:
        if ctx.get_parameter_source(other) is not ParameterSource.DEFAULT:
            raise SettingsError(f"--{other.replace('_', '-')} beside {option}: {why}; leave one of them out")
