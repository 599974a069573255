"""Batches across videos: clips of equal shape share one, so that short videos fill the device.

Several videos are decoded at a time, so their clips come in an order that only the clock knows. Batches must not know
it: a feature depends, in its last digits, on the batch that it was computed in, and a run that was killed and resumed
has to end in the same bytes. So a batch is either full of one video's clips, or shared by the rests of videos in the
order of the plan.

Shape suffixes: N clips of a batch, T frames, H, W pixels, 3 colours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Owner = TypeVar("Owner")
Clip = NDArray[np.uint8]
"""(T, H, W, 3)."""
_BATCHES_WAITING = 4


@dataclass(frozen=True, slots=True)
class Batch(Generic[Owner]):
    """Clips to be encoded together, each with its owner; those of one owner are in order, over batches too."""

    owners: list[Owner]
    clips_NTHW3: NDArray[np.uint8]


class Batcher(Generic[Owner]):
    """Takes the clips of videos 0, 1, 2, ... of a part. All of one video's clips have the same shape."""

    def __init__(self, pixels: int) -> None:
        """`pixels` of all frames of a batch; one clip, if it is larger."""
        self._pixels = pixels
        self._filling: dict[int, list[tuple[Owner, Clip]]] = {}
        self._ended: dict[int, list[tuple[Owner, Clip]]] = {}
        self._turn = 0
        self._shared: dict[tuple[int, ...], list[tuple[Owner, Clip]]] = {}
        self._waiting = 0

    def size(self, shape: tuple[int, ...]) -> int:
        """Clips of this shape (T, H, W, 3) in a batch."""
        return max(1, self._pixels // prod(shape[:3]))

    def add(self, video: int, owner: Owner, clip: Clip) -> Iterator[Batch[Owner]]:
        """Take the next clip of a video; gives the batch that it completes."""
        clips = self._filling.setdefault(video, [])
        clips.append((owner, clip))
        if len(clips) == self.size(clip.shape):
            yield _batch(self._filling.pop(video))

    def end(self, video: int, *, failed: bool = False) -> Iterator[Batch[Owner]]:
        """There are no more clips of a video, or those left are of no use. Each video must end, whatever became of it.

        The rests of ended videos are held until all videos before them have ended.
        """
        rest = self._filling.pop(video, [])
        self._ended[video] = [] if failed else rest
        while self._turn in self._ended:
            for owner, clip in self._ended.pop(self._turn):
                yield from self._share(owner, clip)
            self._turn += 1

    def flush(self) -> Iterator[Batch[Owner]]:
        """After the last video: what has found no company."""
        for clips in self._shared.values():
            yield _batch(clips)
        self._shared.clear()
        self._waiting = 0

    def _share(self, owner: Owner, clip: Clip) -> Iterator[Batch[Owner]]:
        """Unusual shapes may wait for company until some batches' worth of pixels is held; then the largest goes."""
        clips = self._shared.setdefault(clip.shape, [])
        clips.append((owner, clip))
        self._waiting += prod(clip.shape[:3])
        is_full = len(clips) == self.size(clip.shape)
        if not is_full and self._waiting > _BATCHES_WAITING * self._pixels:
            clips = max(self._shared.values(), key=lambda group: sum(prod(held.shape[:3]) for _, held in group))
            is_full = True
        if is_full:
            shape = clips[0][1].shape
            self._waiting -= len(clips) * prod(shape[:3])
            yield _batch(self._shared.pop(shape))


def _batch(clips: list[tuple[Owner, Clip]]) -> Batch[Owner]:
    owners, frames = zip(*clips, strict=True)
    return Batch(list(owners), np.stack(frames))
