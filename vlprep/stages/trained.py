"""A trained model with the data of a dataset, as its run would read it: what evaluation and embedding begin with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vlprep.errors import SettingsError
from vlprep.pretrain.base import Objective
from vlprep.pretrain.batching import Ints
from vlprep.pretrain.checkpoint import read_model
from vlprep.pretrain.corpus import Mixture, SampleSource
from vlprep.pretrain.distributed import find_device
from vlprep.pretrain.dual import DualEncoder
from vlprep.pretrain.models.kinds import ModelConfig, build_model, differences
from vlprep.pretrain.objectives.catalogue import make_objectives
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.recipe import Recipe, load_recipe
from vlprep.pretrain.run_data import RunData, item_keys, read_items, read_run_data
from vlprep.pretrain.run_folder import RECIPE_NAME
from vlprep.pretrain.setup import model_config, open_corpora
from vlprep.stages.checkpoints import RunCheckpoint, open_checkpoint
from vlprep.stages.pretrain_data import data_facts, find_stores, read_vocabulary, run_data, text_vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model in evaluation mode, the samples it is asked about, and the objectives that it was trained with."""

    found: RunCheckpoint
    recipe: Recipe
    model: nn.Module
    device: torch.device
    corpus: Mixture
    samples: Ints
    """Those that the model has not been trained on."""
    seen_in_training: bool
    """Whether the dataset has items of the run's own, of which `samples` are then the held-out ones."""
    objectives: Mapping[str, Objective]

    def own_corpus(self) -> SampleSource:
        """The dataset's own samples, where there is one dataset only."""
        (corpus,) = self.corpus.corpora
        return corpus

    def usable_for(self, objective: Objective) -> Ints:
        """Numbers of the samples that have what an objective needs."""
        return np.intersect1d(self.corpus.usable_for(objective.needs()), self.samples)


def open_trained(checkpoint: Path, dataset: Path, *, device: str = "cpu", everything: bool = False) -> Trained:
    """Load a run's newest checkpoint (or the one given) and open a dataset's stores as its recipe reads them.

    Items that the run was trained on, wherever they lie now, are left out; with `everything` they are not.

    Raises `SettingsError` where there is no checkpoint, a store is missing, or the stores are not like those that the
    model was trained on: another tokenizer, vocabulary, or size of features.
    """
    target = find_device(device)
    found = open_checkpoint(checkpoint)
    recipe = load_recipe(str(found.run / RECIPE_NAME))
    trained_on = read_run_data(found.run)
    stores = [find_stores(dataset, recipe, trained_on.text_store(recipe.data.text))]
    _require_same_ids(found.run, trained_on, dataset, run_data([dataset], stores))
    corpora = open_corpora(stores, recipe)
    vocabulary = read_vocabulary(stores)
    facts, words = data_facts(corpora, vocabulary), text_vocabulary(stores)
    words = dataclasses.replace(words, answers={answer: number for number, answer in enumerate(trained_on.answers)})
    _require_equal(found.model, model_config(recipe, words, facts), dataset)
    model = build_model(found.model)
    model.load_state_dict(read_model(found.checkpoint))
    corpus = Mixture(corpora)
    samples, known = (np.arange(len(corpus)), False) if everything else _not_trained_on(found.run, corpus, dataset)
    rule = SequenceRule(words=words, visual_tokens=facts.visual_vocabulary)
    return Trained(
        found=found,
        recipe=recipe,
        model=model.to(target).eval(),
        device=target,
        corpus=corpus,
        samples=samples,
        seen_in_training=known,
        objectives=make_objectives(recipe.objectives, rule),
    )


def dual_encoder(trained: Trained) -> DualEncoder:
    """The model, which an objective that is a `DualObjective` has trained."""
    assert isinstance(trained.model, DualEncoder)
    return trained.model


def _not_trained_on(run: Path, corpus: Mixture, dataset: Path) -> tuple[Ints, bool]:
    """Samples of items that a run was not trained on, and whether the dataset has items of the run's own.

    Raises `SettingsError` where there are no others.
    """
    keys_I, held_out_I = read_items(run)
    items_I = item_keys(corpus.item_ids())
    known = bool(np.isin(items_I, keys_I).any())
    samples = np.flatnonzero(~np.isin(items_I, keys_I[~held_out_I])[corpus.items()])
    if known and not len(samples):
        raise SettingsError(
            f"{dataset} is what {run} was trained on, and it held nothing out: evaluate on another dataset, or train"
            " with --set train.validation_share=0.1"
        )
    return samples, known


def _require_same_ids(run: Path, trained_on: RunData, dataset: Path, now: RunData) -> None:
    """Raises `SettingsError` where another tokenizer or vocabulary made the dataset's stores than the run's."""
    for what, before, after in (
        ("tokenizer", trained_on.tokenizer, now.tokenizer),
        ("visual vocabulary", trained_on.visual_vocabulary, now.visual_vocabulary),
    ):
        if before != after:
            raise SettingsError(
                f"{dataset} has another {what} than {run} was trained with: make its stores with that of"
                f" {trained_on.datasets[0]}"
            )


def _require_equal(trained: ModelConfig, wanted: ModelConfig, dataset: Path) -> None:
    if differing := differences(trained, wanted):
        raise SettingsError(f"{dataset}: its stores do not fit the model ({'; '.join(differing)})")
