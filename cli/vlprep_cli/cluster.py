"""`vlprep cluster-video`: from clip features to a visual vocabulary and tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vlprep_cli.options import Speech, common_options, json_option, refuse_beside
from vlprep_cli.output import counted, print_facts, print_table
from vlprep_cli.progress import LINE_EVERY_S
from vlprep_cli.stage import finish, run_options, take_run_settings, watched

if TYPE_CHECKING:
    from vlprep.stages.cluster_video import ClusterReport, ClusterSettings, VocabularyFile
    from vlprep.stages.run import RunSettings

_TRAINING = ("branching", "depth", "sample", "iterations", "polish")

_EPILOG = """\b
Rules (--assign):
  tree    down the tree, the nearest child at each level (VideoBERT's)
  beam:8  the same with the 8 best nodes kept at each level: nearly always the nearest leaf
  flat    the nearest of all leaves, at hundreds of times the work

\b
Examples:
  vlprep cluster-video howto100m
  vlprep cluster-video howto100m --assign beam:8 --polish 4
  vlprep cluster-video clips --branching 8 --depth 2 --from s3d-howto100m --out clips/vlprep/tokens-64
  vlprep cluster-video youcook --vocabulary howto100m/vlprep/tokens/vocabulary.safetensors
"""


@click.command("cluster-video", epilog=_EPILOG)
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--branching", type=int, default=12, help="Children of a node.")
@click.option("--depth", type=int, default=4, help="Levels; 12 and 4 make VideoBERT's 20,736 tokens.")
@click.option("--sample", type=click.IntRange(min=1), help="Vectors to train on.  [default: 64 a leaf]")
@click.option("--iterations", type=int, default=20, help="Of k-means at each node.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the sample and of k-means.")
@click.option("--assign", "rule", default="tree", help="How tokens are found: tree, beam:W or flat.")
@click.option("--polish", type=click.IntRange(min=0), default=0, help="Lloyd iterations over all leaves; with beam:W.")
@click.option("--from", "source", default="s3d", help="The video store to cluster, by name, or its folder.")
@click.option("--vocabulary", type=click.Path(path_type=Path), help="Apply this one instead of training.")
@click.option("--weights", help="S3D's, where its features must be extracted first.  [default: the public place]")
@run_options("video", parts="4096 on GPUs, 1024 on the CPU", store="tokens")
@json_option
@common_options
@click.pass_context
def cluster_video(
    ctx: click.Context,
    /,
    dataset: Path,
    branching: int,
    depth: int,
    sample: int | None,
    iterations: int,
    seed: int,
    rule: str,
    polish: int,
    source: str,
    vocabulary: Path | None,
    weights: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Visual tokens of every video below the folder DATASET.

    Trains a vocabulary on a sample of the clip features by hierarchical k-means, and writes it and the tokens of all
    clips into DATASET/vlprep/tokens. S3D features are extracted first if there are none. The same command resumes.
    """
    from vlprep.cluster.assign import AssignRule
    from vlprep.cluster.train import TrainSettings
    from vlprep.stages import cluster_video as stage

    if vocabulary is not None:
        refuse_beside(ctx, "--vocabulary", _TRAINING, "it is trained already")
    run = take_run_settings(options)
    settings = stage.ClusterSettings(
        training=TrainSettings(branching=branching, depth=depth, iterations=iterations, seed=seed),
        sample=sample,
        polish=polish,
        assign=AssignRule.parse(rule),
        source=source,
        vocabulary=vocabulary,
    )
    if polish and settings.assign.beam == 1:
        click.echo("--polish moves leaves to where --assign tree does not find them all: use it with beam:8", err=True)
    if stage.lacks_features(dataset, source):
        _extract(ctx, dataset, source, weights, run)
    file = _vocabulary(ctx, dataset, settings, run)
    with watched(ctx, "video") as on_event:
        report = stage.assign_tokens(dataset, settings, file, run, on_event)
    if not as_json:
        _print_levels(report, settings)
    also = {"vocabulary": report.vocabulary, "levels": report.levels, "tokens": report.tokens, "judged": report.judged}
    finish(ctx, report.stage, "video", as_json=as_json, also=also)


def _extract(ctx: click.Context, dataset: Path, source: str, weights: str | None, run: RunSettings) -> None:
    """Clip features by the encoder of that name, with its own recipe."""
    from vlprep.clips.presets import PRESETS
    from vlprep.errors import SettingsError
    from vlprep.stages import extract_video as stage

    if source not in PRESETS:
        raise SettingsError(
            f"--from {source}: no finished video store of this name in {dataset / 'vlprep'}, and no encoder; "
            f"run vlprep extract-video {dataset} first"
        )
    click.echo(f"{source} features are missing: extracting them first", err=True)
    settings = stage.VideoSettings(encoders=(stage.EncoderChoice(name=source, weights=weights),))
    own = replace(run, out=None, overwrite=False, part_size=None)
    with watched(ctx, "video") as on_event:
        report = stage.extract_video(dataset, settings, own, on_event)
    if not report.status.rows:
        raise SettingsError(f"{report.folder}: no video has features ({counted(report.status.failed, 'failure')})")
    if report.status.failed:
        click.echo(f"{counted(report.status.failed, 'video')} failed; vlprep store info {report.folder}", err=True)


def _vocabulary(ctx: click.Context, dataset: Path, settings: ClusterSettings, run: RunSettings) -> VocabularyFile:
    from vlprep.stages import cluster_video as stage

    quiet = ctx.ensure_object(Speech).quiet
    file = stage.find_or_train(dataset, settings, run, (lambda done, nodes: None) if quiet else _training_lines())
    if not quiet:
        click.echo(f"vocabulary: {file.origin}", err=True)
    return file


def _training_lines() -> Callable[[int, int], None]:
    """A line on stderr every few seconds."""
    last = time.monotonic()

    def say(done: int, nodes: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            click.echo(f"training: {done:,} of {nodes:,} nodes of the tree", err=True)

    return say


def _print_levels(report: ClusterReport, settings: ClusterSettings) -> None:
    print_table(level_header("clips"), [level_cells(judged.quality, judged.error) for judged in report.levels])
    click.echo()
    print_facts(
        [
            ("vocabulary", str(report.vocabulary)),
            ("tokens", f"{counted(report.tokens, 'clip')} by {settings.assign}"),
        ]
    )


def level_header(noun: str) -> Sequence[str]:
    """Of a table of the levels of a vocabulary; see `level_cells`."""
    return ["level", "codes", "absent", f"without {noun}", "perplexity", "largest", "error"]


def level_cells(quality: Any, error: float | None) -> Sequence[str]:
    """A level: its codes, those that have no node, those that nothing reached, how evenly it is used, how well it
    fits."""
    return [
        str(quality.level),
        f"{quality.codes}",
        f"{quality.absent}",
        f"{quality.empty}",
        f"{quality.perplexity:.1f}",
        f"{100 * quality.largest:.1f} %",
        "" if error is None else f"{error:.3f}",
    ]
