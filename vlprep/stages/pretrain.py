"""`pretrain`: from the stores of one or more datasets to a checkpoint, metrics and curves."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vlprep.cluster.vocabulary import VOCABULARY_NAME, Vocabulary
from vlprep.errors import SettingsError
from vlprep.interop.initial import load_initial
from vlprep.pretrain.base import StoreFacts
from vlprep.pretrain.checkpoint import checkpoints
from vlprep.pretrain.corpus import DatasetStores, SampleSource
from vlprep.pretrain.distributed import World, join_world
from vlprep.pretrain.embeddings import VisualTokenEmbeddings
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.config_file import write_model_config
from vlprep.pretrain.models.kinds import ModelConfig, build_model
from vlprep.pretrain.models.milnce import MilNce
from vlprep.pretrain.models.single_stream import SingleStream
from vlprep.pretrain.objectives.catalogue import make_objectives
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.recipe import Recipe
from vlprep.pretrain.run_data import RunData, write_run_data
from vlprep.pretrain.run_folder import METRICS_NAME, RECIPE_NAME, MetricsLog, open_run, read_metrics
from vlprep.pretrain.setup import mean_region, model_config, open_corpora, prepare, store_facts
from vlprep.pretrain.trainer import Logged, PretrainStep, Saved, Trainer
from vlprep.pretrain.validate import Validated, validate
from vlprep.report.curves import draw_curves
from vlprep.shards.manifest import MANIFEST_NAME, read_manifest
from vlprep.stages.tokenize_text import open_store_encoder
from vlprep.text.tokenizer import TOKENIZER_NAME
from vlprep.text.words import WordEncoder, is_words


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
    figures: Mapping[str, float] = field(default_factory=dict)
    """Of the last validation."""


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
    stores = [find_stores(folder, recipe) for folder in datasets]
    words = text_vocabulary(stores)
    folder = out or datasets[0] / "vlprep" / "runs" / name
    with join_world(device) as world:
        say = on_event if world.is_first else _say_nothing
        return _train(datasets, stores, recipe, words, folder, resume, world, say)


def find_stores(folder: Path, recipe: Recipe) -> DatasetStores:
    """The stores of a dataset that the recipe's objectives read."""
    probe = TextVocabulary(size=8, pad=0, cls=1, sep=2, mask=3, first_word=4)
    needs: set[str] = set()
    for objective in make_objectives(recipe.objectives, SequenceRule(words=probe)).values():
        needs |= objective.needs()
    text_command = f"vlprep tokenize {folder}"
    if recipe.data.text != "text":
        text_command += f" --tokenizer words:FILE --out {folder / 'vlprep' / recipe.data.text}"
    commands = {
        "text": text_command,
        "regions": f"vlprep extract-regions {folder}",
        "tokens": f"vlprep cluster-video {folder}",
        **{name: f"vlprep extract-video {folder} --model {name}" for name in recipe.data.features},
    }
    found = {name: _store(folder, recipe.data.text if name == "text" else name) for name in commands}
    wanted = {"regions"} if needs & {"regions", "class_probs"} else set()
    wanted |= {"tokens"} if "visual_tokens" in needs else set()
    wanted |= {"text"} if needs & {"text", "words", "video"} else set()
    if "video" in needs and "frames" not in needs:
        if not recipe.data.features:
            raise SettingsError('data.features names no store of clip features: ["s3d"], for example')
        wanted |= set(recipe.data.features)
    elif wanted <= {"text"} and "video" not in needs and not (found["regions"] or found["tokens"]):
        wanted.add("regions")
    if missing := [name for name in commands if name in wanted and found[name] is None]:
        lines = "".join(f"\n  {commands[store]}" for store in missing)
        raise SettingsError(
            f"{folder}: no {' and no '.join(missing)} store yet, which {'+'.join(recipe.objectives)} needs;"
            f" make it:{lines}"
        )
    if found["text"] is not None and "text" in wanted:
        _require_encoding(found["text"], "+".join(recipe.objectives), words="words" in needs)
    if "frames" in needs:
        return DatasetStores(text=found["text"], videos=folder)
    if "video" in needs:
        features = [found[name] for name in recipe.data.features]
        return DatasetStores(text=found["text"], features=tuple(store for store in features if store is not None))
    use_regions = found["regions"] is not None and "tokens" not in wanted
    return DatasetStores(
        text=found["text"],
        regions=found["regions"] if use_regions else None,
        tokens=None if use_regions else found["tokens"],
    )


