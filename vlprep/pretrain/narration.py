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
