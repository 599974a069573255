"""`vlprep vocabulary`: what a vocabulary of visual tokens is, and what its tokens look like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vlprep.errors import SettingsError
from vlprep_cli.cluster import level_cells, level_header
from vlprep_cli.options import common_options, json_option
from vlprep_cli.output import print_facts, print_json, print_table
from vlprep_cli.picture import check_target, save_picture
from vlprep_cli.show import find_store

if TYPE_CHECKING:
    from vlprep.stages.leaf_frames import Leaf

_SHOWN = 12
_STORE = "tokens"


@click.group()
def vocabulary() -> None:
    """Look into a vocabulary of visual tokens."""


@vocabulary.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@common_options
def info(file: Path, as_json: bool) -> None:
    """How FILE was trained, and how good it is level by level: empty nodes, balance, quantisation error.

    FILE may also be the folder of a tokens store, or of a dataset that has one. Counts and errors are those of the
    vectors that it was trained on.
    """
    from vlprep.cluster.quality import level_quality
    from vlprep.cluster.vocabulary import VOCABULARY_NAME, Vocabulary

    places = (file / VOCABULARY_NAME, file / "vlprep" / _STORE / VOCABULARY_NAME)
    path = next((place for place in places if place.is_file()), file)
    found = Vocabulary.load(path)
    errors: Sequence[float | None] = found.settings.get("errors") or [None] * found.depth
    levels = [level_quality(found, level) for level in range(1, found.depth + 1)]
    if as_json:
        shape = {"branching": found.branching, "depth": found.depth, "dim": found.dim, "tokens": found.size}
        print_json({"file": path, **shape, "settings": found.settings, "levels": levels})
        return
    recipe = found.settings.get("recipe") or found.settings
    made_from = found.settings.get("made_from")
    facts = [
        ("vocabulary", str(path)),
        ("tokens", f"{found.size:,} = {found.branching} ^ {found.depth}, vectors of {found.dim:,} numbers"),
        ("trained on", f"{found.settings['sample']:,} vectors" + (f" of {made_from['store']}" if made_from else "")),
        ("by", ", ".join(f"{name} {recipe[name]}" for name in ("iterations", "seed", "polish") if name in recipe)),
    ]
    print_facts(facts)
    click.echo()
    print_table(
        level_header("vectors"), [level_cells(level, error) for level, error in zip(levels, errors, strict=True)]
    )
    if "errors_by" in found.settings:
        click.echo(f"\nerror: mean squared distance over variance, by --assign {found.settings['errors_by']}")


@vocabulary.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--store", "store_name", default=_STORE, help="The store of tokens, by name, or its folder.")
@click.option("--from", "source", help="The features it was made from.  [default: as recorded]")
@click.option("--token", "tokens", type=int, multiple=True, help="A token to show.  [default: the most used]")
@click.option("--top", type=click.IntRange(min=1), default=_SHOWN, help="How many of the most used.")
@click.option("--frames", type=click.IntRange(1, 12), default=5, help="Frames a token.")
@click.option("--out", type=click.Path(path_type=Path), help="The picture to write.  [default: NAME.tokens.png here]")
@json_option
@common_options
def show(
    dataset: Path,
    store_name: str,
    source: str | None,
    tokens: tuple[int, ...],
    top: int,
    frames: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Draw what tokens look like: the frames nearest to their leaves, and what is said meanwhile."""
    from vlprep.shards.manifest import read_manifest
    from vlprep.stages.cluster_video import source_store
    from vlprep.stages.leaf_frames import TokenStores
    from vlprep.stages.leaf_picture import leaf_picture

    target = out or Path(f"{dataset.resolve().name}.tokens.png")
    check_target(target)
    folder = find_store(dataset, store_name)
    manifest = read_manifest(folder)
    if manifest.kind != "tokens":
        raise SettingsError(f"--store {store_name}: a store of kind {manifest.kind}, not of tokens")
    stores = TokenStores(folder, source_store(dataset, source or manifest.settings["source"]["store"]))
    leaves = stores.leaves(tokens or stores.most_used(top), frames)
    if not leaves:
        raise SettingsError(f"{folder} has no tokens")
    save_picture(leaf_picture(dataset, stores.vocabulary, leaves), target)
    if as_json:
        print_json({"picture": target, "leaves": leaves})
        return
    _print_leaves(leaves)
    click.echo(f"\n{target}")


def _print_leaves(leaves: Sequence[Leaf]) -> None:
    from vlprep.report.clock import clock_text

    print_table(
        ["token", "clips", "nearest"],
        (
            (
                leaf.token,
                leaf.clips,
                ", ".join(f"{Path(clip.video).stem} {clock_text(clip.start)}" for clip in leaf.nearest[:3]),
            )
            for leaf in leaves
        ),
    )
