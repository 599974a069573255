"""`vlprep evaluate`: what a trained model knows of a dataset."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vlprep_cli.options import Speech, common_options, json_option
from vlprep_cli.output import counted, print_facts, print_json, print_table

if TYPE_CHECKING:
    from vlprep.pretrain.retrieval import Interval, Retrieval
    from vlprep.stages.evaluate import RetrievalReport, Task

_checkpoint = click.argument("checkpoint", type=click.Path(path_type=Path))
_dataset = click.argument("dataset", type=click.Path(path_type=Path))
_device = click.option("--device", default="cpu", help="cpu, cuda or cuda:N.")


@click.group()
def evaluate() -> None:
    """Ask a trained model about a DATASET.

    CHECKPOINT is a run's folder, for its newest checkpoint, or one of its checkpoints. Of a dataset that the run was
    trained on, only the items that it held out take part.
    """


@evaluate.command()
@_checkpoint
@_dataset
@click.option("--most", default=1000, type=click.IntRange(2), help="Images or segments that take part at most.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Which ones.")
@_device
@json_option
@common_options
@click.pass_context
def retrieval(
    ctx: click.Context, /, checkpoint: Path, dataset: Path, most: int, seed: int, device: str, as_json: bool
) -> None:
    """Rank images or video segments for texts, and texts for them: R@1, R@5, R@10, median rank.

    Intervals are of 95 %, by a bootstrap over queries.
    """
    from vlprep.stages.evaluate import evaluate_retrieval

    say = not ctx.ensure_object(Speech).quiet and sys.stderr.isatty()

    def progress(done: int, total: int) -> None:
        click.echo(f"\r{done:,} of {total:,} texts", err=True, nl=done == total)

    report = evaluate_retrieval(
        checkpoint,
        dataset,
        most=most,
        seed=seed,
        device=device,
        on_text=progress if say else lambda done, total: None,
    )
    if as_json:
        print_json(report)
        return
    click.echo(f"{_taking_part(report)}\n")
    if report.left_out:
        click.echo(f"left out {counted(len(report.left_out), 'segment')}; the first: {report.left_out[0]}", err=True)
    directions = ((f"text to {report.seen}", report.text_to_seen), (f"{report.seen} to text", report.seen_to_text))
    print_table(
        ["", "R@1", "R@5", "R@10", "median rank", "R@1 by chance"],
        [[name, *_row(found)] for name, found in directions],
    )


@evaluate.command()
@_checkpoint
@_dataset
@_device
@json_option
@common_options
def match(checkpoint: Path, dataset: Path, device: str, as_json: bool) -> None:
    """Tell texts with their own image or video from texts with another's: accuracy and area under the ROC curve."""
    _evaluate(checkpoint, dataset, "match", device, as_json)


@evaluate.command()
@_checkpoint
@_dataset
@_device
@json_option
@common_options
def mlm(checkpoint: Path, dataset: Path, device: str, as_json: bool) -> None:
    """Hidden words, with what is seen and (`without`) with another sample's: the difference is what looking gives."""
    _evaluate(checkpoint, dataset, "mlm", device, as_json)


@evaluate.command()
@_checkpoint
@_dataset
@click.option("--most", default=10, show_default=True, type=click.IntRange(1), help="Images at most.")
@click.option("--beams", default=3, show_default=True, type=click.IntRange(1), help="Captions that are followed.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Which images.")
@_device
@json_option
@common_options
def captions(checkpoint: Path, dataset: Path, most: int, beams: int, seed: int, device: str, as_json: bool) -> None:
    """What a model that writes (vlp) says of images, by beam search, beside their own captions: a look, no measure."""
    from vlprep.stages.caption import caption as stage

    report = stage(checkpoint, dataset, most=most, beams=beams, seed=seed, device=device)
    if as_json:
        print_json(report)
        return
    which = "held-out " if report.held_out else ""
    click.echo(f"{counted(len(report.images), which + 'image')}, {report.checkpoint.name}")
    for image in report.images:
        click.echo(f"\n{image.image}")
        click.echo(f"  written  {image.written[0] or '(nothing)'}")
        for told in image.told:
            click.echo(f"  told     {told}")


def _evaluate(checkpoint: Path, dataset: Path, task: Task, device: str, as_json: bool) -> None:
    from vlprep.stages.evaluate import evaluate as stage

    report = stage(checkpoint, dataset, task, device=device)
    if as_json:
        print_json(report)
        return
    which = "held-out " if report.held_out else ""
    click.echo(f"{counted(report.samples, which + 'sample')}, {report.checkpoint.name}\n")
    print_facts([(name, f"{value:.4f}") for name, value in sorted(report.figures.items())])


def _taking_part(report: RetrievalReport) -> str:
    noun = "image" if report.seen == "image" else "segment"
    held_out = ", held out" if report.held_out else ""
    return f"{counted(report.texts, 'text')} and {counted(report.candidates, noun)}{held_out}; {report.checkpoint.name}"


def _row(found: Retrieval) -> list[str]:
    recalls = [_percent(found.recall[cut]) for cut in (1, 5, 10)]
    rank = found.median_rank
    return [*recalls, f"{rank.value:g} ({rank.low:g}-{rank.high:g})", f"{100 * found.chance[1]:.2f}"]


def _percent(share: Interval) -> str:
    return f"{100 * share.value:.1f} ({100 * share.low:.1f}-{100 * share.high:.1f})"
