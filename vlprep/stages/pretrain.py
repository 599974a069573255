"""`pretrain`: from the stores of one or more datasets to a checkpoint, metrics and curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlprep.errors import SettingsError
from vlprep.interop.initial import load_initial
from vlprep.pretrain.checkpoint import checkpoints
from vlprep.pretrain.corpus import DatasetStores
from vlprep.pretrain.distributed import World, join_world
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.mishaps import in_words
from vlprep.pretrain.models.config_file import read_model_config, write_model_config
from vlprep.pretrain.models.kinds import ModelConfig, differences
from vlprep.pretrain.objectives.catalogue import require_fit
from vlprep.pretrain.recipe import Recipe
from vlprep.pretrain.run_data import item_keys, require_same_items, write_items, write_run_data
from vlprep.pretrain.run_folder import (
    MetricsLog,
    forget_run,
    hold_run,
    open_run,
    read_metrics,
    starting_point,
)
from vlprep.pretrain.setup import Prepared, model_config, open_corpora, prepare
from vlprep.pretrain.trainer import Logged, PretrainStep, Saved, Trainer
from vlprep.pretrain.validate import Validated, validate
from vlprep.report.curves import draw_curves
from vlprep.shards.atomic import clear_errors
from vlprep.stages.initial_model import build_initial, fit_to_features
from vlprep.stages.pretrain_data import data_facts, find_stores, read_vocabulary, run_data, text_vocabulary, unfinished


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The first event of a run."""

    folder: Path
    samples: int
    held_out: int
    left_out: Mapping[str, int]
    fill: float
    """How full micro-batches are, 0 to 1."""
    padding_saved: float
    """Share of the tokens of a padded loop with random batches that would be padding."""
    parameters: int
    resumed_from: int
    """Steps done before."""
    steps: int
    notes: tuple[str, ...] = ()
    """What the user should know, such as where weights came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainReport:
    folder: Path
    checkpoint: Path
    steps: int
    skipped: int
    curves: Path
    """A picture of the losses."""
    figures: Mapping[str, float | None] = field(default_factory=dict)
    """Of the last validation; None for what is not finite."""


PretrainEvent = Begun | Logged | Saved | Validated


def pretrain(
    datasets: Sequence[Path],
    recipe: Recipe,
    *,
    out: Path | None = None,
    name: str = "pretrain",
    resume: str = "auto",
    device: str = "auto",
    on_event: Callable[[PretrainEvent], None] = lambda event: None,
) -> PretrainReport | None:
    """Train to the recipe's last step in `out` (default `<first dataset>/vlprep/runs/<name>`).

    `resume` is `auto` (from the newest checkpoint in the folder, if any), `never` (begin anew), or a checkpoint's path.
    Under torchrun every process calls this with the same arguments; the first one writes and reports, the others return
    None.

    Raises `SettingsError` where a store or a tokenizer is missing, with the command that makes it.
    """
    require_fit(recipe.objectives, recipe.model)
    stores = [find_stores(folder, recipe) for folder in datasets]
    words = text_vocabulary(stores)
    folder = out or datasets[0] / "vlprep" / "runs" / name
    with join_world(device) as world, hold_run(folder) if world.is_first else nullcontext():
        say = on_event if world.is_first else _say_nothing
        return _train(datasets, stores, recipe, words, folder, resume, world, say)


def _train(
    datasets: Sequence[Path],
    stores: Sequence[DatasetStores],
    recipe: Recipe,
    words: TextVocabulary,
    folder: Path,
    resume: str,
    world: World,
    on_event: Callable[[PretrainEvent], None],
) -> PretrainReport | None:
    corpora = open_corpora(stores, recipe)
    vocabulary = read_vocabulary(stores)
    facts = data_facts(corpora, vocabulary)
    config = model_config(recipe, words, facts)
    prepared = prepare(recipe, corpora, words, facts, world.size)
    keys = item_keys(prepared.corpus.item_ids())
    start = starting_point(folder, resume)
    if start is not None:
        _require_alike(start, config, keys)
    if world.is_first:
        with clear_errors(folder):
            if start is None:
                forget_run(folder, begin_anew=resume == "never")
            write_model_config(folder, config)
            open_run(folder, recipe)
            write_run_data(folder, run_data(datasets, stores))
            write_items(folder, keys, prepared.held_out_items)
    world.wait()
    model = build_initial(config, recipe, vocabulary, words)
    fit_to_features(model, recipe.model, prepared, facts)
    notes = unfinished(stores)
    if recipe.model.init and start is None:
        notes.append(load_initial(model, recipe.model.init).summary())
    trainer = Trainer(model, prepared.objectives, prepared.batches, recipe.train, recipe.optimiser, world, folder)
    if start is not None:
        _resume(trainer, start)
    if prepared.held_out and not prepared.validation:
        notes.append(f"{prepared.held_out} held out of one image or video: too little to validate with")
    with clear_errors(folder):
        log = MetricsLog(folder, trainer.state.step) if world.is_first else None

    def tell(event: PretrainEvent) -> None:
        if log is not None and isinstance(event, Logged | Validated):
            log.add(event)
        on_event(event)

    def after_step(done: int) -> None:
        every = recipe.train.validate_every
        if not prepared.validation or (done < recipe.train.steps and (not every or done % every)):
            return
        if world.is_first:
            module = PretrainStep(trainer.model, prepared.objectives)
            most = recipe.train.validation_batches
            tell(validate(module, prepared.validation, done, world.device, most_batches=most))
        world.wait()

    on_event(_begun(trainer, prepared, notes))
    with in_words():
        trainer.run(tell, after_step)
    if log is None:
        return None
    log.close()
    return _report(trainer)


def _begun(trainer: Trainer, prepared: Prepared, notes: Sequence[str]) -> Begun:
    largest = max(prepared.train.values(), key=lambda stream: len(stream.samples))
    return Begun(
        folder=trainer.folder,
        samples=len(prepared.corpus),
        held_out=prepared.held_out,
        left_out=+prepared.left_out,
        fill=largest.batches.fill_rate(),
        padding_saved=largest.batches.padding_saved(),
        parameters=sum(parameter.numel() for parameter in trainer.model.parameters()),
        resumed_from=trainer.state.step,
        steps=trainer.settings.steps,
        notes=tuple(notes),
    )


def _resume(trainer: Trainer, start: Path) -> None:
    """Raises `SettingsError` where a checkpoint of elsewhere has all steps that are wanted: nothing would be saved."""
    trainer.resume(start)
    step, steps = trainer.state.step, trainer.settings.steps
    if step >= steps and not checkpoints(trainer.folder / "checkpoints"):
        raise SettingsError(f"{start} is of step {step}: nothing is left of --steps {steps}")


def _report(trainer: Trainer) -> PretrainReport:
    folder = trainer.folder
    metrics = read_metrics(folder)
    return PretrainReport(
        folder=folder,
        checkpoint=checkpoints(folder / "checkpoints")[-1],
        steps=trainer.state.step,
        skipped=trainer.state.skipped,
        curves=draw_curves(metrics, folder / "curves.png"),
        figures=next((entry["figures"] for entry in reversed(metrics) if entry["kind"] == "validation"), {}),
    )


def _require_alike(start: Path, config: ModelConfig, keys: NDArray[np.uint64]) -> None:
    """Raises `SettingsError` where a checkpoint is of another network, or of a run on other data."""
    run = start.resolve().parents[1]
    if differing := differences(read_model_config(run), config):
        raise SettingsError(f"{start} does not fit this recipe ({'; '.join(differing)})")
    require_same_items(run, keys)


def _say_nothing(event: PretrainEvent) -> None:
    pass
