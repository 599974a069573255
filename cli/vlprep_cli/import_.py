"""`vlprep import`: features that others have published, as stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vlprep_cli.options import common_options, json_option
from vlprep_cli.output import print_facts, print_json
from vlprep_cli.stage import EXIT_FAILURES, print_report, watched

if TYPE_CHECKING:
    from vlprep.shards.schema import StoreType


@click.group("import")
def import_() -> None:
    """Features that others have published, as stores.

    A store made here is used like one that was extracted from files.
    """


_LXMERT_EPILOG = """
Rows are joined with the images of DATASET by path, file name, name without suffix or COCO's image id; those without an
image there are kept under the id that the file gives them. The file has one class and its probability a region, and no
distribution: the objectives mlm, itm, mrfr and mrc can be trained from it, mrc-kl cannot. Attributes are not kept.

Several TSVs (train, val) have no header and become one with cat.

\b
Example:
  vlprep import lxmert-tsv coco train2014_obj36.tsv
"""


@import_.command("lxmert-tsv", epilog=_LXMERT_EPILOG)
@click.argument("dataset", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--store-dtype", type=click.Choice(["float16", "float32"]), default="float16", help="Of the features.")
@click.option("--overwrite", is_flag=True, help="Begin the store anew.")
@click.option("--out", type=click.Path(path_type=Path), help="The store's folder.  [default: DATASET/vlprep/regions]")
@json_option
@common_options
@click.pass_context
def lxmert_tsv(
    ctx: click.Context,
    /,
    dataset: Path,
    file: Path,
    store_dtype: StoreType,
    overwrite: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Region features of FILE, a TSV with LXMERT's ten columns, for the images in the folder DATASET.

    Writes Arrow files into DATASET/vlprep/regions; the same command resumes what was stopped. Lines that cannot be
    used are recorded with their number and the reason, and the exit code is then 3.
    """
    from vlprep.stages.import_regions import import_lxmert_tsv

    with watched(ctx, "image") as on_event:
        report = import_lxmert_tsv(
            dataset, file, store_dtype=store_dtype, out=out, overwrite=overwrite, on_event=on_event
        )
    if as_json:
        print_json(report)
    else:
        print_report(report, "image")
    if report.status.failed:
        ctx.exit(EXIT_FAILURES)


_CLIPS_EPILOG = """\b
Forms of FEATURES:
  howto100m  youcook_val.pkl (captions in it), MSRVTT_*.pth (--captions MSRVTT_test.csv)
  UniVL      youcookii_videos_features.pickle (--captions youcookii_data.pickle --only youcookii_val.csv),
             msrvtt_videos_features.pickle (--captions MSRVTT_JSFUSION_test.csv)

The tokenizer has to be that of the model to be evaluated: the tokenizer.json beside the text store that it was
trained on, or words:DATASET/vlprep/words.

\b
Example:
  vlprep import clip-features youcook youcook_val.pkl --tokenizer words:howto100m/vlprep/words --text words
  vlprep evaluate retrieval howto100m/vlprep/runs/howto100m youcook
"""


@import_.command("clip-features", epilog=_CLIPS_EPILOG)
@click.argument("dataset", type=click.Path(path_type=Path))
@click.argument("features", type=click.Path(path_type=Path))
@click.option("--tokenizer", required=True, help="As of vlprep tokenize.")
@click.option("--captions", type=click.Path(path_type=Path), help="Where FEATURES has none.")
@click.option("--only", type=click.Path(path_type=Path), help="A table whose video_id column is the split.")
@click.option("--store", "stores", multiple=True, help="Names of the stores.  [default: howto100m-2d and -3d, or s3d]")
@click.option("--text", default="text", help="Name of the text store.")
@click.option("--overwrite", is_flag=True, help="Begin the stores anew.")
@json_option
@common_options
def clip_features(
    dataset: Path,
    features: Path,
    tokenizer: str,
    captions: Path | None,
    only: Path | None,
    stores: tuple[str, ...],
    text: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """FEATURES of the clips of a retrieval benchmark (YouCook2, MSR-VTT, LSMDC) with their captions.

    Writes Arrow files into DATASET/vlprep/; the videos themselves are not needed. Clips without a caption and captions
    without a clip are left out and counted.
    """
    from vlprep.stages.import_clips import import_clips

    report = import_clips(
        dataset,
        features,
        tokenizer=tokenizer,
        captions=captions,
        only=only,
        stores=stores,
        text=text,
        overwrite=overwrite,
    )
    if as_json:
        print_json(report)
        return
    print_facts(
        [
            ("stores", ", ".join(str(store) for store in report.stores)),
            ("clips", f"{report.clips:,} with a caption, {report.clips_without_text:,} without, left out"),
            ("captions", f"{report.texts:,} of a clip, {report.texts_without_clip:,} of none, left out"),
        ]
    )
