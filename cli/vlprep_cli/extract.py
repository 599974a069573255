"""`vlprep extract-regions`: from a folder of pictures to a regions store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from vlprep_cli.options import common_options, json_option, refuse_beside
from vlprep_cli.stage import dry_run_option, finish, print_plan, run_options, take_run_settings, watched

_EPILOG = """\b
Boxes of your own (--given-boxes), in pixels of the image as a person sees it:
  .jsonl       {"image": "val/x.jpg", "boxes": [[x1, y1, x2, y2], ...]}
  .csv, .tsv   a row a box: image,x1,y1,x2,y2 or image,x,y,width,height
  .json        COCO's instances
An image is named by its path in the dataset, its file name or the dataset's id.

\b
Examples:
  vlprep extract-regions coco --dry-run
  vlprep extract-regions coco --detector butd --precision bf16 --device cuda
  vlprep extract-regions coco --detector butd --weights random:0 --limit 10 --out /tmp/try
  vlprep extract-regions coco --retry-failed
"""


def _overrides(ctx: click.Context, parameter: click.Parameter, pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value`, the value as JSON where it is JSON, else as text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{pair}: write key=value, such as score_threshold=0.2", ctx, parameter)
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found


@click.command(epilog=_EPILOG)
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--detector", default="butd", help="A family; `vlprep detectors` lists them.")
@click.option("--weights", help="A file, hf://OWNER/REPO[/FILE] or random:SEED.  [default: the family's own place]")
@click.option("--boxes", default="10-100", help="Boxes an image: 36, or the fewest and the most.")
@click.option(
    "--selection", type=click.Choice(["caffe", "max-class"]), help="How boxes are chosen.  [default: the family's]"
)
@click.option("--given-boxes", type=click.Path(path_type=Path), help="Describe these boxes, all of them.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", help="Of the network.")
@click.option(
    "--store-dtype", type=click.Choice(["float16", "float32"]), default="float16", help="Of features and probabilities."
)
@click.option("--soft-labels", default="full", help="Class distributions to keep: full, topK (top10) or none.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_overrides,
    help="Another setting of the detector.",
)
@run_options("image", parts="512 on GPUs, 64 on the CPU", store="regions")
@dry_run_option("image")
@json_option
@common_options
@click.pass_context
def extract_regions(
    ctx: click.Context,
    /,
    dataset: Path,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Boxes, features and soft labels of every image below the folder DATASET.

    Writes Arrow files into DATASET/vlprep/regions. The same command resumes what was stopped, and does what was
    added to the folder since. Images that cannot be read are recorded with the reason, and the exit code is then 3.
    """
    from vlprep.stages import extract_regions as stage

    if options["given_boxes"] is not None:
        refuse_beside(ctx, "--given-boxes", ("boxes", "selection"), "given boxes are all described, in their order")
    run = take_run_settings(options)
    settings = stage.RegionSettings(**options)
    if dry_run:
        print_plan(stage.dry_run(dataset, settings, run), "image", as_json=as_json)
        return
    with watched(ctx, "image") as on_event:
        report = stage.extract_regions(dataset, settings, run, on_event)
    finish(ctx, report, "image", as_json=as_json)
