"""Vectors drawn from a store: the right ones, each equally often, the same ones again, in little memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from vlprep.cluster.source import VectorSource, draw
from vlprep.errors import SettingsError
from vlprep.shards import StoreSettings, open_store
from vlprep.shards.schema import tokens_schema, video_schema

DIM = 4
LENGTHS = (3, 0, 7, 1, 12, 5)


def make_store(folder: Path, lengths: tuple[int, ...] = LENGTHS) -> np.ndarray:
    """A video store whose vectors count up; returns them."""
    settings = StoreSettings(kind="video", settings={}, weights=None)
    store = open_store(folder, video_schema(DIM, dtype="float32"), settings)
    store.plan([f"{number}.mp4" for number in range(len(lengths))], part_size=4)
    vectors = np.arange(sum(lengths) * DIM, dtype=np.float32).reshape(-1, DIM)
    ends = np.cumsum(lengths)
    for part in store.pending():
        with store.write_part(part) as writer:
            for item in store.part_items(part):
                number = int(Path(item).stem)
                here = vectors[ends[number] - lengths[number] : ends[number]]
                times = np.zeros((len(here), 2))
                row = {"path": item, "times": times, "features": here, "status": "ok", "frames": 1, "errors": 0}
                writer.add(item, row)
    return vectors


def test_all_vectors_come_in_the_order_of_the_store(tmp_path):
    vectors = make_store(tmp_path)
    source = VectorSource(tmp_path)
    assert len(source) == 28
    assert source.dim == DIM
    np.testing.assert_array_equal(source.sample(10**9, seed=0), vectors)


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_is_rows_of_the_store_each_once(tmp_path, seed):
    vectors = make_store(tmp_path)
    sample = VectorSource(tmp_path).sample(11, seed)
    places = (sample[:, 0] / DIM).astype(int)
    np.testing.assert_array_equal(sample, vectors[places])
    assert sorted(set(places.tolist())) == places.tolist()
    np.testing.assert_array_equal(sample, VectorSource(tmp_path).sample(11, seed))


def test_stores_without_vectors_and_of_other_kinds_are_refused(tmp_path):
    make_store(tmp_path / "empty", lengths=(0, 0))
    with pytest.raises(SettingsError, match="no vectors"):
        VectorSource(tmp_path / "empty").sample(5, 0)
    open_store(tmp_path / "tokens", tokens_schema(), StoreSettings(kind="tokens", settings={}, weights=None))
    with pytest.raises(SettingsError, match="kind tokens"):
        VectorSource(tmp_path / "tokens")


def test_every_number_is_drawn_equally_often(monkeypatch):
    monkeypatch.setattr("vlprep.cluster.source._DRAWN_AT_ONCE", 7)
    counts = np.zeros(30)
    for seed in range(3000):
        drawn = draw(30, 6, seed)
        assert len(drawn) == 6
        assert (np.diff(drawn) > 0).all()
        counts[drawn] += 1
    assert np.abs(counts / 600 - 1).max() < 0.2


def test_drawing_from_millions_needs_little_memory():
    tracemalloc.start()
    drawn = draw(20_000_000, 1000, seed=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(np.unique(drawn)) == 1000
    assert 0.4 < drawn.mean() / 20_000_000 < 0.6
    assert peak < 5_000_000
