"""Training a tiny model of any system from a recipe, as the stage does, and what it has learned by then."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pretrain.stores import image, text, write

from vlprep.pretrain.batching import BatchSettings
from vlprep.pretrain.corpus import DatasetStores
from vlprep.pretrain.distributed import World
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.kinds import build_model, find_kind
from vlprep.pretrain.objectives.catalogue import find_objective
from vlprep.pretrain.places import CorpusSettings
from vlprep.pretrain.recipe import Recipe
from vlprep.pretrain.settings import OptimiserSettings, TrainSettings
from vlprep.pretrain.setup import model_config, open_corpora, prepare, store_facts
from vlprep.pretrain.trainer import PretrainStep, Trainer
from vlprep.pretrain.validate import validate
from vlprep.shards import StoreReader
from vlprep.shards.schema import regions_schema, text_schema

WORDS = TextVocabulary(size=40, pad=0, cls=1, sep=2, mask=3, first_word=5, class_names=((30,), (31,), (32,), (33,)))


def tiny_recipe(
    objectives: Sequence[str],
    *,
    steps: int = 200,
    lr: float = 3e-3,
    tokens: int = 400,
    kind: str = "single-stream",
    **model,
) -> Recipe:
    """Two layers of 32; `model` are further settings of it."""
    sizes = {"layers": 2, "hidden": 32, "heads": 2, "intermediate": 64, "dropout": 0.0, "attention_dropout": 0.0}
    return Recipe(
        model=find_kind(kind).settings(**(sizes | {"positions": 64} | model)),
        data=CorpusSettings(max_regions=12),
        batches=BatchSettings(tokens=tokens),
        objectives={name: find_objective(name).settings() for name in objectives},
        optimiser=OptimiserSettings(lr=lr, warmup=10, clip=0.0, betas=(0.9, 0.98)),
        train=TrainSettings(
            steps=steps, log_every=steps, save_every=steps, loaders=0, seed=3, validation_share=0.25, precision="fp32"
        ),
    )


def train(
    recipe: Recipe, stores: DatasetStores, folder: Path, words: TextVocabulary = WORDS
) -> tuple[dict[str, float], Trainer]:
    """Figures of the held-out items after the recipe's last step, and the trainer with its model."""
    torch.manual_seed(0)
    corpora = open_corpora([stores], recipe)
    facts = store_facts(corpora)
    model = build_model(model_config(recipe, words, facts))
    made = prepare(recipe, corpora, words, facts, processes=1)
    trainer = Trainer(model, made.objectives, made.batches, recipe.train, recipe.optimiser, World(), folder / "run")
    trainer.run(lambda event: None)
    step = PretrainStep(trainer.model, made.objectives)
    found = validate(step, made.validation, recipe.train.steps, torch.device("cpu"), most_batches=50)
    return dict(found.figures), trainer


def named_images(
    folder: Path, count: int = 480, *, shuffled: bool = False, attributes: bool = True, seed: int = 0
) -> DatasetStores:
    """Images of one of four kinds, which their regions show and their only word names; another's if `shuffled`."""
    rng, unrelated = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    regions, texts = {}, {}
    for number in range(count):
        name, kind = f"{number:03}.jpg", int(rng.integers(4))
        row = image(4, 4)
        row["features"] = rng.normal(0, 0.1, (4, 8))
        row["features"][:, kind] += 2
        row["object_ids"] = np.full(4, kind)
        row["class_probs"] = np.full((4, 4), 0.05)
        row["class_probs"][:, kind] = 0.8
        row["background_prob"] = np.full(4, 0.05)
        if attributes:
            row["attribute_probs"] = np.full((4, 3), 0.1)
            row["attribute_probs"][:, kind % 3] = 0.8
        regions[name] = row
        texts[f"{name}#0"] = text(name, [10 + (int(unrelated.integers(4)) if shuffled else kind)])
    schema = regions_schema(8, 4, num_attributes=3 if attributes else 0)
    return DatasetStores(
        text=write(folder / "text", text_schema(), "text", texts, part_size=1000),
        regions=write(folder / "regions", schema, "regions", regions, part_size=1000),
    )


def asked_images(folder: Path, count: int = 480, *, shuffled: bool = False) -> tuple[DatasetStores, TextVocabulary]:
    """The images of `named_images`, about each of which the same is asked, and the vocabulary with the answers."""
    stores = named_images(folder, count)
    kinds = np.array([row["object_ids"][0] for row in StoreReader(stores.regions)])
    if shuffled:
        kinds = np.random.default_rng(2).permutation(kinds)
    names = ("cat", "cow", "dog", "hen")
    texts = {}
    for number, kind in enumerate(kinds):
        name = f"{number:03}.jpg"
        texts[f"{name}#0"] = text(name, [20, 21]) | {"answers": json.dumps({names[kind]: 1.0})}
    asked = write(folder / "asked", text_schema(answers=True), "text", texts, part_size=1000, names={"answers": names})
    answers = {name: number for number, name in enumerate(names)}
    return replace(stores, text=asked), replace(WORDS, answers=answers)


def paired_and_shuffled(recipe: Recipe, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Held-out figures of the same training on images with their own texts, and with those of others."""
    paired, _ = train(recipe, named_images(folder / "paired"), folder / "paired")
    shuffled, _ = train(recipe, named_images(folder / "shuffled", shuffled=True), folder / "shuffled")
    return paired, shuffled
