"""Which clips a narrated segment has, and what it is joined with.

Shape suffixes: C clips of a video, N segments of its narration.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Span = tuple[float, float]
"""Start and end in seconds."""


def clips_in(times_C2: NDArray[Any], start: float, end: float) -> slice:
    """The clips that overlap [start, end]; `times_C2` has their starts and ends, both ascending.

    A clip that begins at `end` counts: of one feature a second these are rows int(start) to int(end), as in HowTo100M
    (youtube_dataloader.py:121-141). An empty slice where the video has no clip then.
    """
    first = int(np.searchsorted(times_C2[:, 1], start, side="right"))
    return slice(first, max(first, int(np.searchsorted(times_C2[:, 0], end, side="right"))))


def widened(spans_N2: NDArray[np.float32], segment: int, min_seconds: float) -> tuple[list[int], Span]:
    """A segment joined with its neighbours until it takes `min_seconds`: these segments in the order in which they were
    joined, and their span.

    Each time the neighbour comes next with which the whole is shorter, the earlier one of two alike. What is too short
    with all of them stays so (HowTo100M youtube_dataloader.py:76-118).
    """
    first = last = segment
    joined = [segment]
    starts, ends = spans_N2[:, 0].tolist(), spans_N2[:, 1].tolist()
    while ends[last] - starts[first] < min_seconds and len(joined) < len(starts):
        with_earlier = ends[last] - starts[first - 1] if first > 0 else np.inf
        with_later = ends[last + 1] - starts[first] if last + 1 < len(ends) else np.inf
        if with_earlier <= with_later:
            first -= 1
            joined.append(first)
        else:
            last += 1
            joined.append(last)
    return joined, (starts[first], ends[last])


def nearest(spans_N2: NDArray[np.float32], segment: int, count: int) -> list[int]:
    """The `count` consecutive segments that are nearest in time to one of them, itself included.

    As published (MIL-NCE video_loader.py:118-143): each time the neighbour comes next with which the whole is shorter,
    the later one of two alike; once the first segment of the video is among them the first ones are taken, once the
    last one is, the last ones. A video with fewer segments has its first or last more than once.
    """
    first = last = segment
    starts, ends = spans_N2[:, 0].tolist(), spans_N2[:, 1].tolist()
    while last - first + 1 < count and first > 0:
        if last + 1 == len(starts):
            first = last + 1 - count
        elif ends[last] - starts[first - 1] < ends[last + 1] - starts[first]:
            first -= 1
        else:
            last += 1
    return [min(max(place, 0), len(starts) - 1) for place in range(first, first + count)]


def stretched(span: Span, min_seconds: float) -> Span:
    """A span made as long to both sides, not before the video's start (MIL-NCE video_loader.py:144-150)."""
    start, end = span
    if end - start >= min_seconds:
        return span
    start = max(0.0, start - (min_seconds - end + start) / 2)
    return start, start + min_seconds
