"""From a recipe and stores to what a `Trainer` takes: corpora split for validation, objectives, streams, the model's
sizes.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlprep.errors import SettingsError
from vlprep.pretrain.base import Objective, Sample, StoreFacts
from vlprep.pretrain.batching import ObjectiveSchedule
from vlprep.pretrain.corpus import Corpus, DatasetStores, Mixture, SampleSource
from vlprep.pretrain.file_corpus import FileCorpus
from vlprep.pretrain.loader import StepBatches, Stream, token_counts
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.kinds import ModelConfig, find_kind
from vlprep.pretrain.objectives.catalogue import make_objectives
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.places import CorpusSettings
from vlprep.pretrain.recipe import Recipe
from vlprep.pretrain.video_corpus import VideoCorpus

_SAMPLES_FOR_MEAN = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Ready to be trained."""

    corpus: Mixture
    objectives: Mapping[str, Objective]
    train: Mapping[str, Stream]
    validation: Mapping[str, Stream]
    batches: StepBatches
    held_out: int
    """Samples that are kept from training."""
    held_out_items: NDArray[np.bool_]
    """(I,) the corpus's images or videos that they are of."""
    left_out: Counter[str]
    """What trains nothing, by reason."""


def store_facts(corpora: Sequence[SampleSource]) -> StoreFacts:
    """Read the sizes off the stores. Raises `SettingsError` where datasets differ in them."""
    found: dict[str, dict[int | tuple[int, ...], Path]] = {}
    for corpus in corpora:
        for name, (size, folder) in corpus.sizes().items():
            found.setdefault(name, {})[size] = folder
    for name, sizes in found.items():
        if len(sizes) > 1:
            differing = ", ".join(f"{size} in {folder}" for size, folder in sizes.items())
            raise SettingsError(f"datasets of one run need the same {name.replace('_', ' ')}: {differing}")
    return StoreFacts(**{name: next(iter(sizes)) for name, sizes in found.items()})  # type: ignore[arg-type]


def model_config(recipe: Recipe, words: TextVocabulary, facts: StoreFacts) -> ModelConfig:
    """The network for these stores."""
    return find_kind(recipe.model.kind).configure(recipe.model, words, facts)


def prepare(
    recipe: Recipe, corpora: Sequence[SampleSource], words: TextVocabulary, facts: StoreFacts, processes: int
) -> Prepared:
    """Split off the validation items and make the streams of every objective."""
    corpus = Mixture(corpora)
    rule = SequenceRule(words=words, visual_tokens=facts.visual_vocabulary)
    objectives = make_objectives(recipe.objectives, rule)
    if not recipe.batches.samples and any("video" in objective.needs() for objective in objectives.values()):
        raise SettingsError("whole videos are batched by their number: set batches.samples, 32 for example")
    items = held_out_items(corpus, recipe.train.validation_share)
    apart = items[corpus.items()]
    train, validation = {}, {}
    held_out = 0
    longest, too_long = recipe.model.longest, 0
    for name, objective in objectives.items():
        fewest = getattr(objective, "fewest", 1)
        if 0 < recipe.batches.samples < fewest:
            raise SettingsError(
                f"{name} takes {fewest} samples a batch or more, not batches.samples = {recipe.batches.samples}"
            )
        usable = corpus.usable_for(objective.needs())
        if longest is not None:
            fits = token_counts(corpus, objective)[usable] <= longest
            too_long, usable = max(too_long, int((~fits).sum())), usable[fits]
        group_size = recipe.train.accumulate * processes
        kept = usable[apart[usable]]
        if len(usable) and len(kept) == len(usable):
            raise SettingsError(f"all {len(kept)} samples for {name} are held out: a smaller train.validation_share")
        held_out = max(held_out, len(kept))
        train[name] = Stream(corpus, usable[~apart[usable]], objective, recipe.batches, recipe.train.seed, group_size)
        if len(np.unique(corpus.items()[kept])) > 1:  # each figure is compared with that of another's image or video
            validation[name] = Stream(corpus, kept, objective, recipe.batches, recipe.train.seed, 1)
    schedule = ObjectiveSchedule([recipe.objectives[name].weight for name in objectives], recipe.train.seed)
    return Prepared(
        corpus=corpus,
        objectives=objectives,
        train=train,
        validation=validation,
        batches=StepBatches(train, schedule),
        held_out=held_out,
        held_out_items=items,
        left_out=corpus.left_out() + Counter({"sequences longer than model.positions": too_long}),
    )


def mean_region(prepared: Prepared) -> NDArray[np.float32]:
    """(D,) the mean feature of regions that train."""
    shown = [sample.regions.features_RD for sample in _some_samples(prepared) if sample.regions]
    mean_D: NDArray[np.float32] = np.concatenate(shown).mean(0, dtype=np.float32)
    return mean_D


def some_clips(prepared: Prepared) -> NDArray[np.float32]:
    """(C, D) features of clips that train, of the first store."""
    shown = [sample.video.features_CD[0] for sample in _some_samples(prepared) if sample.video]
    return np.concatenate(shown).astype(np.float32)


def _some_samples(prepared: Prepared) -> Iterator[Sample]:
    """Up to `_SAMPLES_FOR_MEAN` of the samples that train, spread evenly."""
    numbers = next(iter(prepared.train.values())).samples
    return map(prepared.corpus.sample, numbers[:: -(-len(numbers) // _SAMPLES_FOR_MEAN)].tolist())


def open_corpora(stores: Sequence[DatasetStores], recipe: Recipe) -> list[SampleSource]:
    return [_open(dataset, recipe.data) for dataset in stores]


def _open(stores: DatasetStores, settings: CorpusSettings) -> SampleSource:
    """Videos whole with their narration, as files or from stores of clip features; else segments or images."""
    if stores.videos is not None:
        return FileCorpus(stores, settings)
    return (VideoCorpus if stores.features else Corpus)(stores, settings)


def held_out_items(corpus: Mixture, share: float) -> NDArray[np.bool_]:
    """(I,) images and videos that are held out with all of their texts."""
    return np.array(
        [zlib.crc32(f"item {number}".encode()) % 10_000 < share * 10_000 for number in range(corpus.num_items)], bool
    )