def text_vocabulary(stores: Sequence[DatasetStores]) -> TextVocabulary:
    """The ids that masking needs, of the tokenizer that all text stores share."""
    texts = [dataset.text for dataset in stores if dataset.text is not None]
    if not texts:
        return TextVocabulary(size=8, pad=0, cls=2, sep=3, mask=4, first_word=5)
    made_by = {read_manifest(text).settings["sha256"]: text for text in texts}
    if len(made_by) > 1:
        folders = ", ".join(str(text) for text in made_by.values())
        raise SettingsError(
            f"the text stores have different tokenizers ({folders}): give all datasets that of the first, by"
            f" vlprep tokenize DATASET --tokenizer {_as_choice(texts[0])} --overwrite"
        )
    tokenizer = open_store_encoder(texts[0])
    if isinstance(tokenizer, WordEncoder):
        return TextVocabulary(
            size=tokenizer.size, pad=tokenizer.padding, cls=-1, sep=-1, mask=-1, first_word=0, vectors=tokenizer.table()
        )
    return TextVocabulary(
        size=tokenizer.size,
        pad=tokenizer.special("[PAD]"),
        cls=tokenizer.special("[CLS]"),
        sep=tokenizer.special("[SEP]"),
        mask=tokenizer.special("[MASK]"),
        first_word=tokenizer.first_word,
        class_names=tuple(tuple(pieces) for pieces in tokenizer.encode(_class_names(stores))),
    )


def _as_choice(text: Path) -> str:
    """What `--tokenizer` takes to give another dataset the ids of this store."""
    made_by = read_manifest(text).settings["tokenizer"]
    return f"words:{text}" if is_words(made_by) else f"{text}/{TOKENIZER_NAME}"


def _require_encoding(text: Path, objectives: str, *, words: bool) -> None:
    """Raises `SettingsError` where the store has pieces and words are wanted, or words and pieces are."""
    made_by = read_manifest(text).settings.get("tokenizer", "")
    if is_words(made_by) != words:
        wanted, other = ("words with vectors", "words") if words else ("pieces", "text")
        raise SettingsError(
            f"{text} was made with {made_by}, and {objectives} reads {wanted}: set data.text to a store of them"
            f" ({other} by default; `vlprep tokenize --help` has both)"
        )


def _class_names(stores: Sequence[DatasetStores]) -> tuple[str, ...]:
    """What the detector calls its classes. Raises `SettingsError` where the datasets' detectors differ in that."""
    folders = [dataset.regions for dataset in stores if dataset.regions is not None]
    found = {tuple(read_manifest(folder).names.get("classes", ())): folder for folder in folders}
    if len(found) > 1:
        differing = ", ".join(str(folder) for folder in found.values())
        raise SettingsError(f"the regions stores name different classes ({differing}): extract them with one detector")
    return next(iter(found), ())


def read_vocabulary(stores: Sequence[DatasetStores]) -> Vocabulary | None:
    """The visual vocabulary that all tokens stores share; it lies beside the tokens.

    Raises `SettingsError` where one has none, or another one.
    """
    folders = [dataset.tokens for dataset in stores if dataset.tokens is not None]
    for folder in folders:
        if not (folder / VOCABULARY_NAME).is_file():
            raise SettingsError(
                f"{folder} has no {VOCABULARY_NAME}; `vlprep cluster-video` writes it beside the tokens"
            )
    found = {hashlib.sha256((folder / VOCABULARY_NAME).read_bytes()).digest(): folder for folder in folders}
    if len(found) > 1:
        first, *others = (str(folder) for folder in found.values())
        raise SettingsError(
            f"the tokens stores have different vocabularies ({', '.join([first, *others])}): give all datasets that of"
            f" the first, by vlprep cluster-video DATASET --vocabulary {first}/{VOCABULARY_NAME} --overwrite"
        )
    return Vocabulary.load(folders[0] / VOCABULARY_NAME) if folders else None


