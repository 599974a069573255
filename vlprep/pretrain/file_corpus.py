"""Narrated videos as files, for the systems that decode clips while they train: narration from a text store, no
features.

Left out and counted: videos whose file is gone, and texts without a (known) word, with more than `max_text` of them or
without times. Whether a file can be decoded turns out when it is (`Objective.example`).

Shape suffixes: S samples, N segments.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from vlprep.errors import SettingsError
from vlprep.pretrain.base import NarratedVideo, Sample
from vlprep.pretrain.corpus import DatasetStores
from vlprep.pretrain.places import CorpusSettings, Ints, usable_texts
from vlprep.pretrain.whole_videos import WholeVideos
from vlprep.shards import StoreReader


class FileCorpus(WholeVideos):
    """A `SampleSource` of narrated videos, whose ids are their paths in the dataset's folder."""

    def __init__(self, stores: DatasetStores, settings: CorpusSettings) -> None:
        assert stores.videos is not None
        self.left_out: Counter[str] = Counter()
        self._folder = stores.videos
        if stores.text is None:
            raise SettingsError(f"{stores.videos}: videos need narration; `vlprep tokenize DATASET` makes it")
        text = StoreReader(stores.text)
        table = text.columns(["item_id", "start", "end"])
        ids = np.array(table.column("item_id").to_pylist(), object)
        spans_2 = np.stack([table.column(name).to_numpy() for name in ("start", "end")], axis=1).astype(np.float32)
        timed = ~np.isnan(spans_2).any(1)
        self.left_out["texts without times"] += int((~timed).sum())
        texts = np.flatnonzero(usable_texts(text, settings, self.left_out) & timed)
        every, items = np.unique(ids[texts], return_inverse=True)
        there = np.array([(self._folder / name).is_file() for name in every], bool)
        self.left_out["videos without a file"] += int((~there).sum())
        self._items = np.flatnonzero(there)
        texts, items = texts[there[items]], items[there[items]]
        order = np.lexsort((spans_2[texts, 0], items))
        self.num_items = len(every)
        self._every: list[str] = every.tolist()
        self._names: list[str] = every[there].tolist()
        starts = np.searchsorted(items[order], np.append(self._items, len(every)))
        super().__init__(text, texts[order], spans_2[texts[order]], starts)

    def provides(self) -> frozenset[str]:
        return frozenset({"text", "words", "video", "frames"})

    def sizes(self) -> dict[str, tuple[int | tuple[int, ...], Path]]:
        return {}

    def items(self) -> Ints:
        return self._items

    def item_ids(self) -> list[str]:
        return self._every

    def read_ahead(self, numbers: Ints) -> None:
        """Videos' files are read as they are decoded."""

    def sample(self, number: int) -> Sample:
        video = NarratedVideo(
            features_CD=(),
            times_C2=(),
            spans_N2=self.spans(number),
            texts=self.texts(number),
            file=self._folder / self._names[number],
        )
        return Sample(key=number, video=video)
