"""Small deterministic stores for the tests of this folder, in functions that another process can import."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from vlprep.shards import Store, StoreSettings, open_store
from vlprep.shards.schema import video_schema

FEATURE_DIM = 16
ITEMS = [f"clips/v{number:02d}.mp4" for number in range(23)]
FAILING = {ITEMS[5], ITEMS[17]}
PART_SIZE = 4


def settings(**changes: Any) -> StoreSettings:
    return StoreSettings(
        kind="video",
        settings={"encoder": {"name": "s3d", "fps": 20}, "crop": [224, 224]},
        weights={"source": "hf://someone/s3d", "sha256": "ab" * 32},
        **changes,
    )


def open_videos(folder: Path, **options: Any) -> Store:
    return open_store(folder, video_schema(FEATURE_DIM), settings(), **options)


def row_of(item: str, scale: int = 1) -> dict[str, Any]:
    """A row that depends on nothing but the item's name."""
    random = np.random.default_rng(int(hashlib.sha256(item.encode()).hexdigest()[:8], 16))
    clips = int(random.integers(0, 6)) * scale
    return {
        "path": item,
        "source_id": item[-7:-4],
        "duration": float(clips),
        "times": np.stack([np.arange(clips), np.arange(clips) + 1], axis=1).astype(np.float64),
        "features": random.normal(size=(clips, FEATURE_DIM)).astype(np.float32),
        "status": "ok",
        "frames": clips * 30,
        "errors": 0,
    }


LONG_ITEM = next(item for item in ITEMS if len(row_of(item)["times"]) > 2)


def fill(store: Store, failing: set[str] = FAILING, scale: int = 1) -> None:
    """Do all pending parts."""
    for part in store.pending():
        with store.write_part(part) as writer:
            for item in store.part_items(part):
                if item in failing:
                    writer.fail(item, ValueError(f"{item}: cannot be decoded"))
                else:
                    writer.add(item, row_of(item, scale))


def make_videos(folder: Path, items: list[str] = ITEMS, part_size: int = PART_SIZE) -> Store:
    store = open_videos(folder)
    store.plan(items, part_size)
    fill(store)
    return store


def contents(folder: Path) -> dict[str, Any]:
    """All that two equal stores share: the bytes of every file, and the marks without their seconds."""
    marks = {path.name: json.loads(path.read_bytes()) for path in folder.glob("part-*.json")}
    for mark in marks.values():
        mark.pop("seconds")
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in marks}
    return {**files, **marks}


def make_and_die(folder: Path, line: int) -> None:
    """Make the store, and be killed when the `line`-th line of vlprep.shards runs (0: print how many there are)."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if "vlprep/shards" not in frame.f_code.co_filename:
            return None
        if event == "line":
            count += 1
            if count == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    make_videos(folder)
    sys.settrace(None)
    (folder.parent / "lines").write_text(str(count))


def make_slowly(folder: Path) -> None:
    """Make the store with a pause after each row, for a parent that kills at any moment."""
    store = open_videos(folder)
    store.plan(ITEMS, PART_SIZE)
    for part in store.pending():
        with store.write_part(part) as writer:
            for item in store.part_items(part):
                time.sleep(0.002)
                if item in FAILING:
                    writer.fail(item, ValueError(f"{item}: cannot be decoded"))
                else:
                    writer.add(item, row_of(item))