def run_data(datasets: Sequence[Path], stores: Sequence[DatasetStores]) -> RunData:
    """What a run on these datasets keeps in mind of them."""
    texts = [dataset.text for dataset in stores if dataset.text is not None]
    tokens = [dataset.tokens for dataset in stores if dataset.tokens is not None]
    return RunData(
        datasets=tuple(str(folder.resolve()) for folder in datasets),
        tokenizer=read_manifest(texts[0]).settings["sha256"] if texts else None,
        visual_vocabulary=hashlib.sha256((tokens[0] / VOCABULARY_NAME).read_bytes()).hexdigest() if tokens else None,
    )


def data_facts(corpora: Sequence[SampleSource], vocabulary: Vocabulary | None) -> StoreFacts:
    """What a model's sizes follow from."""
    facts = store_facts(corpora)
    if vocabulary is None:
        return facts
    return replace(facts, visual_vocabulary=vocabulary.size, centroid_dim=vocabulary.dim)


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
    start = _starting_point(folder, resume)
    if world.is_first:
        if start is None:
            _forget(folder)
        open_run(folder, recipe)
        write_model_config(folder, config)
        write_run_data(folder, run_data(datasets, stores))
    world.wait()
    model = _build_model(config, recipe, vocabulary, words)
    if recipe.model.centre_regions and isinstance(model, SingleStream) and model.config.region_dim:
        model.centre_regions(torch.from_numpy(mean_region(prepared)))
    notes = [load_initial(model, recipe.model.init).summary()] if recipe.model.init and start is None else []
    trainer = Trainer(model, prepared.objectives, prepared.batches, recipe.train, recipe.optimiser, world, folder)
    if start is not None:
        trainer.resume(start)
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

    largest = max(prepared.train.values(), key=lambda stream: len(stream.samples))
    on_event(
        Begun(
            folder=folder,
            samples=len(prepared.corpus),
            held_out=max((len(stream.samples) for stream in prepared.validation.values()), default=0),
            left_out=+prepared.corpus.left_out(),
            fill=largest.batches.fill_rate(),
            padding_saved=largest.batches.padding_saved(),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            resumed_from=trainer.state.step,
            steps=recipe.train.steps,
            notes=tuple(notes),
        )
    )
    trainer.run(tell, after_step)
    if log is None:
        return None
    log.close()
    metrics = read_metrics(folder)
    return PretrainReport(
        folder=folder,
        checkpoint=checkpoints(folder / "checkpoints")[-1],
        steps=trainer.state.step,
        skipped=trainer.state.skipped,
        curves=draw_curves(metrics, folder / "curves.png"),
        figures=next((entry["figures"] for entry in reversed(metrics) if entry["kind"] == "validation"), {}),
    )


def _store(folder: Path, name: str) -> Path | None:
    store = folder / "vlprep" / name
    return store if (store / MANIFEST_NAME).is_file() else None


def _starting_point(folder: Path, resume: str) -> Path | None:
    if resume == "never":
        return None
    found = checkpoints(folder / "checkpoints")
    if resume == "auto":
        return found[-1] if found else None
    return Path(resume)


def _forget(folder: Path) -> None:
    """Remove an earlier run's checkpoints and log, which --resume never has given up."""
    for name in ("checkpoints", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (METRICS_NAME, RECIPE_NAME):
        (folder / name).unlink(missing_ok=True)


def _build_model(
    config: ModelConfig, recipe: Recipe, vocabulary: Vocabulary | None, words: TextVocabulary
) -> nn.Module:
    """Seeded initial weights; visual tokens start from their vocabulary's centroids, MIL-NCE's words from their
    vectors.
    """
    torch.manual_seed(recipe.train.seed)
    model = build_model(config)
    if vocabulary is not None and isinstance(model, SingleStream):
        embeddings = model.bert["visual_embeddings"]
        assert isinstance(embeddings, VisualTokenEmbeddings)
        embeddings.load_centroids(torch.from_numpy(vocabulary.centroids[-1]))
    if isinstance(model, MilNce) and words.vectors is not None and words.vectors.dim:
        model.load_words(torch.from_numpy(words.vectors[np.arange(words.size)]))
    elif isinstance(model, MilNce) and recipe.model.freeze_words and not recipe.model.init:
        raise SettingsError(
            "the words have no vectors and would keep random ones: vlprep tokenize DATASET --tokenizer words:FILE (of"
            " MIL-NCE's dict.npy with word2vec.pth beside it), --init s3d_howto100m.pth, or model.freeze_words = false"
        )
    return model


def _say_nothing(event: PretrainEvent) -> None:
    pass
