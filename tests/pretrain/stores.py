"""Small stores for tests of pretraining."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from vlprep.cluster.train import TrainSettings, train
from vlprep.cluster.vocabulary import VOCABULARY_NAME
from vlprep.pretrain.corpus import DatasetStores
from vlprep.pretrain.run_data import write_items
from vlprep.shards import StoreSettings, open_store
from vlprep.shards.schema import regions_schema, text_schema, tokens_schema

NAMES = {"regions": {"classes": ["red", "green", "blue", "grey"]}}


def write(folder, schema, kind, rows, *, part_size=2, names=None):
    store = open_store(
        folder,
        schema,
        StoreSettings(kind=kind, settings={}, weights=None, names=names or NAMES.get(kind, {})),
    )
    store.plan(list(rows), part_size)
    for part in store.pending():
        with store.write_part(part) as writer:
            for name in store.part_items(part):
                writer.add(name, {"path": name, **rows[name]})
    return folder


def text(item, ids, *, start=None, end=None, source=None):
    return {"item_id": item, "text": "t", "token_ids": ids, "start": start, "end": end, "source_id": source}


def image(regions, sure, *, source=None):
    confidences = np.linspace(0.9, 0.5, sure).tolist() + [0.1] * (regions - sure)
    return {
        "source_id": source,
        "width": 200,
        "height": 100,
        "boxes": np.tile([20.0, 10.0, 100.0, 50.0], (regions, 1)),
        "proposals": np.zeros((regions, 4)),
        "features": np.arange(regions)[:, None] * np.ones((1, 8)),
        "object_ids": np.zeros(regions, int),
        "max_conf": confidences,
        "background_prob": np.full(regions, 0.5),
        "class_probs": np.full((regions, 4), 0.125),
    }


def clips(count):
    times = np.stack([np.arange(count), np.arange(count) + 1], 1) * 1.5
    return {"times": times, "tokens": np.arange(count)}


def learnable_images(folder: Path, count: int = 40, *, first: int = 0) -> DatasetStores:
    """Images whose first word names the class of their regions, so that looking pays; named from `first` on."""
    rng = np.random.default_rng(0)
    regions, texts = {}, {}
    for number in range(first, first + count):
        name, kind = f"{number:03}.jpg", int(rng.integers(4))
        row = image(12, 12)
        row["features"] = rng.normal(0, 0.1, (12, 8))
        row["features"][:, kind] += 2
        row["class_probs"] = np.full((12, 4), 0.05)
        row["class_probs"][:, kind] = 0.8
        row["background_prob"] = np.full(12, 0.05)
        regions[name] = row
        texts[f"{name}#0"] = text(name, [10 + kind, *rng.integers(20, 40, rng.integers(1, 6)).tolist()])
    return DatasetStores(
        text=write(folder / "text", text_schema(), "text", texts, part_size=100),
        regions=write(folder / "regions", regions_schema(8, 4), "regions", regions, part_size=100),
    )


def that_has_seen_nothing(run: Path, folder: Path) -> Path:
    """A copy of a run, to which all data is new."""
    copy = Path(shutil.copytree(run, folder))
    write_items(copy, np.empty(0, np.uint64), np.empty(0, bool))
    return copy


def told_videos(folder: Path, count: int = 10) -> DatasetStores:
    """Videos with narration for every 6 seconds."""
    tokens, texts = {}, {}
    for number in range(count):
        name = f"{number:03}.mp4"
        tokens[name] = clips(16)
        for segment in range(4):
            texts[f"{name}#{segment}"] = text(name, [10 + segment, 20], start=segment * 6.0, end=segment * 6.0 + 6)
    stores = DatasetStores(
        text=write(folder / "text", text_schema(), "text", texts, part_size=100),
        tokens=write(folder / "tokens", tokens_schema(), "tokens", tokens, part_size=100),
    )
    vectors = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    vocabulary = train(vectors, TrainSettings(branching=20, depth=1, iterations=2))
    vocabulary.save(folder / "tokens" / VOCABULARY_NAME)
    return stores
