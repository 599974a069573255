"""Narrated videos with clip features, made so that what is said can be told from what is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pretrain.stores import text, write

from vlprep.pretrain.corpus import DatasetStores
from vlprep.shards.schema import text_schema, video_schema

FIRST_WORD, WORD_COUNT = 10, 30
DIM = 16
_CLIPS, _SECONDS = 3, 2.0


def narrated_videos(
    folder: Path, count: int = 120, *, segments: int = 4, words: int = 3, shuffled: bool = False, seed: int = 0
) -> DatasetStores:
    """Videos of several segments of 6 seconds, each of three clips with one sum of the directions of its words in its
    features, and noise; the text is another video's if `shuffled`. Words mean the same under any seed.
    """
    rng = np.random.default_rng([seed, 0])
    directions_WD = np.random.default_rng(99).normal(size=(WORD_COUNT, DIM))
    said = rng.integers(WORD_COUNT, size=(count, segments, words))
    told = np.roll(said, 1, axis=0) if shuffled else said
    videos, texts = {}, {}
    clips = segments * _CLIPS
    starts = np.arange(clips) * _SECONDS
    for number in range(count):
        name = f"{number:03}.mp4"
        shown_SD = directions_WD[said[number]].sum(1)
        videos[name] = {
            "source_id": None,
            "duration": clips * _SECONDS,
            "fps": 25.0,
            "times": np.stack([starts, starts + _SECONDS], 1),
            "features": shown_SD.repeat(_CLIPS, 0) + rng.normal(0, 0.3, (clips, DIM)),
            "status": "ok",
            "frames": clips,
            "errors": 0,
        }
        for place, ids in enumerate(told[number]):
            start = place * _CLIPS * _SECONDS
            # a segment ends before the next one's first clip begins
            texts[f"{name}#{place}"] = text(name, (FIRST_WORD + ids).tolist(), start=start, end=start + 5.5)
    return DatasetStores(
        text=write(folder / "text", text_schema(), "text", texts, part_size=1000),
        features=(write(folder / "s3d", video_schema(DIM), "video", videos, part_size=1000),),
    )
