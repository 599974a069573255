"""The clips nearest to leaves of a vocabulary, and a frame of each: what a visual token looks like."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlprep.cluster.vocabulary import VOCABULARY_NAME, Vocabulary
from vlprep.errors import SettingsError
from vlprep.media.video import Frame, FrameStream
from vlprep.media.video.pool import DecoderPool
from vlprep.shards import StoreReader

_STEP = 0.25
"""Seconds between the frames that are looked at; fine enough for a clip's middle."""
_FRAME = FrameStream(fps=Fraction(1 / _STEP), resize=240)


@dataclass(frozen=True, slots=True, order=True)
class NearClip:
    """A clip with a token, and how far it is from the token's leaf."""

    distance: float
    """Euclidean."""
    video: str
    start: float
    """Seconds."""
    end: float

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    token: int
    clips: int
    """In the store."""
    nearest: tuple[NearClip, ...]
    """The nearest first, one a video as long as there are enough videos."""


class TokenStores:
    """A store of tokens with its vocabulary and the features that it was made from."""

    def __init__(self, tokens: Path, features: Path) -> None:
        """Raises `SettingsError` where they do not belong together."""
        self.tokens = StoreReader(tokens)
        self.vocabulary = Vocabulary.load(tokens / VOCABULARY_NAME)
        self.features = StoreReader(features)
        made_from = self.tokens.manifest.settings["source"]["fingerprint"]
        if made_from != self.features.manifest.fingerprint:
            raise SettingsError(f"{tokens} was not made from {features}: name its features with --from")

    def most_used(self, count: int) -> list[int]:
        """The tokens that the most clips have, in order of their codes, so that relatives stand together."""
        usage_L = np.zeros(self.vocabulary.size, np.int64)
        for row in self.tokens:
            usage_L += np.bincount(row["tokens"], minlength=self.vocabulary.size)
        order = np.argsort(-usage_L, kind="stable")[:count]
        return sorted(int(token) for token in order if usage_L[token])

    def leaves(self, tokens: Sequence[int], each: int) -> list[Leaf]:
        """The `each` clips nearest to each of these leaves; one pass over the tokens, of features only those wanted."""
        if beyond := [token for token in tokens if not 0 <= token < self.vocabulary.size]:
            raise SettingsError(f"there is no token {beyond[0]}: they go from 0 to {self.vocabulary.size - 1}")
        centroids = self.vocabulary.centroids[-1]
        found: dict[int, list[NearClip]] = {token: [] for token in tokens}
        clips = dict.fromkeys(tokens, 0)
        for row, place in zip(self.tokens, self.features.locate(self.tokens.ids), strict=True):
            for token in np.intersect1d(row["tokens"], tokens).tolist():
                here = np.flatnonzero(row["tokens"] == token)
                clips[token] += len(here)
                vectors = self.features[int(place)]["features"][here].astype(np.float32)
                distances = np.linalg.norm(vectors - centroids[token], axis=1)
                best = np.argsort(distances, kind="stable")[:each]
                found[token] += [
                    NearClip(float(distances[n]), row["id"], *row["times"][here[n]].tolist()) for n in best
                ]
                found[token] = _spread(found[token], 4 * each)
        return [Leaf(token=token, clips=clips[token], nearest=tuple(_spread(found[token], each))) for token in found]


def _spread(clips: Sequence[NearClip], count: int) -> list[NearClip]:
    """The nearest clip of each video goes before all second ones, and so on."""
    turns: dict[str, int] = defaultdict(int)
    ranked = []
    for clip in sorted(clips):
        ranked.append((turns[clip.video], clip))
        turns[clip.video] += 1
    return sorted(clip for _, clip in heapq.nsmallest(count, ranked))


def frames_of(dataset: Path, clips: Sequence[NearClip]) -> dict[NearClip, NDArray[np.uint8]]:
    """A frame from the middle of each clip, (H, W, 3); none for clips whose video can no longer be read."""
    by_video: dict[str, list[NearClip]] = defaultdict(list)
    for clip in clips:
        by_video[clip.video].append(clip)
    frames: dict[NearClip, NDArray[np.uint8]] = {}
    with DecoderPool() as pool:
        for video, wanted in by_video.items():
            frames.update(_frames_of_video(pool, dataset / video, wanted))
    return frames


def _frames_of_video(
    pool: DecoderPool, path: Path, wanted: Sequence[NearClip]
) -> Iterator[tuple[NearClip, NDArray[np.uint8]]]:
    waiting = sorted(wanted, key=lambda clip: clip.middle)
    last: Frame | None = None
    with closing(pool.decode([(path.name, path)], [_FRAME])) as events:
        for _, word in events:
            if not isinstance(word, Frame):
                continue
            last = word
            while waiting and word.nominal + 0.5 * _STEP >= waiting[0].middle:
                yield waiting.pop(0), word.pixels
            if not waiting:
                return
    if last is not None:  # the middle of a clip that is cut short by the end
        yield from ((clip, last.pixels) for clip in waiting)
