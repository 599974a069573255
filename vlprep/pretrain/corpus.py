"""From stores to samples: texts joined with the regions or visual tokens of their item, by memory map.

Videos whole with their narration, for the contrastive systems, are `vlprep.pretrain.video_corpus`'s.

Shape suffixes: S samples.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vlprep.errors import SettingsError
from vlprep.pretrain.base import RegionSample, Sample
from vlprep.pretrain.places import CorpusSettings, Ints, place_images, place_videos
from vlprep.shards import StoreReader


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetStores:
    """The stores of one dataset folder that pretraining reads."""

    text: Path | None = None
    regions: Path | None = None
    tokens: Path | None = None
    features: tuple[Path, ...] = ()
    """Of clips, one store an encoder."""
    videos: Path | None = None
    """The dataset's folder, where clips are decoded from its files."""


class SampleSource(Protocol):
    """The samples of one dataset, S of them about so many items (images or videos)."""

    left_out: Counter[str]
    """What makes no sample, by reason."""
    num_items: int

    def __len__(self) -> int: ...

    def provides(self) -> frozenset[str]:
        """Of what `Objective.needs` names, what these samples have; `text` those that `has_text` says."""

    def sizes(self) -> dict[str, tuple[int | tuple[int, ...], Path]]:
        """Fields of `StoreFacts`, each with the store that it was read off."""

    def lengths(self) -> Ints:
        """(S,) tokens of each sample, special ones included; no feature is read."""

    def num_seen(self) -> Ints:
        """(S,) how many of these tokens are regions or visual tokens."""

    def has_text(self) -> NDArray[np.bool_]:
        """(S,)."""

    def items(self) -> Ints:
        """(S,) the number of each sample's item, below `num_items`."""

    def item_ids(self) -> list[str]:
        """What its stores call each item, `num_items` of them."""

    def sample(self, number: int) -> Sample:
        """One sample; its arrays are views into the stores."""

    def read_ahead(self, numbers: Ints) -> None:
        """Have these samples read from the disk in the background, since they will soon be wanted."""


class Corpus:
    """A `SampleSource` of images with their texts, or of narrated segments of videos as visual tokens."""

    def __init__(self, stores: DatasetStores, settings: CorpusSettings) -> None:
        self.left_out: Counter[str] = Counter()
        self.text = StoreReader(stores.text) if stores.text else None
        if stores.regions is not None:
            if self.text is None:
                raise SettingsError(f"{stores.regions}: regions need texts; `vlprep tokenize DATASET` makes them")
            self.visual = StoreReader(stores.regions)
            self.places = place_images(self.text, self.visual, settings, self.left_out)
        elif stores.tokens is not None:
            self.visual = StoreReader(stores.tokens)
            self.places = place_videos(self.text, self.visual, settings, self.left_out)
        else:
            raise SettingsError("pretraining needs a regions or a tokens store")
        self.num_items = len(self.visual)
        self.kind = self.visual.manifest.kind
        columns = self.visual.manifest.columns
        # With `class_ids` the store has the most probable classes only; imported features may lack the background.
        self.has_likeliest = "class_ids" in columns
        self.has_distributions = {"class_probs", "background_prob"} <= columns.keys() and not self.has_likeliest
        self.has_attributes = "attribute_probs" in columns
        self.has_answers = self.text is not None and "answers" in self.text.manifest.columns

    def __len__(self) -> int:
        return len(self.places)

    def provides(self) -> frozenset[str]:
        if self.kind == "tokens":
            return frozenset({"text", "visual_tokens"})
        return frozenset({"text", "regions", *(("class_probs",) if self.has_distributions else ())})

    def sizes(self) -> dict[str, tuple[int | tuple[int, ...], Path]]:
        if self.kind == "tokens":
            return {}
        first = self.visual[0]
        sizes = {"region_dim": first["features"].shape[1], "num_classes": len(self._class_names())}
        if self.has_attributes:
            sizes["num_attributes"] = first["attribute_probs"].shape[1]
        return {name: (size, self.visual.folder) for name, size in sizes.items()}

    def _class_names(self) -> Sequence[str]:
        return self.visual.manifest.names.get("classes", ())

    def lengths(self) -> Ints:
        specials = 2 if self.kind == "regions" else 3
        return self._num_text() + self.num_seen() + specials

    def num_seen(self) -> Ints:
        return self.places.end_S - self.places.begin_S

    def has_text(self) -> NDArray[np.bool_]:
        return self.places.first_text_S >= 0

    def items(self) -> Ints:
        return self.places.visual_S

    def item_ids(self) -> list[str]:
        return self.visual.ids

    def sample(self, number: int) -> Sample:
        places = self.places
        begin, end = int(places.begin_S[number]), int(places.end_S[number])
        row = self.visual[int(places.visual_S[number])]
        text_ids = self._text_ids(number)
        if self.kind == "tokens":
            return Sample(key=number, text_ids=text_ids, visual_tokens=row["tokens"][begin:end])
        size = np.array([row["width"], row["height"]] * 2, np.float32)
        regions = RegionSample(
            features_RD=row["features"][begin:end],
            boxes_R4=row["boxes"][begin:end] / size,
            object_ids_R=row["object_ids"][begin:end],
            class_probs_RK=row["class_probs"][begin:end] if self.has_distributions else None,
            background_R=row["background_prob"][begin:end] if self.has_distributions else None,
            confidence_R=row["class_probs"][begin:end, 0] if self.has_likeliest else row["max_conf"][begin:end],
            attribute_probs_RA=row["attribute_probs"][begin:end] if self.has_attributes else None,
        )
        return Sample(key=number, text_ids=text_ids, answers=self._answers(number), regions=regions)

    def read_ahead(self, numbers: Ints) -> None:
        self.visual.read_ahead(self.places.visual_S[numbers].tolist())

    def _text_ids(self, number: int) -> NDArray[np.int32] | None:
        first, last = int(self.places.first_text_S[number]), int(self.places.last_text_S[number])
        if first < 0 or self.text is None:
            return None
        ids: NDArray[np.int32] = self.text[first]["token_ids"]
        return ids if first == last else np.concatenate([ids, self.text[last]["token_ids"]])

    def _answers(self, number: int) -> Mapping[str, float]:
        if not self.has_answers or self.text is None:
            return {}
        said = self.text[int(self.places.first_text_S[number])]["answers"]
        answers: dict[str, float] = json.loads(said) if said else {}
        return answers

    def _num_text(self) -> Ints:
        if self.text is None:
            return np.zeros(len(self), np.int64)
        pieces = self.text.lengths()
        first, last = self.places.first_text_S, self.places.last_text_S
        counts: Ints = np.where(first < 0, 0, pieces[first]) + np.where(first == last, 0, pieces[last])
        return counts


