"""`vlprep pretrain`: from stores to a checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vlprep_cli.options import Speech, common_options, json_option
from vlprep_cli.output import duration_text, print_json, this_command

if TYPE_CHECKING:
    from vlprep.pretrain.recipe import Recipe
    from vlprep.stages.pretrain import PretrainEvent

_EPILOG = """\b
Examples:
  vlprep pretrain coco --recipe uniter-small
  vlprep pretrain coco sbu --recipe uniter-base --precision bf16 --init bert-base-cased
  vlprep pretrain howto100m --objective mlm+mfm --model small --steps 2000
  vlprep pretrain howto100m --recipe milnce --end-to-end --init s3d_howto100m.pth --set model.trunk=space-to-depth
  torchrun --nproc-per-node 8 --no-python vlprep pretrain coco --recipe uniter-base
"""

_PLACES = {
    "tokens_per_batch": "batches.tokens",
    "accumulate": "train.accumulate",
    "precision": "train.precision",
    "steps": "train.steps",
    "lr": "optimiser.lr",
    "warmup": "optimiser.warmup",
    "clip": "optimiser.clip",
    "seed": "train.seed",
    "save_every": "train.save_every",
    "keep": "train.keep",
    "validate_every": "train.validate_every",
    "init": "model.init",
}
"""Where an option goes in the recipe; what is not given stays as the recipe has it."""


@click.command(epilog=_EPILOG)
@click.argument("datasets", nargs=-1, type=click.Path(path_type=Path), metavar="[DATASET]...")
@click.option("--recipe", help="A recipe's name or .toml file.  [default: by the objectives, at laptop size]")
@click.option("--end-to-end", is_flag=True, help="Decode clips and train the video network too (milnce).")
@click.option("--objective", help="Such as mlm+mfm, or with weights mlm:2+itm:2+mrfr+mrc-kl.  [default: the recipe's]")
@click.option("--model", help="tiny, small, base, large, or layers=4,hidden=256,heads=4,intermediate=1024.")
@click.option("--init", help="Weights to start from: bert-base-uncased, a file, a Hugging Face folder, a run.")
@click.option("--tokens-per-batch", type=click.IntRange(1), help="Budget of a micro-batch.")
@click.option("--accumulate", type=click.IntRange(1), help="Micro-batches a step and process.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]))
@click.option("--steps", type=click.IntRange(1))
@click.option("--lr", type=float, help="Peak learning rate.")
@click.option("--warmup", type=click.IntRange(0), help="Steps of linear warm-up.")
@click.option("--clip", type=float, help="Largest gradient norm; 0 for none.")
@click.option("--seed", type=int)
@click.option("--save-every", type=click.IntRange(1), help="Steps between checkpoints.")
@click.option("--keep", type=click.IntRange(1), help="Checkpoints kept.")
@click.option("--validate-every", type=click.IntRange(0), help="Steps between validations; 0: at the end.")
@click.option("--set", "assignments", multiple=True, metavar="SECTION.KEY=VALUE", help="Any setting of the recipe.")
@click.option("--resume", default="auto", help="auto, never, or a checkpoint.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.  [default: DATASET/vlprep/runs/NAME]")
@json_option
@common_options
@click.pass_context
def pretrain(
    ctx: click.Context,
    /,
    datasets: Sequence[Path],
    recipe: str | None,
    end_to_end: bool,
    objective: str | None,
    model: str | None,
    assignments: Sequence[str],
    resume: str,
    device: str,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a vision-and-language model on the stores of one or more DATASETs (default: this folder).

    The same command goes on from the last checkpoint. What is missing, a store or a tokenizer, is named with the
    command that makes it.
    """
    from vlprep.stages.pretrain import pretrain as stage

    recipe = _end_to_end(recipe) if end_to_end else recipe
    chosen = _recipe(recipe, objective)
    chosen = _sized(chosen, model) if model else chosen
    chosen = _with_options(chosen, options, assignments)
    try:
        report = stage(
            datasets or [Path()],
            chosen,
            out=out,
            name=_name(recipe, objective),
            resume=resume,
            device=device,
            on_event=(lambda event: None) if ctx.ensure_object(Speech).quiet else training_lines(),
        )
    except (KeyboardInterrupt, SystemExit):
        command = this_command(ctx, without=("--resume", resume, f"--resume={resume}"))
        click.echo(f"Stopped. To go on from the last checkpoint:\n  {command}", err=True)
        raise
    if report is None:  # not the first process of a torchrun
        return
    if as_json:
        print_json(report)
        return
    click.echo(f"{report.steps:,} steps; checkpoint {report.checkpoint}")
    for name, value in sorted(report.figures.items()):
        click.echo(f"  {name:<28} {'not finite' if value is None else format(value, '8.4f')}")
    click.echo(f"curves {report.curves}")
    if report.skipped:
        click.echo(f"{report.skipped} steps were skipped: a loss or gradient was not finite", err=True)


