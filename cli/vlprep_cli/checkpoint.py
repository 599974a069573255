"""`vlprep checkpoint`: what a pretraining run has left, and its weights for other people's code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vlprep_cli.options import common_options, json_option
from vlprep_cli.output import bytes_text, counted, print_facts, print_json

if TYPE_CHECKING:
    from vlprep.stages.checkpoints import Format, RunCheckpoint

_run_argument = click.argument("run", type=click.Path(path_type=Path))


@click.group()
def checkpoint() -> None:
    """Look at a run's checkpoints, export its weights, import published ones.

    RUN is a run's folder, for its newest checkpoint, or one of its checkpoints, such as
    coco/vlprep/runs/uniter-small/checkpoints/step-00002000.
    """


@checkpoint.command()
@_run_argument
@json_option
@common_options
def info(run: Path, as_json: bool) -> None:
    """How far a checkpoint is, and what its model consists of. No weights are read."""
    from vlprep.stages.checkpoints import open_checkpoint

    found = open_checkpoint(run)
    if as_json:
        print_json(found)
    else:
        print_facts(_facts(found))


_INPUTS = {
    "region_dim": "numbers a region",
    "region_classes": "region classes",
    "visual_vocabulary": "visual tokens",
    "clip_dim": "numbers a clip",
}
"""Of the settings that a kind of model may have, those that say what is seen and comes out."""


def _facts(found: RunCheckpoint) -> list[tuple[str, str]]:
    sizes, state = found.model.encoder, found.state
    texts = {"text pieces" if sizes else "words": found.model.vocabulary}
    inputs = texts | {what: getattr(found.model, name, 0) for name, what in _INPUTS.items()}
    skipped = f", {counted(state.skipped, 'step')} skipped" if state.skipped else ""
    return [
        ("run", str(found.run)),
        ("objectives", " + ".join(f"{name}:{weight:g}" for name, weight in found.objectives.items())),
        ("checkpoint", f"{found.checkpoint.name} ({bytes_text(found.bytes)})"),
        ("seen", f"{counted(state.samples, 'sample')}, {counted(state.tokens, 'token')}{skipped}"),
        ("kept", f"steps {', '.join(f'{step:,}' for step in found.steps)}"),
        *([("encoder", f"{sizes.layers} layers, {sizes.hidden} wide, {sizes.heads} heads")] if sizes else []),
        ("inputs", ", ".join(f"{size:,} {name}" for name, size in inputs.items() if size)),
        ("size", counted(found.parameters, "parameter")),
    ]


@checkpoint.command()
@_run_argument
@click.option(
    "--to",
    "form",
    type=click.Choice(["hf", "uniter", "lxmert", "vlp", "oscar", "vilbert", "univl", "howto100m", "milnce"]),
    required=True,
    help="Whose format.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The folder to write into.  [default: RUN/hf, RUN/uniter, …]"
)
@json_option
@common_options
def export(run: Path, form: Format, out: Path | None, as_json: bool) -> None:
    """Write a run's weights for other people's code.

    \b
    hf      config.json and model.safetensors, for transformers: of a single
            stream the text side only, for BertModel, BertForMaskedLM and
            BertForPreTraining; of LXMERT all, for LxmertForPreTraining
    uniter  uniter.pt with the names of UNITER's own code, for models of regions
    lxmert  model_LXRT.pth with the names of LXMERT's own code
    vlp     model.bin with the names of VLP's own code
    oscar   a folder for Oscar's own code: config.json and pytorch_model.bin
    vilbert pretrained_model.bin with the names of ViLBERT's own code
    univl   univl.pretrained.bin with the names of UniVL's own code
    howto100m  howto100m_pt_model.pth with the names of HowTo100M's own code
    milnce  s3d_howto100m.pth with the names of S3D_HowTo100M, of a run that
            was trained end to end
    """
    from vlprep.stages.checkpoints import export_checkpoint

    exported = export_checkpoint(run, form, out)
    if as_json:
        print_json(exported)
        return
    for file in exported.files:
        click.echo(f"{file}  {bytes_text(file.stat().st_size)}")
    if exported.left_out:
        click.echo(f"left out, having no name there: {counted(len(exported.left_out), 'tensor')}")
        for name in exported.left_out:
            click.echo(f"  {name}")


@checkpoint.command("import")
@click.argument("source", metavar="WEIGHTS")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--recipe", required=True, help="The system's, such as howto100m: its model, objectives and inputs.")
@click.option("--set", "assignments", multiple=True, metavar="SECTION.KEY=VALUE", help="Any setting of the recipe.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The run's folder.  [default: DATASET/vlprep/runs/RECIPE-published]"
)
@json_option
@common_options
def import_(
    source: str, dataset: Path, recipe: str, assignments: Sequence[str], out: Path | None, as_json: bool
) -> None:
    """Published WEIGHTS as a run that has done no step, to evaluate and embed with.

    WEIGHTS is what `vlprep pretrain --init` takes: howto100m_pt_model.pth, univl.pretrained.bin, uniter-base.pt, a
    Hugging Face folder. The stores of DATASET give the sizes that the recipe leaves open, and are to be made as the
    published ones were: with the same tokenizer or words, and features of the same network.
    """
    from vlprep.pretrain.recipe import load_recipe, with_settings
    from vlprep.stages.import_checkpoint import import_checkpoint

    folder = out or dataset / "vlprep" / "runs" / f"{Path(recipe).stem}-published"
    done = import_checkpoint(source, dataset, with_settings(load_recipe(recipe), assignments), folder)
    if as_json:
        print_json(done)
        return
    click.echo(f"{done.folder}: {done.weights.summary()}")
    if done.weights.initial:
        click.echo("what depends on those that keep their initial values says nothing of the published model", err=True)