class Mixture:
    """Several corpora numbered through as one."""

    def __init__(self, corpora: Sequence[SampleSource]) -> None:
        self.corpora = tuple(corpora)
        self._starts = np.concatenate([[0], np.cumsum([len(corpus) for corpus in corpora])])
        self._lengths = np.concatenate([corpus.lengths() for corpus in corpora])
        self._num_seen = np.concatenate([corpus.num_seen() for corpus in corpora])
        self._has_text = np.concatenate([corpus.has_text() for corpus in corpora])
        images = np.cumsum([0] + [corpus.num_items for corpus in corpora])
        self.num_items = int(images[-1])
        self._items = np.concatenate(
            [start + corpus.items() for start, corpus in zip(images[:-1], corpora, strict=True)]
        )

    def __len__(self) -> int:
        return len(self._lengths)

    def lengths(self) -> Ints:
        """(S,) tokens of each sample, special ones included."""
        return self._lengths

    def num_seen(self) -> Ints:
        """(S,) how many of these tokens are regions or visual tokens."""
        return self._num_seen

    def items(self) -> Ints:
        """(S,) a number for the image or video of each sample."""
        return self._items

    def item_ids(self) -> list[str]:
        """What the stores call each image or video, `num_items` of them."""
        return [name for corpus in self.corpora for name in corpus.item_ids()]

    def usable_for(self, needs: frozenset[str]) -> Ints:
        """Numbers of the samples that have what an objective needs (`Objective.needs`)."""
        usable = self._has_text if "text" in needs else np.ones(len(self), bool)
        for number, corpus in enumerate(self.corpora):
            if not needs <= corpus.provides():
                usable = usable & ~self._of(number)
        return np.flatnonzero(usable)

    def sample(self, number: int) -> Sample:
        """One sample, its key numbered through."""
        corpus, own = self.place(number)
        return replace(corpus.sample(own), key=number)

    def place(self, number: int) -> tuple[SampleSource, int]:
        """The corpus of a sample, and its number there."""
        corpus = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self.corpora[corpus], number - int(self._starts[corpus])

    def read_ahead(self, numbers: Ints) -> None:
        """Have these samples read from the disk in the background, since they will soon be wanted."""
        owners = np.searchsorted(self._starts, numbers, side="right") - 1
        for corpus in np.unique(owners).tolist():
            self.corpora[corpus].read_ahead(numbers[owners == corpus] - self._starts[corpus])

    def other(self, number: int, usable: Ints, draw: np.random.Generator) -> Sample:
        """A sample of another image or video among the `usable`, uniformly.

        Raises `SettingsError` where all of them are of one item.
        """
        for _ in range(100):
            candidate = int(usable[draw.integers(len(usable))])
            if self._items[candidate] != self._items[number]:
                return self.sample(candidate)
        others = usable[self._items[usable] != self._items[number]]  # nearly all are of one item, or all of them
        if not len(others):
            raise SettingsError("matching needs samples of at least two images or videos")
        return self.sample(int(others[draw.integers(len(others))]))

    def left_out(self) -> Counter[str]:
        """What made no sample, by reason."""
        return sum((corpus.left_out for corpus in self.corpora), Counter())

    def _of(self, corpus: int) -> NDArray[np.bool_]:
        numbers = np.arange(len(self))
        mine: NDArray[np.bool_] = (numbers >= self._starts[corpus]) & (numbers < self._starts[corpus + 1])
        return mine
