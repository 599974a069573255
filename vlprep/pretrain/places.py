"""Which samples a dataset has, and where they lie in its stores. Only lengths, confidences and times are read.

Rules: texts longer than `max_text` pieces are left out (UNITER data/data.py:183-188 filters, it does not cut); regions
are the first n = clip(#confidence > 0.2, 10, 100) of the row, which is sorted by confidence (data.py:33-36); a
narrated segment has the visual tokens whose middle lies inside it, a video without narration is cut into segments of
16 tokens (VideoBERT
§4.2). Whatever has no partner is left out and counted, never filled with zeros.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlprep.errors import SettingsError
from vlprep.pretrain.settings import require_numbers
from vlprep.shards import StoreReader
from vlprep.shards.arrays import flat_entries

Ints = NDArray[np.int64]
_Place = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusSettings:
    """Which samples are used, and how much of them."""

    text: str = "text"
    """Name of the text store under `<dataset>/vlprep`; `words` where narration is read as words with vectors."""
    features: tuple[str, ...] = ()
    """Names of the stores of clip features there, for the systems that look at videos by themselves: `s3d`, …"""
    max_text: int = 60
    """Pieces, without special tokens."""
    min_regions: int = 10
    max_regions: int = 100
    min_confidence: float = 0.2
    segment_tokens: int = 16
    """Visual tokens of a segment where there is no narration."""
    max_visual_tokens: int = 64
    join_neighbours: float = 0.0
    """Chance that a narrated segment is joined with the next one (VideoBERT §3.2 gives no figure; 0.5 in
    the public repository's old loader), drawn once, with `seed`."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_numbers(self, "data", may_be_0=("seed",))
        if self.min_regions > self.max_regions:
            raise SettingsError(f"data.min_regions = {self.min_regions} is above max_regions = {self.max_regions}")


@dataclass(frozen=True, slots=True)
class Places:
    """For each of S samples: its rows in the text store (two for joined segments, -1 for none), its row in the visual
    store, and which of that row's regions or tokens are used."""

    first_text_S: Ints
    last_text_S: Ints
    visual_S: Ints
    begin_S: Ints
    end_S: Ints

    @classmethod
    def of(cls, rows: Iterable[_Place]) -> Places:
        columns = np.array(list(rows), np.int64).reshape(-1, 5).T
        return cls(*(np.ascontiguousarray(column) for column in columns))

    def __len__(self) -> int:
        return len(self.visual_S)


def place_images(text: StoreReader, regions: StoreReader, settings: CorpusSettings, left_out: Counter[str]) -> Places:
    """One sample a text. `left_out` counts the texts that make none."""
    usable = usable_texts(text, settings, left_out)
    images = visual_rows(text, regions)
    left_out["texts without an image"] += int((images < 0).sum())
    texts = np.flatnonzero(usable & (images >= 0))
    counts = _region_counts(regions, settings)
    return Places(texts, texts, images[texts], np.zeros_like(texts), counts[images[texts]])


def place_videos(
    text: StoreReader | None, tokens: StoreReader, settings: CorpusSettings, left_out: Counter[str]
) -> Places:
    """One sample a narrated segment (or two joined), and segments of the videos without narration."""
    spans = _narrated_spans(text, tokens, settings, left_out) if text else {}
    offsets, times = flat_lists(tokens, "times")
    middles = times.mean(1)
    draw = np.random.default_rng(settings.seed)
    rows: list[_Place] = []
    for video in range(len(tokens)):
        middles_T = middles[offsets[video] : offsets[video + 1]]
        if not len(middles_T):
            left_out["videos without a clip"] += 1
        elif video in spans:
            rows += _narrated(video, sorted(spans[video], key=_times), middles_T, settings, draw, left_out)
        else:
            cuts = range(0, len(middles_T), settings.segment_tokens)
            rows += [(-1, -1, video, begin, min(begin + settings.segment_tokens, len(middles_T))) for begin in cuts]
    return Places.of(rows)


_Span = tuple[int, float, float]
"""Row of the text, start and end in seconds."""


def _times(span: _Span) -> tuple[float, float]:
    return span[1:]


def _narrated_spans(
    text: StoreReader, tokens: StoreReader, settings: CorpusSettings, left_out: Counter[str]
) -> dict[int, list[_Span]]:
    usable = usable_texts(text, settings, left_out)
    videos = visual_rows(text, tokens)
    left_out["texts without a video"] += int((videos < 0).sum())
    table = text.columns(["start", "end"])
    starts, ends = table.column("start").to_pylist(), table.column("end").to_pylist()
    spans: dict[int, list[_Span]] = {}
    for row in np.flatnonzero(usable & (videos >= 0)).tolist():
        whole = starts[row] is None  # a caption is about all of its video
        span = (row, 0.0, np.inf) if whole else (row, starts[row], ends[row])
        spans.setdefault(int(videos[row]), []).append(span)
    return spans


def _narrated(
    video: int,
    spans: list[_Span],
    middles_T: NDArray[np.float64],
    settings: CorpusSettings,
    draw: np.random.Generator,
    left_out: Counter[str],
) -> list[_Place]:
    rows: list[_Place] = []
    waiting = iter(spans)
    for first, start, end in waiting:
        last = first
        if draw.random() < settings.join_neighbours:
            last, _, end = next(waiting, (first, start, end))
        begin = int(np.searchsorted(middles_T, start))
        stop = min(int(np.searchsorted(middles_T, end)), begin + settings.max_visual_tokens)
        if begin < stop:
            rows.append((first, last, video, begin, stop))
        else:
            left_out["segments without a clip"] += 1
    return rows


def visual_rows(text: StoreReader, visual: StoreReader, item_id: str = "item_id") -> Ints:
    """(texts,) the row of each text's image or video, by item id or by the dataset's own id; -1 where there is none.

    `item_id` is the column that has the item's id; `id` where the first store has rows of items itself.
    """
    table = text.columns([item_id, "source_id"])
    by_id = visual.locate(table.column(item_id).to_pylist())
    source_ids: list[Any] = table.column("source_id").to_pylist()
    by_source = visual.locate([source or "" for source in source_ids], "source_id")
    known = np.array([source is not None for source in source_ids], bool)
    return np.where(by_id >= 0, by_id, np.where(known, by_source, -1))


def usable_texts(text: StoreReader, settings: CorpusSettings, left_out: Counter[str]) -> NDArray[np.bool_]:
    pieces = text.lengths()
    left_out["texts that are too long"] += int((pieces > settings.max_text).sum())
    left_out["texts without a word"] += int((pieces == 0).sum())
    usable: NDArray[np.bool_] = (pieces > 0) & (pieces <= settings.max_text)
    return usable


def _region_counts(regions: StoreReader, settings: CorpusSettings) -> Ints:
    """(images,) regions to use: rows are sorted by confidence, so that they are a prefix."""
    offsets, confidences = flat_lists(regions, "max_conf")
    sure = np.concatenate([[0], np.cumsum(confidences > settings.min_confidence)])
    counts = sure[offsets[1:]] - sure[offsets[:-1]]
    clipped: Ints = np.clip(counts, settings.min_regions, settings.max_regions)
    return np.minimum(clipped, np.diff(offsets))


def flat_lists(reader: StoreReader, name: str) -> tuple[Ints, NDArray[Any]]:
    """(offsets, entries) of a list column over all parts."""
    chunks = reader.columns([name]).column(name).chunks
    entries = [flat_entries(chunk) for chunk in chunks]
    offsets = np.concatenate([[0], np.cumsum(reader.lengths())]).astype(np.int64)
    return offsets, np.concatenate(entries) if entries else np.empty((0, 2))
