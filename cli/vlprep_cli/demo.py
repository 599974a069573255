"""`vlprep demo`: the whole way from pictures to a model that looks at them, without a download."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import click

from vlprep_cli.options import Speech, common_options
from vlprep_cli.output import duration_text, print_facts
from vlprep_cli.picture import save_picture
from vlprep_cli.pretrain import training_lines
from vlprep_cli.stage import EXIT_FAILURES, print_report, watched

_ON_SHEET = 20
_RECIPE = "uniter-demo"
_OBJECTIVES = "mlm:4+mrfr+mrc-kl"
"""Matching takes more steps and pictures than a demo has."""
_FEWEST_TO_TRAIN = 40
"""With fewer pictures none, or one alone, would be held out."""


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("vlprep-demo"), help="The dataset's folder.")
@click.option("--images", type=click.IntRange(min=1), default=400, show_default=True, help="How many pictures.")
@click.option(
    "--steps", type=click.IntRange(min=0), default=1500, show_default=True, help="Of pretraining; 0 to leave it out."
)
@common_options
@click.pass_context
def demo(ctx: click.Context, /, out: Path, images: int, steps: int) -> None:
    """Render a small COCO-like dataset, extract its regions, draw a contact sheet, pretrain a small UNITER.

    The pictures are coloured shapes, and the detector a small one that was trained on such pictures and comes with
    vlprep: nothing is downloaded, and all that comes out can be checked by eye. benchmarks/learning.py trains longer.
    The folder must be new, empty, or that of an earlier demo of as many images.
    """
    from vlprep.media.scenes import write_coco_folder
    from vlprep.report.contact_sheet import sheet_of_store
    from vlprep.shards.atomic import clear_errors
    from vlprep.stages.extract_regions import RegionSettings, extract_regions
    from vlprep.stages.run import RunSettings

    with clear_errors(out):
        write_coco_folder(out, images)
    with watched(ctx, "image") as on_event:
        report = extract_regions(out, RegionSettings(detector="demo"), RunSettings(), on_event)
    sheet = report.folder.with_name("contact_sheet.png")
    save_picture(sheet_of_store(report.folder, out, _ON_SHEET), sheet)
    print_report(report, "image", [("shards", f"{report.folder}/part-*.arrow"), ("contact sheet", str(sheet))])
    if report.status.failed:
        ctx.exit(EXIT_FAILURES)
    if images < _FEWEST_TO_TRAIN:
        click.echo(f"no pretraining: it takes {_FEWEST_TO_TRAIN} images", err=True)
    elif steps:
        _train(out, steps, quiet=ctx.ensure_object(Speech).quiet)


def _train(folder: Path, steps: int, *, quiet: bool) -> None:
    from vlprep.pretrain.recipe import load_recipe, with_objectives, with_settings
    from vlprep.pretrain.run_folder import METRICS_NAME
    from vlprep.stages.pretrain import pretrain
    from vlprep.stages.tokenize_text import tokenize_text

    began = time.monotonic()
    tokenize_text(folder, "train:400")
    recipe = with_objectives(load_recipe(_RECIPE), _OBJECTIVES)
    recipe = with_settings(recipe, [f"train.steps={steps}", "train.validate_every=500"])
    say = (lambda event: None) if quiet else training_lines()
    run = pretrain([folder], recipe, name=_RECIPE, resume="never", on_event=say)
    assert run is not None  # one process alone
    print_facts(
        [
            ("training", f"{run.steps:,} steps in {duration_text(time.monotonic() - began)}: {_learned(run.figures)}"),
            ("metrics", str(run.folder / METRICS_NAME)),
            ("curves", str(run.curves)),
            ("checkpoint", str(run.checkpoint)),
        ]
    )


def _learned(figures: Mapping[str, float | None]) -> str:
    """Of held-out pictures."""
    return (
        f"{_percent(figures['mlm/accuracy'])} of masked words told with their own image, "
        f"{_percent(figures['mlm/accuracy without'])} with another's"
    )


def _percent(share: float | None) -> str:
    return "not a number" if share is None else f"{share:.0%}"
