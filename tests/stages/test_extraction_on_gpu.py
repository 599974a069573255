"""With `--device cuda` on a pretended GPU, workers write what they write on the CPU. They choose batches, put away what
the device found and store it; here in this process, to be under the pretence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import inline_engine
import numpy as np
import pytest
from pretend_gpu import PretendGpu
from stages.rendered import HALF_SECONDS

from vlprep.engines import devices
from vlprep.media.scenes import write_coco_folder
from vlprep.media.scenes.videos import write_howto_folder
from vlprep.shards import StoreReader
from vlprep.stages import run
from vlprep.stages.extract_regions import RegionSettings, extract_regions
from vlprep.stages.extract_video import VideoSettings, extract_video
from vlprep.stages.run import RunSettings


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "run_parts", inline_engine.run_parts)
    monkeypatch.setattr(devices, "cuda_count", lambda: 1)


def test_regions(tmp_path: Path) -> None:
    write_coco_folder(tmp_path / "scenes", 4)

    def extract(device: str) -> list[dict[str, Any]]:
        settings = RunSettings(device=device, out=tmp_path / device)
        extract_regions(tmp_path / "scenes", RegionSettings(detector="demo"), settings)
        return [dict(row) for row in StoreReader(tmp_path / device)]

    assert_alike(extract("cpu"), on_gpu(extract))


def test_clips(tmp_path: Path) -> None:
    write_howto_folder(tmp_path / "moving", 4)

    def extract(device: str) -> list[dict[str, Any]]:
        settings = RunSettings(device=device, out=tmp_path / device)
        extract_video(tmp_path / "moving", VideoSettings(encoders=(HALF_SECONDS,)), settings)
        return [dict(row) for row in StoreReader(tmp_path / device)]

    assert_alike(extract("cpu"), on_gpu(extract))


def on_gpu(extract: Any) -> list[dict[str, Any]]:
    with PretendGpu():
        return extract("cuda")


def assert_alike(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected) == 4
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys()
        for column, value in one.items():
            if getattr(value, "dtype", None) == np.float16:  # a GPU's batches are larger, which shows in the last bits
                np.testing.assert_allclose(other[column], value, atol=1e-3, rtol=4e-3, err_msg=column)
            else:
                np.testing.assert_array_equal(other[column], value, err_msg=column)
