"""`vlprep embed`: narrated segments of videos in a trained model's joint space."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vlprep_cli.options import Speech, common_options, json_option
from vlprep_cli.output import bytes_text, counted, failure_lines, print_facts, print_json
from vlprep_cli.stage import EXIT_FAILURES


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Begin the store anew.")
@click.option("--device", default="cpu", help="cpu, cuda or cuda:N.")
@click.option("--out", type=click.Path(path_type=Path), help="The store.  [default: DATASET/vlprep/embeddings]")
@json_option
@common_options
@click.pass_context
def embed(
    ctx: click.Context,
    /,
    checkpoint: Path,
    dataset: Path,
    overwrite: bool,
    device: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """What is seen and what is said in every narrated segment of DATASET's videos, as vectors.

    CHECKPOINT is a run of howto100m, milnce or univl, or one of its checkpoints. The dot product of a clip and a text
    is their score: the columns are ready for a FAISS index (docs/stores.md).
    """
    from vlprep.stages.embed import embed as stage

    def progress(done: int, total: int) -> None:
        click.echo(f"\r{done:,} of {total:,} videos", err=True, nl=done == total)

    say = not ctx.ensure_object(Speech).quiet and sys.stderr.isatty()
    report = stage(
        checkpoint,
        dataset,
        out=out,
        overwrite=overwrite,
        device=device,
        on_video=progress if say else lambda done, total: None,
    )
    status = report.status
    if as_json:
        print_json(report)
    else:
        print_facts(
            [
                ("store", str(report.folder)),
                ("videos", f"{status.rows:,} of {status.planned:,} done, {status.failed:,} failed"),
                ("vectors", f"{report.size} numbers each; this run {counted(report.segments, 'segment')}"),
                ("size", bytes_text(status.bytes)),
            ]
        )
        for line in failure_lines(status.failures):
            click.echo(line)
    if status.failed:
        ctx.exit(EXIT_FAILURES)
