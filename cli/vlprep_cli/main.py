"""`vlprep`: the commands by name, and what becomes of their errors.

Exit codes: 0 all done, 1 failed, 2 usage or settings, 3 done with failures, 130 and 143 on SIGINT and SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType
from typing import Any, NoReturn

import click

from vlprep import __version__
from vlprep.errors import ItemError, VlprepError
from vlprep_cli.lazy import LazyCommand, LazyGroup
from vlprep_cli.options import Speech, common_options
from vlprep_cli.output import ARGUMENTS_KEY

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_COMMANDS = {
    "extract-regions": LazyCommand(
        "vlprep_cli.extract:extract_regions", "Boxes, features and soft labels of a folder of images."
    ),
    "extract-video": LazyCommand(
        "vlprep_cli.extract_video:extract_video", "Clip features of a folder of videos, by several encoders at once."
    ),
    "cluster-video": LazyCommand(
        "vlprep_cli.cluster:cluster_video", "Visual tokens of a folder of videos, by hierarchical k-means."
    ),
    "vocabulary": LazyCommand("vlprep_cli.vocabulary:vocabulary", "Look into a vocabulary of visual tokens."),
    "import": LazyCommand("vlprep_cli.import_:import_", "Published features as a store."),
    "tokenize": LazyCommand("vlprep_cli.tokenize:tokenize", "Captions and narration as piece ids."),
    "pretrain": LazyCommand("vlprep_cli.pretrain:pretrain", "Train a model on the stores of one or more datasets."),
    "evaluate": LazyCommand("vlprep_cli.evaluate:evaluate", "Retrieval, matching and hidden words of a trained model."),
    "embed": LazyCommand("vlprep_cli.embed:embed", "Narrated segments of videos as vectors of a trained model."),
    "objectives": LazyCommand("vlprep_cli.objectives:objectives", "The pretraining tasks, with their formulae."),
    "checkpoint": LazyCommand(
        "vlprep_cli.checkpoint:checkpoint", "Look at a run's checkpoints, export and import weights."
    ),
    "show": LazyCommand("vlprep_cli.show:show", "One image with its regions, or one video with its tokens or clips."),
    "demo": LazyCommand("vlprep_cli.demo:demo", "Render a small dataset, extract its regions, pretrain on them."),
    "datasets": LazyCommand("vlprep_cli.datasets:datasets", "What is in a folder of images, videos and captions."),
    "store": LazyCommand("vlprep_cli.store:store", "Look into a store, check it, export it."),
    "detectors": LazyCommand("vlprep_cli.detectors:detectors", "The families of region detectors."),
    "env": LazyCommand("vlprep_cli.env:env", "Versions and devices, for a bug report."),
}

_EPILOG = """\b
Exit codes: 0 all done, 1 failed, 2 usage or settings, 3 done with failures,
130 and 143 stopped by Ctrl-C and SIGTERM. Options are also read from the
environment: --workers of extract-regions is VLPREP_EXTRACT_REGIONS_WORKERS.
"""


class CommandLine(LazyGroup):
    """The top group: errors become a line on stderr and an exit code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[ARGUMENTS_KEY] = list(args)
        for word in args:
            try:
                word.encode()
            except UnicodeEncodeError as error:  # stores, messages and JSON are UTF-8, and all name their paths
                raise click.UsageError(f"{word!a} is not UTF-8: rename the file or folder", ctx) from error
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (VlprepError, ItemError) as error:
            _say(ctx, str(error))
            ctx.exit(error.exit_code if isinstance(error, VlprepError) else EXIT_FAILED)
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            # The reader has gone (`vlprep store head … | head -1`); Python would complain when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(EXIT_BROKEN_PIPE)
        except OSError as error:  # the world's: a disk that is full, a folder without permission
            reason = error.strerror or str(error)
            _say(ctx, reason if error.filename is None else f"{error.filename}: {reason}")
            ctx.exit(EXIT_FAILED)
        return result


def _say(ctx: click.Context, message: str) -> None:
    """One line on stderr; with --debug after the traceback of the error in hand."""
    if ctx.ensure_object(Speech).debug:
        traceback.print_exc()
    click.ClickException(message).show()


@click.group(
    cls=CommandLine,
    lazy=_COMMANDS,
    epilog=_EPILOG,
    context_settings={
        "auto_envvar_prefix": "VLPREP",
        "show_default": True,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    },
)
@click.version_option(__version__, package_name="vlprep", message="vlprep %(version)s")
@common_options
def cli() -> None:
    """Raw images, videos and captions into vision-and-language pretraining data.

    A dataset is a folder. Each command reads it and writes a store beside it, DATASET/vlprep/STORE: Arrow files that
    any Arrow reader opens. A command that was stopped goes on where it was when it is run again.
    """


def main() -> NoReturn:
    """The `vlprep` program."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(cli.main(prog_name="vlprep"))


def _terminate(signal_number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM as an exception, so that whatever runs puts its work down and says how to resume."""
    sys.exit(128 + signal_number)
