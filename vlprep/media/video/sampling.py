"""Which source frame is shown at each output of a constant rate: the rule of ffmpeg's `fps` filter (vf_fps.c).

Output n is the last frame whose time t has round(t * fps) <= n, halves rounded away from zero: so a frame at exactly
(n + 0.5) / fps belongs to n + 1. At 1 frame a second from 30 the outputs are frames 14, 44, 74, ... The last frame is
shown until its own end. All is done in whole ticks, since such ties are common (30 frames a second at 1, 5, 25).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from vlprep.media.video.base import Tally

BACKWARD_S = 1
"""A time stamp that steps back further than this is damage (a restart, a wrap), not reordering."""
FORWARD_S = 600
"""A longer silence between two frames is damage: filling it would make frames without end."""


class Sampler:
    """Turns the times of the source frames into runs of output numbers."""

    def __init__(self, fps: Fraction | int, time_base: Fraction) -> None:
        per_tick = time_base * fps
        self._outputs, self._ticks = per_tick.numerator, per_tick.denominator
        self._next: int | None = None

    def _nearest(self, ticks: int) -> int:
        doubled = 2 * abs(ticks) * self._outputs + self._ticks
        return doubled // (2 * self._ticks) * (1 if ticks >= 0 else -1)

    def until(self, ticks: int) -> range:
        """Outputs that the frame before shows, now that the next one (or the end) is known to come at `ticks`."""
        reached = self._nearest(ticks)
        if self._next is None:
            self._next = reached
        run = range(self._next, max(self._next, reached))
        self._next = run.stop
        return run


@dataclass(slots=True)
class Clock:
    """Ticks of each frame from time zero, on a clock that damage cannot stop or throw far ahead."""

    time_base: Fraction
    origin: int
    frame_ticks: int
    tally: Tally
    end: int | None = None
    """When the frame before ends."""

    def ticks(self, pts: int | None, duration: int) -> int:
        """The time of the next frame. One without a time stamp follows the frame before."""
        at = self.end if pts is None else pts - self.origin
        if at is None:
            at = 0
        if self.end is not None and not -BACKWARD_S <= (at - self.end) * self.time_base <= FORWARD_S:
            self.tally.errors += 1
            self.origin += at - self.end
            at = self.end
        self.end = at + (duration if duration > 0 else self.frame_ticks)
        return at
