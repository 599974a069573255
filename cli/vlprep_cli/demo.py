"""`vlprep demo`: the whole way from pictures to shards, without a download."""

from __future__ import annotations

from pathlib import Path

import click

from vlprep_cli.options import common_options
from vlprep_cli.stage import EXIT_FAILURES, print_report, watched

_ON_SHEET = 20


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("vlprep-demo"), help="The dataset's folder.")
@click.option("--images", type=click.IntRange(min=1), default=60, help="How many pictures.")
@common_options
@click.pass_context
def demo(ctx: click.Context, /, out: Path, images: int) -> None:
    """Render a small COCO-like dataset, extract its regions, draw a contact sheet.

    The pictures are coloured shapes, and the detector a small one that was trained on such pictures and comes with
    vlprep: nothing is downloaded, and all that comes out can be checked by eye.
    """
    from vlprep.media.scenes import write_coco_folder
    from vlprep.report.contact_sheet import sheet_of_store
    from vlprep.stages.extract_regions import RegionSettings, extract_regions
    from vlprep.stages.run import RunSettings

    write_coco_folder(out, images)
    with watched(ctx, "image") as on_event:
        report = extract_regions(out, RegionSettings(detector="demo"), RunSettings(), on_event)
    sheet = report.folder.with_name("contact_sheet.png")
    sheet_of_store(report.folder, out, _ON_SHEET).save(sheet)
    print_report(report, "image", [("shards", f"{report.folder}/part-*.arrow"), ("contact sheet", str(sheet))])
    if report.status.failed:
        ctx.exit(EXIT_FAILURES)
