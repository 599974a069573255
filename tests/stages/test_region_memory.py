"""Memory of the worker does not grow with the pictures done."""

from __future__ import annotations

import psutil
import pytest

from vlprep.engines.base import ItemsDone
from vlprep.media.scenes import write_coco_folder
from vlprep.stages.extract_regions import RegionSettings, extract_regions
from vlprep.stages.run import RunSettings, StageEvent


@pytest.mark.slow
def test_memory_after_100_pictures_is_that_after_10(tmp_path):
    write_coco_folder(tmp_path, 110)
    resident: dict[int, int] = {}

    def watch(event: StageEvent) -> None:
        if isinstance(event, ItemsDone):
            children = psutil.Process().children(recursive=True)
            resident[event.count] = max(child.memory_info().rss for child in children)

    extract_regions(tmp_path, RegionSettings(detector="demo"), RunSettings(device="cpu"), watch)
    after_10, after_100 = (resident[min(count for count in resident if count >= least)] for least in (10, 100))
    assert after_100 < 1.05 * after_10, f"{after_10 / 2**20:.0f} MiB, then {after_100 / 2**20:.0f}"
