"""How a stream of frames is cut into clips, while it is being decoded.

Shape suffixes: T frames of a clip that the network gets, H, W pixels, 3 colours (RGB).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlprep.clips.spec import ClipSpec
from vlprep.media.video import Frame


@dataclass(frozen=True, slots=True)
class Clip:
    """What one feature is made from."""

    frames_THW3: NDArray[np.uint8]
    start: float
    """Seconds."""
    end: float
    """Seconds; of the last real frame, where the rest of the clip is filled up."""


class Cutter:
    """Cuts one stream's frames into clips by `clip_frames`, `stride`, `pick` and `tail`, as they come.

    Frame n of the stream stands for the time from n / fps to (n + 1) / fps. Frames left at the end that no clip has
    covered make one more clip, filled up by the tail rule or dropped. No more than one clip's frames are held.
    """

    def __init__(self, spec: ClipSpec) -> None:
        self._spec = spec
        self._window: list[Frame] = []
        self._uncovered = self._to_skip = 0

    def add(self, frame: Frame) -> Clip | None:
        """Take the next frame of a stream asked for by `spec.frame_stream()`; returns the clip that it completes."""
        if self._to_skip:
            self._to_skip -= 1
            return None
        self._window.append(frame)
        self._uncovered += 1
        if len(self._window) < self._spec.clip_frames:
            return None
        clip = _clip(self._window, self._spec)
        self._to_skip = max(0, self._spec.step - self._spec.clip_frames)
        del self._window[: self._spec.step]
        self._uncovered = 0
        return clip

    def end(self) -> Clip | None:
        """The clip of the frames that are left, if there is to be one."""
        return _clip(self._window, self._spec) if self._uncovered and self._spec.tail != "drop" else None


def cut(frames: Iterable[Frame], spec: ClipSpec) -> Iterator[Clip]:
    """The clips of a whole stream, see `Cutter`, in order of time; none for a stream without frames, or too short for
    one under `tail="drop"`."""
    cutter = Cutter(spec)
    clips = (cutter.add(frame) for frame in frames)
    yield from (clip for clip in clips if clip)
    if last := cutter.end():
        yield last


def _clip(window: list[Frame], spec: ClipSpec) -> Clip:
    """The frames picked from `window`, which may be short of `clip_frames`."""
    pixels = [frame.pixels for frame in window]
    if len(pixels) < spec.clip_frames:
        filler = pixels[-1] if spec.tail == "repeat" else np.zeros_like(pixels[-1])
        pixels += [filler] * (spec.clip_frames - len(pixels))
    if spec.pick:
        pixels = [pixels[position] for position in spec.pick]
    return Clip(
        frames_THW3=np.stack(pixels),
        start=float(window[0].index / spec.fps),
        end=float((window[-1].index + 1) / spec.fps),
    )
