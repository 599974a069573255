"""The worker of `extract-regions`: pictures are read ahead of the network, rows are written behind it.

Three kinds of threads: readers (from a file to the network's input), the main thread (network and selection), one
writer. All queues are bounded, and every order is that of the plan, so that a part comes out the same whenever it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlprep.detect.base import PreparedImage, Regions
from vlprep.detect.selection import rule_named, select
from vlprep.engines.base import Beat, Job, PartDone
from vlprep.errors import ItemError
from vlprep.media.image import read_image
from vlprep.shards import Store
from vlprep.stages.extract_regions import RegionSettings, box_limits, load_detector, soft_labels
from vlprep.stages.flow import Behind, Stopwatch, ahead, alike
from vlprep.stages.region_rows import by_confidence, region_row
from vlprep.stages.sink import OneStore, Sink, do_part

_BATCH = {"cpu": 4, "cuda": 8}
_BATCHES_LOOKED_AT = 4
_ROWS_BEHIND = 8
_STORE = "regions"


@dataclass(frozen=True, slots=True)
class _Picture:
    item: str
    image: PreparedImage
    given: NDArray[np.float32] | None


class RegionWorker:
    """Loads the detector once, then does part after part."""

    def __init__(
        self,
        *,
        device: str,
        threads: int,
        store: Store,
        dataset: Path,
        settings: RegionSettings,
        source_ids: Mapping[str, str],
        odd_paths: Mapping[str, Path],
        given: Mapping[str, NDArray[np.float32]] | None,
    ) -> None:
        """
        Args:
            source_ids: The dataset's own ids by item, where it has them.
            odd_paths: Files by item where the id may not be the path: names that are not UTF-8, or have a backslash.
            given: Boxes by item; None to detect.
        """
        kind = torch.device(device).type
        if kind != "cpu":
            torch.set_num_threads(1)  # the cores belong to the readers
        self.detector = load_detector(settings, device)
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="reader")
        self._batch = _BATCH[kind]
        self._depth = threads + self._batch
        self._store, self._dataset, self._settings = store, dataset, settings
        self._source_ids, self._odd_paths, self._given = source_ids, odd_paths, given
        self._rule = rule_named(settings.rule_name(self.detector), *box_limits(settings.boxes))

    def run(self, job: Job, beat: Beat) -> PartDone:
        """Do the pictures of the part and commit it."""
        return do_part(OneStore(_STORE, self._store), job, beat, partial(self._extract, beat))

    def _extract(self, beat: Beat, items: Sequence[str], sink: Sink) -> None:
        watch = sink.watch
        with Behind(_ROWS_BEHIND) as behind:
            readable = self._readable(
                items, beat, watch, lambda item, error: behind.do(partial(sink.fail, item, error))
            )
            for batch in alike(readable, _shape, batch=self._batch, lookahead=_BATCHES_LOOKED_AT * self._batch):
                for picture in batch:
                    beat.begin(picture.item)
                rows = self._rows(batch, watch)
                for picture, row in zip(batch, rows, strict=True):
                    beat.set_aside(picture.item)
                    behind.do(partial(sink.add, picture.item, {_STORE: row}))

    def _readable(
        self, items: Sequence[str], beat: Beat, watch: Stopwatch, fail: Callable[[str, ItemError], None]
    ) -> Iterator[_Picture]:
        """The pictures in order, but for those that cannot be used."""
        results = ahead(self._readers, partial(self._read, beat, watch), items, self._depth)
        for item in items:
            with watch.time("wait"):
                result = next(results)
            if isinstance(result, ItemError):
                fail(item, result)
            else:
                yield result

    def _read(self, beat: Beat, watch: Stopwatch, item: str) -> _Picture | ItemError:
        beat.begin(item)
        result: _Picture | ItemError
        try:
            with watch.time("decode"):
                path = self._odd_paths.get(item, self._dataset / item)
                image = self.detector.prepare(read_image(path))
                result = _Picture(item, image, self._given_boxes(item, image))
        except ItemError as error:  # any other exception ends this process, with the item in hand
            result = error
        beat.set_aside(item)
        return result

    def _given_boxes(self, item: str, image: PreparedImage) -> NDArray[np.float32] | None:
        """Boxes may stick out of the image, as published code takes them, but not lie outside."""
        if self._given is None:
            return None
        if item not in self._given:
            raise ItemError(f"{self._dataset / item}: no boxes for it in {self._settings.given_boxes}")
        boxes_R4 = self._given[item]
        touches_R = (boxes_R4[:, 2:] >= 0).all(1) & (boxes_R4[:, :2] < (image.width, image.height)).all(1)
        if not touches_R.all():
            raise ItemError(
                f"{self._settings.given_boxes}: {boxes_R4[~touches_R][0].tolist()} lies outside of {item}, "
                f"which is {image.width} pixels wide and {image.height} high"
            )
        return boxes_R4

    def _rows(self, batch: Sequence[_Picture], watch: Stopwatch) -> list[dict[str, Any]]:
        with watch.time("network"):
            given = [picture.given for picture in batch]
            found = self.detector.detect([picture.image for picture in batch], given if self._given else None)
        with watch.time("select"):
            return [self._row(picture, regions) for picture, regions in zip(batch, found, strict=True)]

    def _row(self, picture: _Picture, regions: Regions) -> dict[str, Any]:
        chosen = select(regions, self._rule)
        row = region_row(
            picture.image,
            regions,
            chosen if self._given is not None else by_confidence(chosen),
            dtype=self._settings.store_dtype,
            soft_labels=soft_labels(self._settings.soft_labels),
        )
        return {"path": picture.item, "source_id": self._source_ids.get(picture.item), **row}


def _shape(picture: _Picture) -> torch.Size:
    return picture.image.pixels.shape
