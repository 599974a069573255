"""Videos whole, with their narration and the clip features of one or more encoders: what the contrastive systems read.

A sample is a video. Left out and counted, never filled with zeros as the published loaders of HowTo100M and UniVL do:
videos that one of the feature stores lacks or that nobody narrates, and segments without a (known) word, with more than
`max_text` of them, or at a time that some store has no clip of.

Shape suffixes: S samples, C clips, N segments, D feature size.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlprep.errors import SettingsError
from vlprep.pretrain.base import NarratedVideo, Sample
from vlprep.pretrain.corpus import DatasetStores
from vlprep.pretrain.narration import clips_in
from vlprep.pretrain.places import CorpusSettings, Ints, usable_texts, visual_rows
from vlprep.pretrain.whole_videos import WholeVideos
from vlprep.shards import StoreReader


class VideoCorpus(WholeVideos):
    """A `SampleSource` of narrated videos. A caption without times is about all of its video."""

    def __init__(self, stores: DatasetStores, settings: CorpusSettings) -> None:
        self.left_out: Counter[str] = Counter()
        if stores.text is None:
            raise SettingsError(f"{stores.features[0]}: videos need narration; `vlprep tokenize DATASET` makes it")
        text = StoreReader(stores.text)
        self.features = [StoreReader(folder) for folder in stores.features]
        self.num_items = len(self.features[0])
        usable = usable_texts(text, settings, self.left_out)
        videos = visual_rows(text, self.features[0])
        self.left_out["texts without a video"] += int((videos < 0).sum())
        rows_FI = self._matched_rows()
        kept = usable & (videos >= 0)
        kept[kept] = (rows_FI[:, videos[kept]] >= 0).all(0)
        self._place(text, np.flatnonzero(kept), videos, rows_FI)

    def _matched_rows(self) -> Ints:
        """(stores, items) where each video of the first store lies in all of them, -1 where it does not."""
        first = self.features[0]
        rows = [np.arange(len(first))]
        for store in self.features[1:]:
            found = visual_rows(first, store, "id")
            self.left_out[f"videos without {store.folder.name}"] += int((found < 0).sum())
            self.left_out[f"videos without {first.folder.name}"] += len(store) - int((found >= 0).sum())
            rows.append(found)
        return np.stack(rows)

    def _place(self, text: StoreReader, texts: Ints, videos: Ints, rows_FI: Ints) -> None:
        """Find the segments of every video, in the order of their start, that all stores have a clip of."""
        table = text.columns(["start", "end"])
        starts, ends = (table.column(name).to_numpy() for name in ("start", "end"))  # NaN for captions
        texts = texts[np.lexsort((starts[texts], videos[texts]))]
        items, firsts = np.unique(videos[texts], return_index=True)
        placed: list[tuple[Ints, NDArray[np.float32]]] = []
        sampled: list[int] = []
        for item, of_video in zip(items.tolist(), np.split(texts, firsts)[1:], strict=True):
            times = [store[int(row)]["times"] for store, row in zip(self.features, rows_FI[:, item], strict=True)]
            length = min((float(times_C2[-1, 1]) for times_C2 in times if len(times_C2)), default=0.0)
            spans_N2 = np.stack([np.nan_to_num(starts[of_video]), np.nan_to_num(ends[of_video], nan=length)], axis=1)
            seen = [all(len(times_C2[clips_in(times_C2, *span)]) for times_C2 in times) for span in spans_N2.tolist()]
            self.left_out["segments without a clip"] += seen.count(False)
            if any(seen):
                placed.append((of_video[seen], spans_N2[seen].astype(np.float32)))
                sampled.append(item)
        both = int((rows_FI >= 0).all(0).sum())
        self.left_out["videos without narration"] += both - len(sampled)
        self._rows_SF = rows_FI[:, sampled].T
        super().__init__(
            text,
            np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in placed)]),
            np.concatenate([np.empty((0, 2), np.float32), *(spans_N2 for _, spans_N2 in placed)]),
            np.cumsum([0] + [len(rows) for rows, _ in placed]),
        )

    def provides(self) -> frozenset[str]:
        return frozenset({"text", "words", "video"})

    def sizes(self) -> dict[str, tuple[int | tuple[int, ...], Path]]:
        dims = tuple(int(store[0]["features"].shape[1]) for store in self.features if len(store))
        return {"clip_dims": (dims, self.features[0].folder)}

    def items(self) -> Ints:
        return self._rows_SF[:, 0]

    def item_ids(self) -> list[str]:
        return self.features[0].ids

    def read_ahead(self, numbers: Ints) -> None:
        for store, rows in zip(self.features, self._rows_SF[numbers].T.tolist(), strict=True):
            store.read_ahead(rows)

    def sample(self, number: int) -> Sample:
        rows = [store[int(row)] for store, row in zip(self.features, self._rows_SF[number], strict=True)]
        video = NarratedVideo(
            features_CD=tuple(row["features"] for row in rows),
            times_C2=tuple(row["times"] for row in rows),
            spans_N2=self.spans(number),
            texts=self.texts(number),
        )
        return Sample(key=number, video=video)
