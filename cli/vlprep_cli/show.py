"""`vlprep show`: one row of a store. An image is drawn and put into words, a video is printed clip by clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vlprep.errors import SettingsError
from vlprep_cli.options import common_options, json_option
from vlprep_cli.output import print_json, print_table
from vlprep_cli.picture import check_target, save_picture
from vlprep_cli.show_video import show_clips, show_tokens

if TYPE_CHECKING:
    from vlprep.shards import Row, StoreReader

_LEAST_SHARE = 0.001
"""A class is not named in the table for less."""

_EPILOG = """\b
Examples:
  vlprep show coco --store regions --id train2014/COCO_train2014_000000132417.jpg
  vlprep show coco --id 132417 --out birds.png
  vlprep show howto100m --store tokens --id videos/flipping_a_pancake.mkv
  vlprep show howto100m --store s3d
"""


@click.command(epilog=_EPILOG)
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--store", "store_name", default="regions", help="A store of the dataset, or any store's folder.")
@click.option("--id", "item", help="An item's id (its path) or the dataset's own id.  [default: the first]")
@click.option("--out", type=click.Path(path_type=Path), help="The picture to write.  [default: NAME.regions.png here]")
@click.option("--top", type=click.IntRange(min=1), default=8, help="Regions to name in the picture.")
@json_option
@common_options
def show(dataset: Path, store_name: str, item: str | None, out: Path | None, top: int, as_json: bool) -> None:
    """Draw one image of DATASET with its boxes, classes and the distributions behind them.

    The picture is a PNG, or what --out ends with (.jpg, .webp); the table on stdout has all regions, each with its five
    most probable classes. Of a video there is a table only: its tokens along its narration, or its clips.
    """
    from vlprep.shards import StoreReader

    reader = StoreReader(find_store(dataset, store_name))
    row = reader[_find_row(reader, item)]
    match reader.manifest.kind:
        case "regions":
            _show_regions(dataset, row, reader.manifest.names["classes"], out, top, as_json=as_json)
        case "tokens":
            show_tokens(dataset, row, as_json=as_json)
        case "video":
            show_clips(row, as_json=as_json)
        case kind:
            raise SettingsError(f"--store {store_name}: a store of kind {kind}; see vlprep store head {reader.folder}")


def _show_regions(
    dataset: Path, row: Row, class_names: Sequence[str], out: Path | None, top: int, *, as_json: bool
) -> None:
    from vlprep.media.image import read_image
    from vlprep.report.region_page import region_page
    from vlprep.report.regions import region_views

    views = region_views(row, class_names)
    target = out or Path(f"{Path(row['id']).stem}.regions.png")
    check_target(target)
    save_picture(region_page(row["id"], read_image(dataset / row["path"]), views, top), target)
    if as_json:
        print_json({"id": row["id"], "picture": str(target), "regions": views})
        return
    print_table(
        ["", "class", "conf", "backgr", "box", "most probable"],
        (
            (
                number,
                view.name,
                f"{view.confidence:.3f}",
                "" if view.background is None else f"{view.background:.3f}",
                " ".join(f"{edge:.0f}" for edge in view.box),
                ", ".join(f"{name} {100 * share:.1f} %" for name, share in view.likely if share >= _LEAST_SHARE),
            )
            for number, view in enumerate(views, start=1)
        ),
    )
    click.echo(f"\n{target}")


def find_store(dataset: Path, name: str) -> Path:
    """A store of the dataset by name, else the folder of that name."""
    folder = dataset / "vlprep" / name
    return folder if folder.exists() or not Path(name).exists() else Path(name)


def _find_row(reader: StoreReader, item: str | None) -> int:
    if not len(reader):
        raise SettingsError(f"{reader.folder} has no rows yet")
    if item is None:
        return 0
    for column in ("id", "source_id"):
        row = int(reader.locate([item], column)[0])
        if row >= 0:
            return row
    raise SettingsError(f"--id {item}: no such row in {reader.folder}{_why(reader, item)}")


def _why(reader: StoreReader, item: str) -> str:
    """Its failure if it has one, else what ids look like."""
    from vlprep.shards.describe import describe

    for failure in describe(reader.folder)["failures"]:
        if failure["id"] == item:
            return f"; it failed: {failure['message']}"
    return f"; an id is a path in the dataset, such as {reader[0]['id']}"
