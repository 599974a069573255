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


def cut(frames: Iterable[Frame], spec: ClipSpec) -> Iterator[Clip]:
    """Cut one stream's frames into clips by `clip_frames`, `stride`, `pick` and `tail`.

    Frame n of the stream stands for the time from n / fps to (n + 1) / fps. Frames left at the end that no clip has
    covered make one more clip, filled up by the tail rule or dropped. No more than one clip's frames are held.

    Args:
        frames: Of one stream asked for by `spec.frame_stream()`, in order, numbers without gaps.
        spec: The recipe.

    Returns:
        Clips in order of time; none for a stream without frames, or too short for one under `tail="drop"`.
    """
    window: list[Frame] = []
    uncovered = to_skip = 0
    for frame in frames:
        if to_skip:
            to_skip -= 1
            continue
        window.append(frame)
        uncovered += 1
        if len(window) == spec.clip_frames:
            yield _clip(window, spec)
            to_skip = max(0, spec.step - spec.clip_frames)
            del window[: spec.step]
            uncovered = 0
    if uncovered and spec.tail != "drop":
        yield _clip(window, spec)


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
