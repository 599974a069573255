"""What is written is what is read, as views, by every reader."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from shards.filling import FAILING, FEATURE_DIM, ITEMS, LONG_ITEM, PART_SIZE, fill, make_videos, open_videos, row_of

from vlprep.errors import ItemError, SettingsError
from vlprep.shards import StoreReader, StoreSettings, open_store
from vlprep.shards import writer as writer_module
from vlprep.shards.export import export_parquet
from vlprep.shards.schema import regions_schema, text_schema, tokens_schema, video_schema
from vlprep.shards.verify import verify

R, D, K, A = 3, 8, 11, 5


def one_row_store(folder: Path, schema: pa.Schema, kind: str, row: dict[str, Any]) -> StoreReader:
    store = open_store(folder, schema, StoreSettings(kind=kind, settings={}, weights=None))
    store.plan(["item"], 1)
    with store.write_part(0) as writer:
        writer.add("item", row)
    assert verify(folder) == []
    return StoreReader(folder)


def regions_row(**more: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {
        "path": "item",
        "source_id": "139",
        "width": 640,
        "height": 480,
        "boxes": random.uniform(0, 400, (R, 4)).astype(np.float32),
        "proposals": random.uniform(0, 400, (R, 4)).astype(np.float32),
        "features": random.normal(size=(R, D)).astype(np.float32),
        "object_ids": np.array([1, 10, 0]),
        "max_conf": np.array([0.9, 0.5, 0.25], np.float32),
        "background_prob": np.array([0.1, 0.5, 0.75], np.float32),
        **more,
    }


SOFT_LABELS = {
    "full": {"class_probs": np.full((R, K), 1 / 16)},
    "none": {},
    2: {
        "class_ids": np.array([[1, 2], [10, 0], [0, 1]]),
        "class_probs": np.full((R, 2), 0.25),
        "remainder_prob": np.full(R, 0.5),
    },
}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("soft_labels", ["full", "none", 2])
@pytest.mark.parametrize("num_attributes", [0, A])
def test_regions(tmp_path: Path, dtype: Any, soft_labels: Any, num_attributes: int) -> None:
    schema = regions_schema(D, K, dtype=dtype, soft_labels=soft_labels, num_attributes=num_attributes)
    attributes = {"attribute_probs": np.full((R, A), 0.125)} if num_attributes else {}
    given_row = regions_row(**SOFT_LABELS[soft_labels], **attributes)
    row = one_row_store(tmp_path, schema, "regions", given_row)[0]
    assert set(row) == {"id", *given_row}
    for name in ("boxes", "proposals"):
        assert row[name].dtype == np.float32
        np.testing.assert_array_equal(row[name], given_row[name])
    assert row["object_ids"].dtype == np.uint16
    for name in {"features", "max_conf", "background_prob", "class_probs", "remainder_prob", "attribute_probs"} & set(
        row
    ):
        assert row[name].dtype == np.dtype(dtype)
        np.testing.assert_array_equal(row[name], given_row[name].astype(dtype))
    assert (row["width"], row["height"], row["path"], row["source_id"]) == (640, 480, "item", "139")


def test_tokens_and_text(tmp_path: Path) -> None:
    times = np.array([[0.0, 1.5], [1.5, 36_000.0001]])
    row = {"path": "item", "times": times, "tokens": np.array([20_735, 0])}
    read = one_row_store(tmp_path / "tokens", tokens_schema(), "tokens", row)[0]
    assert read["tokens"].dtype == np.uint16
    np.testing.assert_array_equal(read["tokens"], [20_735, 0])
    np.testing.assert_array_equal(read["times"], times)
    text = {"path": "a.jpg", "item_id": "a.jpg", "text": "ein Hündchen 🐶", "token_ids": np.array([101, 30_521])}
    read = one_row_store(tmp_path / "text", text_schema(), "text", text)[0]
    assert (read["text"], read["start"], read["end"], read["item_id"]) == (text["text"], None, None, "a.jpg")
    np.testing.assert_array_equal(read["token_ids"], [101, 30_521])


@given(order=st.permutations(range(9)), failing=st.sets(st.integers(0, 8)), part_size=st.integers(1, 10))
@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_come_in_plan_order_whatever_the_order_of_writing(
    tmp_path: Path, order: list[int], failing: set[int], part_size: int
) -> None:
    names = [f"{number}.mp4" for number in range(9)]
    store = open_videos(tmp_path, overwrite=True)
    store.plan(names[::-1], part_size)
    for part in store.pending():
        items = set(store.part_items(part))
        with store.write_part(part) as writer:
            for number in (number for number in order if names[number] in items):
                if number in failing:
                    writer.fail(names[number], ValueError())
                else:
                    writer.add(names[number], row_of(names[number]))
    reader = StoreReader(tmp_path)
    assert reader.ids == [name for number, name in enumerate(names) if number not in failing]
    for row in reader:
        np.testing.assert_array_equal(row["features"], row_of(row["id"])["features"].astype(np.float16))
    assert reader.lengths().tolist() == [len(row["times"]) for row in reader]
    assert verify(tmp_path) == []


def mapped_addresses(name: str) -> list[tuple[int, int]]:
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(name)]
    return [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in lines]  # type: ignore[misc]


def test_rows_are_views_into_the_map_and_outlive_their_reader(tmp_path: Path) -> None:
    make_videos(tmp_path)
    reader = StoreReader(tmp_path)
    row = next(row for row in reader if row["path"] == LONG_ITEM)
    addresses = mapped_addresses(str(tmp_path / f"part-{ITEMS.index(LONG_ITEM) // PART_SIZE:05d}.arrow"))
    for name in ("features", "times"):
        view = row[name]
        assert view.size
        assert not view.flags.owndata
        assert not view.flags.writeable
        assert any(start <= view.ctypes.data and view.ctypes.data + view.nbytes <= end for start, end in addresses)
    view, expected = row["features"], row["features"].copy()
    del reader, row
    np.testing.assert_array_equal(view, expected)


def test_reader_counts_finds_and_pickles(tmp_path: Path) -> None:
    make_videos(tmp_path)
    reader = pickle.loads(pickle.dumps(StoreReader(tmp_path)))
    kept = [item for item in ITEMS if item not in FAILING]
    assert len(reader) == len(kept)
    assert reader[-1]["id"] == kept[-1]
    assert [reader.index(item) for item in kept] == list(range(len(kept)))
    assert reader.locate([kept[3], "none", kept[0]]).tolist() == [3, -1, 0]
    assert reader.locate(["v04"], "source_id").tolist() == [4]
    assert reader.columns(["frames", "id"]).column_names == ["frames", "id"]
    for missing in sorted(FAILING):
        with pytest.raises(KeyError, match=re.escape(missing)):
            reader.index(missing)
    for beyond in (len(kept), -len(kept) - 1):
        with pytest.raises(IndexError):
            reader[beyond]
    assert len(pickle.dumps(reader)) < 300


def test_an_empty_store_reads_as_empty(tmp_path: Path) -> None:
    open_videos(tmp_path).plan([], 4)
    reader = StoreReader(tmp_path)
    assert (len(reader), list(reader), reader.ids, reader.lengths().tolist()) == (0, [], [], [])
    assert reader.locate(["a"]).tolist() == [-1]
    with pytest.raises(SettingsError, match="not a store"):
        StoreReader(tmp_path / "nothing")


def test_several_batches_and_parts_keep_few_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "BATCH_BYTES", 500)
    store = open_videos(tmp_path)
    store.plan(ITEMS, 12)
    fill(store, failing=set())
    reader = StoreReader(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    assert [row["id"] for row in reader] == [reader[number]["id"] for number in range(len(reader))] == ITEMS
    assert len(os.listdir("/proc/self/fd")) == before
    assert pa.ipc.open_file(str(reader.paths[0])).num_record_batches > 2


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_parts_read_the_same(tmp_path: Path, compression: Any) -> None:
    make_videos(tmp_path / "plain")
    settings = StoreSettings(kind="video", settings={}, weights=None, compression=compression)
    store = open_store(tmp_path / "packed", video_schema(FEATURE_DIM), settings)
    store.plan(ITEMS, 10)
    fill(store)
    for plain, packed in zip(StoreReader(tmp_path / "plain"), StoreReader(tmp_path / "packed"), strict=True):
        np.testing.assert_array_equal(plain["features"], packed["features"])
    assert verify(tmp_path / "packed") == []


def test_other_readers_open_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_videos(tmp_path / "store")
    reader = StoreReader(tmp_path / "store")
    expected = [row["features"].astype(np.float32).tolist() for row in reader]

    table = pyarrow.dataset.dataset([str(path) for path in reader.paths], format="arrow").to_table()
    assert table.schema.metadata[b"vlprep.kind"] == b"video"
    assert table.column("features").to_pylist() == expected

    export_parquet(tmp_path / "store", tmp_path / "parquet")
    assert pyarrow.parquet.read_table(tmp_path / "parquet").column("features").to_pylist() == expected


def test_polars_opens_the_same_files(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    make_videos(tmp_path)
    frame = polars.scan_ipc(tmp_path / "part-*.arrow").collect()
    reader = StoreReader(tmp_path)
    assert frame["id"].to_list() == reader.ids
    assert [len(entry) for entry in frame["features"].to_list()] == reader.lengths().tolist()


def test_hugging_face_datasets_opens_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    make_videos(tmp_path / "store")
    loaded = datasets.load_dataset(
        "arrow", data_files=str(tmp_path / "store" / "part-*.arrow"), split="train", cache_dir=str(tmp_path / "cache")
    )
    reader = StoreReader(tmp_path / "store")
    assert loaded["id"][:] == reader.ids
    for theirs, ours in zip(loaded.with_format("numpy"), reader, strict=True):
        np.testing.assert_array_equal(np.reshape(theirs["features"], (-1, FEATURE_DIM)), ours["features"])


def test_values_that_cannot_be_kept_are_item_errors_and_change_nothing(tmp_path: Path) -> None:
    store = open_videos(tmp_path)
    store.plan(["a", "b"], 2)
    good = row_of(LONG_ITEM)
    with store.write_part(0) as writer:
        for bad, message in (
            ({"features": np.full_like(good["features"], 70_000)}, r"features reaches 70000.*--store-dtype float32"),
            ({"features": np.full_like(good["features"], -70_000)}, "features reaches 70000"),
            ({"features": np.full_like(good["features"], np.nan)}, "features has values that are not finite"),
            ({"features": np.full_like(good["features"], np.inf, np.float16)}, "not finite"),
            ({"status": "\ud83d"}, "status is not valid Unicode"),
        ):
            with pytest.raises(ItemError, match=message):
                writer.add("a", good | bad)
        writer.add("a", good | {"features": np.full_like(good["features"], 65_504)})
        writer.fail("b", ItemError("too large"))
    assert np.isfinite(StoreReader(tmp_path)[0]["features"]).all()


def test_programming_errors_are_refused_at_once(tmp_path: Path) -> None:
    store = open_videos(tmp_path)
    store.plan(["a", "b"], 2)
    good = row_of(LONG_ITEM)
    with store.write_part(0) as writer:
        for bad, message in (
            ({"features": good["features"][:, 1:]}, r"features takes shape \(N, 16\)"),
            ({"times": good["times"][1:]}, "differ in length"),
            ({"extra": 1}, "no columns"),
            ({"path": None}, "path needs a value"),
            ({"frames": "many"}, "convert|integer"),
        ):
            with pytest.raises((ValueError, TypeError), match=message):
                writer.add("a", good | bad)
        writer.add("a", good)
        for again in ("a", "unknown"):
            with pytest.raises(ValueError, match="no item of part 0, or was entered before"):
                writer.fail(again, ValueError())
        writer.fail("b", ValueError())
    with pytest.raises(ValueError, match="without 2 of its items, such as a"), store.write_part(0):
        pass
    schema = regions_schema(D, K)
    with pytest.raises(ValueError, match="integers from 0 to 65535"):
        one_row_store(tmp_path / "r", schema, "regions", regions_row(**SOFT_LABELS["full"], object_ids=np.full(R, -1)))


def test_the_caller_may_reuse_its_arrays(tmp_path: Path) -> None:
    store = open_store(tmp_path, tokens_schema(), StoreSettings(kind="tokens", settings={}, weights=None))
    store.plan(["a"], 1)
    times, tokens = np.ones((2, 2)), np.ones(2, np.uint16)
    with store.write_part(0) as writer:
        writer.add("a", {"path": "a", "times": times, "tokens": tokens})
        times[:] = tokens[:] = 0
    assert StoreReader(tmp_path)[0]["tokens"].tolist() == [1, 1]
    assert StoreReader(tmp_path)[0]["times"].tolist() == [[1, 1], [1, 1]]
