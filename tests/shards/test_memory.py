"""Memory does not grow with the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlprep.shards import Store, StoreReader, StoreSettings, open_store
from vlprep.shards.schema import video_schema

ROWS, CLIPS, D = 96, 512, 512
MEGABYTE = 1 << 20
STORE_BYTES = ROWS * CLIPS * D * 2


def private_memory() -> int:
    """Bytes of this process that are not file pages."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs /proc")
    line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def write(store: Store) -> int:
    """Write one part; the largest growth of private memory on the way."""
    features = np.ones((CLIPS, D), np.float16)
    row = {"path": "x", "times": np.zeros((CLIPS, 2)), "features": features, "status": "ok", "frames": 1, "errors": 0}
    before = private_memory()
    peaks = []
    with store.write_part(0) as writer:
        for item in store.part_items(0):
            writer.add(item, row)
            peaks.append(private_memory() - before)
    return max(peaks)


def test_writing_and_reading_are_flat(tmp_path: Path) -> None:
    store = open_store(tmp_path, video_schema(D), StoreSettings(kind="video", settings={}, weights=None))
    store.plan([f"{number:03d}" for number in range(ROWS)], ROWS)
    assert write(store) < STORE_BYTES / 2
    reader = StoreReader(tmp_path)
    before = private_memory()
    total = sum(int(row["features"].sum(dtype=np.float32)) for row in reader)
    assert total == ROWS * CLIPS * D
    assert private_memory() - before < 8 * MEGABYTE
    assert reader.paths[0].stat().st_size > STORE_BYTES