def _recipe(name: str | None, objective: str | None) -> Recipe:
    from vlprep.pretrain.recipe import load_recipe, with_objectives

    of_video = objective is not None and any(task in objective for task in ("mfm", "align"))
    recipe = load_recipe(name or ("videobert-small" if of_video else "uniter-small"))
    return with_objectives(recipe, objective) if objective else recipe


def _end_to_end(name: str | None) -> str:
    from vlprep.pretrain.recipe import recipe_names

    ending = "-end-to-end"
    if (chosen := f"{name or 'milnce'}{ending}") not in recipe_names():
        known = ", ".join(known.removesuffix(ending) for known in recipe_names() if known.endswith(ending))
        raise click.BadParameter(f"of the recipes {known} have it, {name} has not", param_hint="--end-to-end")
    return chosen


def _name(recipe: str | None, objective: str | None) -> str:
    named = Path(recipe).stem if recipe else None
    return named or (objective or "uniter-small").replace(":", "")


def _sized(recipe: Recipe, text: str) -> Recipe:
    from vlprep.pretrain.recipe import with_settings
    from vlprep.pretrain.settings import SIZES, TransformerSettings

    if not isinstance(recipe.model, TransformerSettings):
        raise click.BadParameter(f"a model of kind {recipe.model.kind} has no such sizes", param_hint="--model")
    if text in SIZES:
        return with_settings(recipe, [f"model.{name}={size}" for name, size in SIZES[text].items()])
    if "=" not in text:
        raise click.BadParameter(f"{text}: one of {', '.join(SIZES)}, or layers=4,hidden=256,…", param_hint="--model")
    return with_settings(recipe, [f"model.{pair}" for pair in text.split(",")])


def _with_options(recipe: Recipe, options: dict[str, Any], assignments: Sequence[str]) -> Recipe:
    from vlprep.pretrain.recipe import with_settings

    given = [f"{_PLACES[name]}={value}" for name, value in options.items() if value is not None]
    return with_settings(recipe, [*given, *assignments])


def training_lines() -> Callable[[PretrainEvent], None]:
    """Lines on stderr: what begins, each log interval, validations, checkpoints."""
    from vlprep.pretrain.trainer import Logged, Saved
    from vlprep.pretrain.validate import Validated
    from vlprep.stages.pretrain import Begun

    def say(event: PretrainEvent) -> None:
        match event:
            case Begun():
                lines = [
                    f"{event.samples:,} samples, {event.held_out:,} held out; micro-batches {event.fill:.1%} full,"
                    f" {event.padding_saved:.1%} less than padded; {event.parameters / 1e6:.1f} M parameters",
                    *(f"left out: {count:,} {reason}" for reason, count in event.left_out.items()),
                    *event.notes,
                ]
                if event.resumed_from:
                    lines.append(f"going on after step {event.resumed_from:,} of {event.steps:,}")
                click.echo("\n".join(lines), err=True)
            case Logged():
                losses = "  ".join(f"{name} {value:.4f}" for name, value in event.losses.items())
                click.echo(
                    f"step {event.step:,}  {losses}  {event.tokens_per_second:,.0f} tokens/s"
                    f"{f'  {event.left_out} left out' if event.left_out else ''}"
                    f"  waiting {event.waiting:.1%}  {_memory()}  {duration_text(event.seconds_left)} left",
                    err=True,
                )
            case Validated():
                figures = "  ".join(f"{name} {value:.3f}" for name, value in event.figures.items())
                click.echo(f"step {event.step:,}  validation  {figures}", err=True)
            case Saved():
                click.echo(f"step {event.step:,}  saved {event.path}", err=True)

    return say


def _memory() -> str:
    import resource

    import torch

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # a run on the CPU may have a GPU beside it
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the GPU"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return f"{peak / 2**30:.1f} GiB"
