"""`import lxmert-tsv`: published region features into a regions store, as if `extract-regions` had made them.

A row of the file becomes the row of the image in the folder that its `img_id` means (by path, file name, name without
suffix, or the dataset's own id). Rows whose image is not there are kept under the id that the file gives them, with
that as `source_id` too, so that joins by the dataset's own ids still find them.

What the file says is stored, and nothing else: most probable class and its probability (`object_ids`, `max_conf`), no
distribution and no background. So `mlm`, `itm`, `mrfr` and `mrc` can be trained from it, and `mrc-kl` cannot. The one
attribute of a region is passed over: a store has the distribution over all, and some writers leave zeros there; so
`lxmert` trains its other tasks from it. Boxes and `proposals` are the same, as Caffe's extractor writes what it pooled
from (generate_tsv.py:83-95).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vlprep.datasets import open_dataset
from vlprep.datasets.items import Item, image_source_id
from vlprep.datasets.join import ItemIndex, Match
from vlprep.detect.vocabulary import class_names
from vlprep.engines.base import Beat, Job, PartDone
from vlprep.errors import ItemError
from vlprep.interop.lxmert_tsv import ImageRegions, Line, feature_size, index_file, read_row
from vlprep.shards import Store, StoreSettings
from vlprep.shards.schema import StoreType, regions_schema
from vlprep.stages.run import OnStageEvent, RunSettings, Stage, StageReport, run_stage
from vlprep.stages.sink import OneStore, Sink, do_part

log = logging.getLogger(__name__)

PART_SIZE = 512


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A line of the file under the id that its row will have."""

    line: Line
    source_id: str | None
    fault: str | None = None
    """Why it cannot be used, if that is known from its place in the file."""


def import_lxmert_tsv(
    dataset: Path,
    file: Path,
    *,
    store_dtype: StoreType = "float16",
    out: Path | None = None,
    overwrite: bool = False,
    on_event: OnStageEvent = lambda event: None,
) -> StageReport:
    """Fill `<dataset>/vlprep/regions` (or `out`). Lines that cannot be used are failures that name their number.

    Raises `SettingsError` if the file is of another format, and as `run_stage` does; the same call resumes.
    """
    index = index_file(file)
    images = open_dataset(dataset).images
    rows = plan_rows(index.lines, images)
    known = {image.id for image in images}
    strangers = [item for item, row in rows.items() if item not in known and row.fault is None]
    if strangers:
        log.warning(
            "%d of %d rows are of images that are not in %s, such as %s: kept under their own ids",
            len(strangers),
            len(rows),
            dataset,
            strangers[0],
        )
    feature_dim, names = feature_size(file, index), class_names()
    stage = Stage(
        folder=dataset / "vlprep" / "regions",
        items=list(rows),
        schema=regions_schema(feature_dim, len(names), dtype=store_dtype, soft_labels="none", background=False),
        settings=StoreSettings(
            kind="regions",
            settings={"imported_from": "lxmert-tsv", "file": file.name, "sha256": index.sha256},
            weights=None,
            names={"classes": names},
        ),
        worker="vlprep.stages.import_regions:ImportWorker",
        arguments={"file": file, "rows": rows, "feature_dim": feature_dim, "num_classes": len(names)},
    )
    run = RunSettings(device="cpu", part_size=PART_SIZE, out=out, overwrite=overwrite)
    return run_stage(stage, run, on_event)


def plan_rows(lines: Iterable[Line], images: Iterable[Item]) -> dict[str, PlannedRow]:
    """Every line under an id of its own, whatever is wrong with it.

    An image that several lines might mean belongs to the one that surely means it; if none does, to none.
    """
    index = ItemIndex(images)
    firsts: dict[str, Line] = {}
    rows: dict[str, PlannedRow] = {}
    for line in lines:
        if not line.image_id:
            rows[f"line {line.number}"] = PlannedRow(line, None, "torn: not ten columns, the first an image id")
        elif (first := firsts.setdefault(line.image_id, line)) is not line:
            fault = f"line {first.number} has {line.image_id} already"
            rows[f"{line.image_id} (line {line.number})"] = PlannedRow(line, None, fault)
    matches = {name: index.find([name, *filter(None, [image_source_id(name)])]) for name in firsts}
    owners = _owners({name: match for name, match in matches.items() if match})
    for name, line in firsts.items():
        match = matches[name]
        if match and owners.get(match.item.id) == name:
            rows[match.item.id] = PlannedRow(line, match.item.source_id)
        else:
            rows[name] = PlannedRow(line, image_source_id(name) or name)
    return rows


def _owners(matches: Mapping[str, Match]) -> dict[str, str]:
    """The name in the file that has each image."""
    owners: dict[str, str] = {}
    for name, match in matches.items():
        if match.sure:
            owners.setdefault(match.item.id, name)
    guesses = Counter(match.item.id for match in matches.values() if not match.sure)
    for name, match in matches.items():
        if not match.sure and guesses[match.item.id] == 1:
            owners.setdefault(match.item.id, name)
    return owners


class ImportWorker:
    """Decodes the rows of a part; one row is in memory at a time."""

    def __init__(
        self,
        *,
        device: str,
        threads: int,
        store: Store,
        file: Path,
        rows: Mapping[str, PlannedRow],
        feature_dim: int,
        num_classes: int,
    ) -> None:
        self._store, self._file, self._rows = store, file, rows
        self._feature_dim, self._num_classes = feature_dim, num_classes

    def run(self, job: Job, beat: Beat) -> PartDone:
        """Import the rows of the part and commit it."""

        def work(items: Sequence[str], sink: Sink) -> None:
            with self._file.open("rb") as file:
                for item in items:
                    beat.begin(item)
                    try:
                        with sink.watch.time("decode"):
                            row = self._row(file, item)
                    except ItemError as error:
                        sink.fail(item, error)
                    else:
                        sink.add(item, {"regions": row})

        return do_part(OneStore("regions", self._store), job, beat, work)

    def _row(self, file: BinaryIO, item: str) -> dict[str, Any]:
        if item not in self._rows:
            raise ItemError(f"{self._file}: its row was planned, but the image is called otherwise now")
        planned = self._rows[item]
        if planned.fault:
            raise ItemError(f"{self._file}, line {planned.line.number}: {planned.fault}")
        regions = read_row(file, planned.line, feature_dim=self._feature_dim, num_classes=self._num_classes)
        return {"path": item, "source_id": planned.source_id, **columns(regions)}


def columns(regions: ImageRegions) -> dict[str, Any]:
    """A regions store's columns but for id, path and source_id, the most confident first (equal ones stay in order)."""
    order_R = np.argsort(-regions.confidence_R, kind="stable")
    boxes_R4 = regions.boxes_R4[order_R]
    return {
        "width": regions.width,
        "height": regions.height,
        "boxes": boxes_R4,
        "proposals": boxes_R4,
        "features": regions.features_RD[order_R],
        "object_ids": regions.object_ids_R[order_R],
        "max_conf": regions.confidence_R[order_R],
    }
