"""Batches across videos: clips of equal shape share one, so that short videos fill the device.

Shape suffixes: N clips of a batch, T frames, H, W pixels, 3 colours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Owner = TypeVar("Owner")
Group = list[tuple[Owner, NDArray[np.uint8]]]


def in_batches(
    clips: Iterable[tuple[Owner, NDArray[np.uint8]]], size: int, *, most_waiting: int | None = None
) -> Iterator[tuple[list[Owner], NDArray[np.uint8]]]:
    """Group (owner, frames_THW3) pairs by shape into (owners, clips_NTHW3) of up to `size` clips.

    Clips of one shape keep their order, so the clips of one video come out in theirs. An unusual shape waits for
    company until `most_waiting` clips (default 4 * `size`) are held; then the largest group goes first, as it is.
    """
    limit = 4 * size if most_waiting is None else most_waiting
    groups: dict[tuple[int, ...], Group[Owner]] = {}
    waiting = 0
    for owner, frames_THW3 in clips:
        group = groups.setdefault(frames_THW3.shape, [])
        group.append((owner, frames_THW3))
        waiting += 1
        if len(group) < size and waiting >= limit:
            group = max(groups.values(), key=len)
        if len(group) == size or waiting >= limit:
            del groups[group[0][1].shape]
            waiting -= len(group)
            yield _stacked(group)
    for group in groups.values():
        yield _stacked(group)


def _stacked(group: Group[Owner]) -> tuple[list[Owner], NDArray[np.uint8]]:
    owners, clips = zip(*group, strict=True)
    return list(owners), np.stack(clips)
