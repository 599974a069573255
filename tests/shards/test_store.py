"""Fingerprints, plans, retries and counts."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shards.filling import FAILING, FEATURE_DIM, ITEMS, contents, fill, make_videos, open_videos, row_of, settings

from vlprep.errors import SettingsError, VlprepError
from vlprep.shards import ErrorInfo, StoreReader, open_store
from vlprep.shards.describe import describe, head
from vlprep.shards.plan import read_plan
from vlprep.shards.schema import regions_schema, video_schema
from vlprep.shards.verify import verify


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"settings": {"encoder": {"name": "s3d", "fps": 24}, "crop": [224, 224]}}, "settings.encoder.fps: .*20, .*24"),
        ({"settings": {"encoder": {"name": "s3d", "fps": 20}}}, r"settings.crop: .*\[224, 224\], this run none"),
        ({"weights": {"source": "hf://someone/s3d", "sha256": "cd"}}, 'weights.sha256: .*"abab.*, this run "cd"'),
        ({"weights": None}, "weights.sha256: the store has .*, this run none"),
        ({"names": {"classes": ["cat"]}}, r'names.classes: the store has none, this run \["cat"\]'),
        ({"compression": "zstd"}, 'compression: the store has null, this run "zstd"'),
    ],
)  # fmt: skip
def test_other_settings_are_refused_by_name(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    make_videos(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(
        SettingsError, match=rf"{tmp_path} was made with(.|\n)*{named}(.|\n)*--overwrite.*--out"
    ) as caught:
        open_store(tmp_path, video_schema(FEATURE_DIM), replace(settings(), **change))
    assert str(caught.value).count("the store has") == 1
    assert contents(tmp_path) == before


def test_other_columns_are_refused(tmp_path: Path) -> None:
    make_videos(tmp_path)
    with pytest.raises(SettingsError, match=r"columns.features: the store has .*halffloat.*, this run .*float"):
        open_store(tmp_path, video_schema(FEATURE_DIM, dtype="float32"), settings())


def test_equal_settings_from_another_place_open(tmp_path: Path) -> None:
    make_videos(tmp_path)
    moved = replace(settings(), weights={"source": "/elsewhere/s3d.pt", "sha256": "ab" * 32})
    assert open_store(tmp_path, video_schema(FEATURE_DIM), moved).pending() == []
    as_tuple = replace(settings(), settings={"crop": (224, 224), "encoder": {"fps": 20, "name": "s3d"}})
    assert open_store(tmp_path, video_schema(FEATURE_DIM), as_tuple).pending() == []


def test_other_library_versions_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_videos(tmp_path)
    manifest = json.loads((tmp_path / "store.json").read_bytes())
    assert {"vlprep", "torch", "torchvision", "numpy", "pyarrow", "pillow"} <= manifest["versions"].keys()
    manifest["versions"]["numpy"] = "1.0"
    (tmp_path / "store.json").write_text(json.dumps(manifest))
    with caplog.at_level(logging.WARNING, "vlprep"):
        open_videos(tmp_path)
    assert "numpy 1.0 (now" in caplog.text


def test_overwrite_begins_anew_and_touches_nothing_else(tmp_path: Path) -> None:
    make_videos(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    store = open_store(tmp_path, video_schema(FEATURE_DIM), replace(settings(), weights=None), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "notes.txt", "store.json"]
    store.plan(ITEMS, 4)
    assert store.pending() == list(range(6))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_things_is_refused(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(SettingsError, match=r"not empty and no store \(thesis.tex"):
        open_videos(tmp_path, overwrite=overwrite)


def test_a_damaged_store_is_no_store_of_unknown_settings(tmp_path: Path) -> None:
    make_videos(tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(VlprepError, match=r"store\.json is damaged .*--overwrite"):
        open_videos(tmp_path)
    (tmp_path / "store.json").unlink()
    with pytest.raises(SettingsError, match=r"lost its store\.json.*--overwrite"):
        open_videos(tmp_path)
    open_videos(tmp_path, overwrite=True)
    (tmp_path / "plan.arrow").write_bytes(b"ARROW1")
    with pytest.raises(VlprepError, match=r"plan\.arrow is damaged .*--overwrite"):
        open_videos(tmp_path).pending()


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path) -> None:
    make_videos(tmp_path / "a")
    make_videos(tmp_path / "b", random.Random(0).sample(ITEMS, len(ITEMS)))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_new_items_become_further_parts_and_vanished_ones_stay(tmp_path: Path) -> None:
    store = open_videos(tmp_path)
    store.plan(ITEMS[2:9], 3)
    first = [store.part_items(part) for part in store.pending()]
    assert first == [ITEMS[2:5], ITEMS[5:8], ITEMS[8:9]]
    fill(store)
    files = contents(tmp_path)
    store.plan([*ITEMS[9:], *ITEMS[:3]], 10)
    assert [store.part_items(part) for part in range(3)] == first
    assert store.pending() == [3, 4]
    assert store.part_items(3) + store.part_items(4) == [*ITEMS[:2], *ITEMS[9:]]
    assert {name: data for name, data in contents(tmp_path).items() if name in files and name != "plan.arrow"} == {
        name: data for name, data in files.items() if name != "plan.arrow"
    }
    fill(store)
    assert sorted(StoreReader(tmp_path).ids) == sorted(set(ITEMS) - FAILING)
    assert verify(tmp_path) == []


def test_a_plan_that_is_made_again_is_not_written_again(tmp_path: Path) -> None:
    store = open_videos(tmp_path)
    store.plan(ITEMS, 4)
    inode = (tmp_path / "plan.arrow").stat().st_ino
    store.plan(ITEMS, 5)
    assert (tmp_path / "plan.arrow").stat().st_ino == inode


def test_plans_refuse_what_cannot_be_planned(tmp_path: Path) -> None:
    store = open_videos(tmp_path)
    with pytest.raises(VlprepError, match="no plan"):
        store.pending()
    with pytest.raises(SettingsError, match="2 ids are doubled: a, b"):
        store.plan(["a", "b", "a", "b", "c"], 4)
    with pytest.raises(SettingsError, match="rename it"):
        store.plan(["a", "caf\udce9.jpg"], 4)
    with pytest.raises(SettingsError, match="--part-size"):
        store.plan(["a"], 0)
    store.plan(["a"], 1)
    with pytest.raises(VlprepError, match=r"part 1 of .* is not planned"):
        store.write_part(1)


def test_retries_count_by_their_latest_attempt(tmp_path: Path) -> None:
    store = make_videos(tmp_path)
    assert (store.status().planned, store.status().rows, store.status().failed) == (23, 21, 2)
    assert store.retry_failed() == 2
    assert store.retry_failed() == 0
    status = store.status()
    assert (status.rows, status.failed, status.pending, status.parts - status.parts_done) == (21, 0, 2, 1)
    assert store.part_items(store.pending()[0]) == sorted(FAILING)

    still_failing = sorted(FAILING)[0]
    fill(store, {still_failing})
    (failure,) = store.status().failures
    assert (failure.id, failure.error, failure.part, failure.attempt) == (still_failing, "ValueError", 6, 2)
    assert store.retry_failed() == 1
    fill(store, set())
    status = store.status()
    assert (status.planned, status.rows, status.failed, status.pending, status.failures) == (23, 23, 0, 0, ())
    assert read_plan(tmp_path).attempts.max() == 3
    assert sorted(StoreReader(tmp_path).ids) == ITEMS
    assert store.retry_failed() == 0
    assert verify(tmp_path) == []


def test_marks_keep_failures_and_what_the_stage_says(tmp_path: Path) -> None:
    store = open_videos(tmp_path)
    store.plan(["a", "b"], 2)
    with store.write_part(0) as writer:
        writer.stats["decode"] = 1.5
        writer.fail("b", ErrorInfo("WorkerDied", "exit -9 [ 1, 2 ]"))
        writer.add("a", row_of(ITEMS[0]))
    mark = json.loads((tmp_path / "part-00000.json").read_bytes())
    assert mark["failures"] == [
        {"id": "b", "error": "WorkerDied", "message": "exit -9 [ 1, 2 ]", "part": 0, "attempt": 1}
    ]
    assert mark["stats"] == {"decode": 1.5}
    assert (mark["rows"], mark["bytes"]) == (1, (tmp_path / "part-00000.arrow").stat().st_size)
    assert writer.mark is not None
    assert writer.mark.sha256 == mark["sha256"]


def test_descriptions_are_json(tmp_path: Path) -> None:
    names = {"classes": ["cat", "dog"]}
    store = open_store(tmp_path / "regions", regions_schema(8, 2), replace(settings(), kind="regions", names=names))
    assert store.manifest.names == names
    described = json.loads(json.dumps(describe(tmp_path / "regions")))
    assert (described["names"], described["planned"], described["entries_per_row"]) == ({"classes": 2}, 0, None)

    make_videos(tmp_path / "videos")
    described = json.loads(json.dumps(describe(tmp_path / "videos")))
    lengths = StoreReader(tmp_path / "videos").lengths()
    assert (described["kind"], described["rows"], described["failed"], described["parts"]) == ("video", 21, 2, 6)
    assert described["failures"][0]["id"] in FAILING
    assert described["entries_per_row"] == [lengths.min(), pytest.approx(lengths.mean()), lengths.max()]
    first, second = json.loads(json.dumps(head(tmp_path / "videos", 2)))
    assert (first["id"], second["id"]) == (ITEMS[0], ITEMS[1])
    assert first["features"]["shape"] == [int(lengths[0]), FEATURE_DIM]
    assert len(head(tmp_path / "videos", 1000)) == 21


def test_a_hundred_thousand_items(tmp_path: Path) -> None:
    items = [f"train2014/COCO_train2014_{number:012d}.jpg" for number in range(100_000)]
    store = open_videos(tmp_path)
    store.plan(items, 500)
    store.plan([*items, "val2014/another.jpg"], 500)
    assert store.pending() == list(range(201))
    assert store.part_items(123) == items[61_500:62_000]
    assert store.status().pending == 100_001


def test_importing_the_stores_does_not_import_torch() -> None:
    modules = ", ".join(f"vlprep.shards.{name}" for name in ("describe", "export", "verify"))
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
