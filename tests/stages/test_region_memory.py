"""Memory does not grow with the number of pictures: the demo detector through the real engine."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from vlprep.engines.base import PartFinished
from vlprep.media.scenes import write_coco_folder
from vlprep.stages.extract_regions import RegionSettings, extract_regions
from vlprep.stages.run import RunSettings, StageEvent

PART = 10


@pytest.mark.slow
def test_memory_after_100_pictures_is_that_after_10(tmp_path: Path) -> None:
    write_coco_folder(tmp_path, 100)
    driver = psutil.Process()
    megabytes: list[tuple[float, float]] = []

    def watch(event: StageEvent) -> None:
        if isinstance(event, PartFinished):
            worker = max(driver.children(), key=lambda child: child.memory_info().rss)
            megabytes.append(tuple(process.memory_full_info().uss / 1e6 for process in (driver, worker)))

    extract_regions(tmp_path, RegionSettings(detector="demo"), RunSettings(device="cpu", part_size=PART), watch)
    print("MB of driver and worker after each part:", [f"{here:.0f} {there:.0f}" for here, there in megabytes])
    assert len(megabytes) == 100 // PART
    for first, last in zip(megabytes[0], megabytes[-1], strict=True):
        assert last < 1.05 * first
