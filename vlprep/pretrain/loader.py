"""Making micro-batches: step and place in, packed tensors out, in as many processes as are wanted.

Everything is a function of (seed, step, place), so loaders hold no state: a resumed run asks for the next step, and
what was made ahead of a crash is made again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from vlprep.errors import ItemError, SettingsError, VlprepError
from vlprep.pretrain.base import MicroBatch, Objective
from vlprep.pretrain.batching import Batches, BatchSettings, Ints, ObjectiveSchedule
from vlprep.pretrain.corpus import Mixture
from vlprep.pretrain.masking import generator
from vlprep.pretrain.parcel import Parcel

log = logging.getLogger(__name__)

VALIDATION_EPOCH = 2**32 - 1
"""The epoch that validation's masks and batches belong to: always the same ones."""


_AT_ONCE = 4
"""Micro-batches that a loader hands over together: to receive anything at all costs the process that trains a
millisecond, a tenth of a small model's step. Decoded clips, 150 MB a micro-batch as published, go one by one.
"""

_ABOUT_CLASS_PROBS = (
    "; class_probs are distributions over all classes, which extract-regions stores with --soft-labels full."
    " mrc needs the most probable class only"
)


class Stream:
    """The micro-batches of one objective over some samples."""

    def __init__(
        self, corpus: Mixture, samples: Ints, objective: Objective, settings: BatchSettings, seed: int, group_size: int
    ) -> None:
        if not len(samples):
            needs = objective.needs()
            hint = _ABOUT_CLASS_PROBS if "class_probs" in needs else ""
            raise SettingsError(
                f"objective {objective.name} needs {', '.join(sorted(needs))}, and no sample has that{hint}"
            )
        self.corpus, self.samples, self.objective, self.seed = corpus, samples, objective, seed
        self.batches = Batches(token_counts(corpus, objective)[samples], settings, seed=seed, group_size=group_size)

    def micro_batch(self, group: int, place: int) -> MicroBatch:
        """Micro-batch `place` of a group, masked for the epoch that the group lies in.

        Where there are fewer batches than a group takes, some are in it more than once, each time with other masks.
        """
        epoch, batches = self.batches.group(group)
        turn = sum(earlier is batches[place] for earlier in batches[:place])
        return self.make(self.samples[batches[place]], epoch, turn)

    def make(self, samples: Ints, epoch: int, turn: int = 0) -> MicroBatch:
        """These samples as a micro-batch."""
        name = f"{self.objective.name} {turn}" if turn else self.objective.name
        self.corpus.read_ahead(samples)
        examples, unusable = [], []
        for number in samples.tolist():
            draw = generator(self.seed, epoch, number, name)
            other = self.corpus.other(number, self.samples, draw) if pairs(self.objective) else None
            try:
                examples.append(self.objective.example(self.corpus.sample(number), draw, other))
            except ItemError as error:
                log.warning("left out: %s", error)
                unusable.append(error)
        fewest = getattr(self.objective, "fewest", 1)
        if len(examples) < fewest:
            why = f"; the last that is of no use: {unusable[-1]}" if unusable else ""
            raise VlprepError(
                f"{len(examples)} of {len(samples)} samples of a micro-batch can be used, and {self.objective.name}"
                f" takes {fewest} or more{why}"
            )
        return replace(self.objective.collate(examples), left_out=len(unusable))


class StepBatches(Dataset[MicroBatch]):
    """Micro-batches by (step, place), for a `DataLoader`."""

    def __init__(self, streams: Mapping[str, Stream], schedule: ObjectiveSchedule) -> None:
        self.streams, self.schedule = list(streams.values()), schedule

    def __getitem__(self, key: tuple[int, int]) -> MicroBatch:
        step, place = key
        objective, group = self.schedule.at(step)
        return self.streams[objective].micro_batch(group, place)


class _Parcels(Dataset[Parcel | VlprepError]):
    """An error is handed over as it is: raised in a loader, torch would put its traceback into the message."""

    def __init__(self, batches: StepBatches) -> None:
        self.batches = batches

    def __getitem__(self, key: tuple[int, int]) -> Parcel | VlprepError:
        try:
            return Parcel(self.batches[key])
        except VlprepError as error:
            return error


class _Keys(Sampler[tuple[int, int]]):
    def __init__(self, steps: range, places: range) -> None:
        self.steps, self.places = steps, places

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((step, place) for step in self.steps for place in self.places)

    def __len__(self) -> int:
        return len(self.steps) * len(self.places)


def load(batches: StepBatches, steps: range, places: range, *, loaders: int, pin: bool) -> Iterator[MicroBatch]:
    """Micro-batches of `steps` in order, those `places` of each, made ahead in `loaders` processes."""
    keys = _Keys(steps, places)
    decodes = any("frames" in stream.objective.needs() for stream in batches.streams)
    if not loaders:
        return (batches[key] for key in keys)
    parcels = DataLoader(
        _Parcels(batches),
        batch_size=1 if decodes else _AT_ONCE,
        collate_fn=list,
        sampler=keys,
        num_workers=loaders,
        prefetch_factor=2,
        pin_memory=pin,
        worker_init_fn=_one_thread,
    )
    return (_open(parcel) for several in parcels for parcel in several)


def _open(parcel: Parcel | VlprepError) -> MicroBatch:
    if isinstance(parcel, VlprepError):
        raise parcel
    return parcel.open()


def token_counts(corpus: Mixture, objective: Objective) -> Ints:
    """(S,) tokens of each sample for this objective, special ones included. One that has more than the corpus counts
    says so by a method `extra_tokens(lengths_S, seen_S)`.
    """
    extra_tokens = getattr(objective, "extra_tokens", None)
    extra = extra_tokens(corpus.lengths(), corpus.num_seen()) if extra_tokens is not None else 0
    counts: Ints = corpus.lengths() + extra
    return counts


def pairs(objective: Objective) -> bool:
    """Whether the objective needs a sample of another item."""
    return bool(getattr(objective, "negatives", 0))


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
