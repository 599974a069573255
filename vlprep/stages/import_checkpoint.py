"""Published weights as a run that has done no step: to be evaluated, to embed with, to be exported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vlprep.errors import SettingsError
from vlprep.interop.initial import InitialWeights, load_initial
from vlprep.pretrain.checkpoint import TrainingState, checkpoints, save_checkpoint
from vlprep.pretrain.models.config_file import write_model_config
from vlprep.pretrain.objectives.catalogue import require_fit
from vlprep.pretrain.recipe import Recipe
from vlprep.pretrain.run_data import ITEMS_NAME, write_items, write_run_data
from vlprep.pretrain.run_folder import forget_run, hold_run, open_run
from vlprep.pretrain.setup import model_config, open_corpora
from vlprep.shards.atomic import clear_errors
from vlprep.stages.initial_model import build_initial
from vlprep.stages.pretrain_data import data_facts, find_stores, read_vocabulary, run_data, text_vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedCheckpoint:
    folder: Path
    """A run's, as `vlprep pretrain` leaves one."""
    weights: InitialWeights


def import_checkpoint(source: str, dataset: Path, recipe: Recipe, out: Path) -> ImportedCheckpoint:
    """Make a run in `out` of the recipe's model with the weights of `source` (see `load_initial`).

    The model has the sizes that the recipe says and those of the dataset's stores: number of pieces or words, of
    region classes, of a clip's features. No item counts as seen in training, since the file does not say which were.

    Raises `SettingsError` where the weights do not fit, a store is missing, `out` has checkpoints, or the weights are
    those of a run, which knows what it was trained on.
    """
    if run := next(
        (folder for folder in (Path(source), *Path(source).parents) if (folder / ITEMS_NAME).is_file()), None
    ):
        raise SettingsError(f"{source} is of a run of vlprep pretrain: {run} can be evaluated as it is")
    recipe = replace(recipe, model=replace(recipe.model, init=source))
    require_fit(recipe.objectives, recipe.model)
    stores = [find_stores(dataset, recipe)]
    words, vocabulary = text_vocabulary(stores), read_vocabulary(stores)
    config = model_config(recipe, words, data_facts(open_corpora(stores, recipe), vocabulary))
    model = build_initial(config, recipe, vocabulary, words)
    try:
        weights = load_initial(model, source)
    except SettingsError as error:
        raise SettingsError(str(error).removeprefix("--init ")) from error  # an option of pretrain
    with hold_run(out), clear_errors(out):
        if checkpoints(out / "checkpoints"):
            raise SettingsError(f"{out} has checkpoints: choose another --out, or remove it")
        forget_run(out, begin_anew=False)
        write_model_config(out, config)
        open_run(out, recipe)
        write_run_data(out, run_data([dataset], stores))
        write_items(out, np.empty(0, np.uint64), np.empty(0, bool))
        save_checkpoint(out / "checkpoints", TrainingState(step=0, samples=0, tokens=0, skipped=0), model, {}, keep=1)
    return ImportedCheckpoint(folder=out, weights=weights)
