"""`vlprep extract-video`: from a folder of videos to a store of clip features for each encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vlprep_cli.options import common_options, json_option
from vlprep_cli.output import bytes_text, print_table
from vlprep_cli.stage import dry_run_option, finish, print_plan, run_options, take_run_settings, watched

if TYPE_CHECKING:
    from vlprep.stages.extract_video import EncoderChoice

_RECIPE = ("fps", "clip_frames", "stride", "crop")
"""Settings of the recipe that have an option of their own; it goes for all encoders."""

_EPILOG = """\b
Encoders and published recipes (--model); each value can be overridden:
  resnet152, resnext101, s3d, s3d-howto100m       a network with its authors' sampling
  howto100m-2d, howto100m-3d                      HowTo100M's features (1 and 1.5 a second)
  videobert-s3d, milnce-s3dg, univl, mmpt, hero, hero-2d, torchvision-s3d
  package.module:function                         an encoder of your own

\b
Examples:
  vlprep extract-video howto100m --model howto100m-2d,howto100m-3d --dry-run
  vlprep extract-video howto100m --model s3d --weights S3D_kinetics400.pt --precision bf16
  vlprep extract-video howto100m --model s3d,resnet152 --weights s3d=random:0 --set resnet152.fps=1/2
  vlprep extract-video howto100m --retry-failed
"""


@click.command(epilog=_EPILOG)
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--model", "models", default="s3d", help="One encoder or several, separated by commas.")
@click.option("--fps", help="Frames a second, such as 20 or 2/3.  [default: the recipe's, as all of these]")
@click.option("--clip-frames", help="Frames a clip.")
@click.option("--stride", help="Frames from one clip's start to the next one's.")
@click.option("--crop", help="Side of the centre square; none keeps the whole width.")
@click.option(
    "--weights",
    multiple=True,
    metavar="[NAME=]FILE",
    help="A file, hf://OWNER/REPO/FILE or random:SEED; NAME= where there are several encoders.  "
    "[default: the public place]",
)
@click.option("--set", "settings", multiple=True, metavar="[NAME.]KEY=VALUE", help="Another setting of a recipe.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", help="Of the networks.")
@click.option("--store-dtype", type=click.Choice(["float16", "float32"]), default="float16", help="Of the features.")
@click.option("--decoder", default="pyav", help="pyav, decord or torchcodec.")
@run_options("video", parts="64 on GPUs, 16 on the CPU", store="ENCODER")
@dry_run_option("video")
@json_option
@common_options
@click.pass_context
def extract_video(
    ctx: click.Context,
    /,
    dataset: Path,
    models: str,
    weights: Sequence[str],
    settings: Sequence[str],
    precision: Any,
    store_dtype: Any,
    decoder: str,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Clip features of every video below the folder DATASET, by one or more encoders.

    Writes Arrow files into DATASET/vlprep/ENCODER; every video is decoded once, for all encoders together. The same
    command resumes what was stopped, and does what was added to the folder since. Videos that cannot be read are
    recorded with the reason, and the exit code is then 3.
    """
    from vlprep.stages import extract_video as stage

    recipe = {name: value for name in _RECIPE if (value := options.pop(name)) is not None}
    run = take_run_settings(options)
    chosen = stage.VideoSettings(
        encoders=_choices(models, recipe, weights, settings),
        precision=precision,
        store_dtype=store_dtype,
        decoder=decoder,
    )
    if dry_run:
        print_plan(stage.dry_run(dataset, chosen, run), "video", as_json=as_json)
        return
    with watched(ctx, "video") as on_event:
        report = stage.extract_video(dataset, chosen, run, on_event)
    stores = stage.store_folders(dataset, chosen, run)
    if not as_json:
        print_stores(stores)
    finish(ctx, report, "video", as_json=as_json, also={"stores": stores})


def print_stores(stores: Mapping[str, Path]) -> None:
    """A line for each store."""
    from vlprep.shards.describe import describe

    facts = {name: describe(folder) for name, folder in stores.items()}
    print_table(
        ["encoder", "videos", "clips", "failed", "size", "store"],
        (
            (
                name,
                fact["rows"],
                fact["entries"],
                fact["failed"],
                bytes_text(fact["bytes"]),
                fact["folder"],
            )
            for name, fact in facts.items()
        ),
    )
    click.echo()


def _choices(
    models: str, recipe: Mapping[str, str], weights: Sequence[str], settings: Sequence[str]
) -> tuple[EncoderChoice, ...]:
    """What `--model`, `--weights`, `--set` and the options of the recipe add up to."""
    from vlprep.stages.extract_video import EncoderChoice

    names = [name.strip() for name in models.split(",") if name.strip()]
    files = dict(_weights_of(text, names) for text in weights)
    overrides: dict[str, dict[str, str]] = {name: dict(recipe) for name in names}
    for text in settings:
        name, key, value = _setting_of(text, names)
        overrides[name][key] = value
    return tuple(EncoderChoice(name=name, weights=files.get(name), overrides=overrides[name]) for name in names)


def _weights_of(text: str, names: Sequence[str]) -> tuple[str, str]:
    """`NAME=FILE`; or `FILE` where there is only one encoder."""
    for name in names:
        if text.startswith(f"{name}="):
            return name, text.removeprefix(f"{name}=")
    if len(names) == 1:
        return names[0], text
    raise click.BadParameter(f"{text}: write NAME=FILE with one of {', '.join(names)}", param_hint="--weights")


def _setting_of(text: str, names: Sequence[str]) -> tuple[str, str, str]:
    """`NAME.KEY=VALUE`; or `KEY=VALUE` where there is only one encoder."""
    for name in names:
        if text.startswith(f"{name}.") and "=" in text:
            key, _, value = text.removeprefix(f"{name}.").partition("=")
            return name, key, value
    key, equals, value = text.partition("=")
    if len(names) == 1 and equals:
        return names[0], key, value
    raise click.BadParameter(f"{text}: write NAME.KEY=VALUE, such as {names[0]}.fps=10", param_hint="--set")
