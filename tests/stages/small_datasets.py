"""Datasets of a few items with the stores that pretraining reads, and recipes that train on them in a second."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pretrain.narrated import FIRST_WORD, WORD_COUNT, narrated_videos
from pretrain.stores import learnable_images

from vlprep.pretrain.recipe import Recipe, load_recipe, with_settings
from vlprep.text.tokenizer import SPECIALS, Tokenizer, wordpiece
from vlprep.text.word_vectors import write_word_folder

SHRINK = (
    "model.layers=1",
    "model.hidden=16",
    "model.heads=2",
    "model.intermediate=32",
    "batches.tokens=150",
    "train.steps=8",
    "train.save_every=4",
    "train.log_every=2",
    "train.validate_every=4",
    "train.validation_share=0.2",
    "train.loaders=0",
)


def shrunk(name: str, *settings: str) -> Recipe:
    """A recipe of images at the size of `SHRINK`."""
    sizes = [*SHRINK]
    if name in ("lxmert-small", "vilbert-small"):
        sizes += ["model.region_layers=1", "model.cross_layers=1"]
    if name == "vilbert-small":
        widths = ("region_hidden", "region_intermediate", "cross_hidden")
        sizes += [*(f"model.{width}=16" for width in widths), "model.region_heads=2"]
    return with_settings(load_recipe(name), [*sizes, *settings])


def small_howto100m(*settings: str) -> Recipe:
    run = ("steps=6", "save_every=3", "log_every=3", "loaders=0", "validation_share=0.2", "validate_every=0")
    assignments = [f"train.{one}" for one in run]
    return with_settings(
        load_recipe("howto100m-small"), ["model.joint=16", "batches.samples=4", *assignments, *settings]
    )


def image_dataset(folder: Path) -> Path:
    learnable_images(folder / "vlprep")
    give_tokenizer(folder / "vlprep" / "text")
    return folder


def howto_dataset(folder: Path) -> Path:
    """Narrated videos with their words."""
    stores = folder / "vlprep"
    narrated_videos(stores, 20)
    (stores / "text").rename(stores / "words")
    vectors = np.random.default_rng(0).normal(size=(FIRST_WORD + WORD_COUNT, 6)).astype(np.float32)
    write_word_folder(stores / "words", [f"w{number}" for number in range(len(vectors))], vectors)
    manifest = stores / "words" / "store.json"
    content = json.loads(manifest.read_text())
    content["settings"] |= {"tokenizer": "words:x", "vocabulary": len(vectors), "sha256": "x"}
    content["settings"] |= {"lower": True, "stop_words": False}
    manifest.write_text(json.dumps(content))
    return folder


def give_tokenizer(folder: Path) -> None:
    """The test's text stores hold ids only; put the tokenizer beside them that the stage reads."""
    pieces = [*SPECIALS, *(f"w{number}" for number in range(40))]
    Tokenizer(wordpiece({piece: number for number, piece in enumerate(pieces)}, lower=True), "x").keep(folder)
    manifest = folder / "store.json"
    content = json.loads(manifest.read_text())
    content["settings"] |= {"sha256": "x", "tokenizer": "x"}
    manifest.write_text(json.dumps(content))
