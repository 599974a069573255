"""The words of video decoding: what is asked for, what a file is, what comes out, and what a backend must do.

Sizes are (width, height) in pixels of the picture as a person sees it, rotation applied. Times are seconds from the
start of the file (its earliest stream, as players count), so they compare with narration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vlprep.errors import SettingsError

if TYPE_CHECKING:
    from av import VideoFrame

MAX_OUTPUT_PIXELS = 1 << 22
"""Of one frame that comes out; 2048 x 2048. A strange aspect ratio can ask for far more, and no encoder wants it."""

Interpolation = Literal["bicubic", "bilinear", "fast_bilinear", "area", "lanczos"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameStream:
    """Frames at one rate and size, uint8 RGB. One decode can feed several.

    The order of work is that of the published ffmpeg filter strings: rotate, choose frames (`fps`), cut the centre
    square (`square_first`, MIL-NCE), resize from the file's colour format to RGB by swscale, cut the centre (`crop`).
    Unlike the published extractors (video_feature_extractor and its descendants), which read width and height before
    rotation and squash portrait videos, sizes are computed after it.
    """

    fps: Fraction | int | None = None
    """Frames per second by ffmpeg's `fps` filter; None for every frame of the file."""
    resize: int | tuple[int, int] | None = None
    """Length of the short side, the other one truncated to a whole pixel; or exactly (width, height)."""
    crop: int | None = None
    """Side of a centre square cut out after resizing."""
    square_first: bool = False
    """Cut the largest centre square before resizing, its corner on a whole chroma sample as in libavfilter."""
    place: tuple[float, float] = (0.5, 0.5)
    """Where the cuts lie if not in the centre: from 0, at the left (at the top), to 1."""
    interpolation: Interpolation = "bicubic"
    """A scaler of swscale."""

    def __post_init__(self) -> None:
        if isinstance(self.fps, float):
            raise SettingsError(f"fps={self.fps}: give a whole number or a Fraction, such as Fraction(2, 3)")
        if self.fps is not None and self.fps <= 0:
            raise SettingsError(f"fps={self.fps}: must be greater than zero, or None for every frame")
        sides = self.resize if isinstance(self.resize, tuple) else (self.resize,)
        if any(side is not None and side < 1 for side in (*sides, self.crop)):
            raise SettingsError(f"resize={self.resize}, crop={self.crop}: sides are at least one pixel")
        if self.crop is not None and any(side is not None and side < self.crop for side in sides):
            raise SettingsError(f"crop={self.crop} is larger than resize={self.resize}")
        if not (0 <= self.place[0] <= 1 and 0 <= self.place[1] <= 1):
            raise SettingsError(f"place={self.place}: from 0 to 1")

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Size after resizing and before `crop`, of a picture of this size."""
        if self.square_first:
            width = height = min(width, height)
        if self.resize is None:
            return width, height
        if isinstance(self.resize, tuple):
            return self.resize
        short = min(width, height)
        return width * self.resize // short, height * self.resize // short

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Size of the frames that come out."""
        return self.resized(width, height) if self.crop is None else (self.crop, self.crop)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What a file says of its video, which need not be true."""

    duration: float | None
    """Seconds."""
    fps: float | None
    """Average frames per second."""
    width: int
    height: int
    rotation: int
    """Degrees clockwise that the stored picture is turned by to be seen: 0, 90, 180 or 270."""
    start_time: float
    """When the first frame is shown."""
    frames: int | None
    """Number of frames in the header, if there is one."""
    codec: str
    container: str
    pixel_format: str


@dataclass(frozen=True, slots=True)
class Frame:
    """One output frame of one stream."""

    stream: int
    """Position in the list of streams asked for."""
    index: int
    """Number of the output on the grid of the stream's rate. It begins above 0 in a video that begins later than its
    file, so that `index / fps` is always the nominal time. Without a rate: the number of the source frame."""
    nominal: float
    """Seconds: index / fps."""
    time: float
    """Seconds: when the source frame begins to be shown, up to half a step after `nominal` or any time before it."""
    source: int
    """Number of the source frame among those that could be decoded."""
    pixels: NDArray[np.uint8]
    """(height, width, 3) RGB, read-only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeSummary:
    """How the decoding of one video went; known at its end."""

    frames: int
    """Source frames decoded."""
    errors: int
    """Packets that could not be read or decoded, time stamps that made no sense, an end before the one promised."""
    corrupt: int
    """Frames that the decoder flagged as damaged but could show; they are used, as ffmpeg uses them."""
    outputs: tuple[int, ...]
    """Frames that each stream got."""
    end: float
    """Seconds: when the last frame ends."""

    @property
    def status(self) -> Literal["ok", "partial"]:
        return "partial" if self.errors or self.corrupt else "ok"


def _no_beat() -> None:
    pass


@dataclass(slots=True)
class Tally:
    """Counters that a backend keeps while it reads, and the sign of life that it gives after each packet."""

    frames: int = 0
    errors: int = 0
    corrupt: int = 0
    beat: Callable[[], None] = field(default=_no_beat, repr=False)


class VideoSource(Protocol):
    """An open file: frames in the order in which they are shown, in the stream's time base."""

    info: VideoInfo
    time_base: Fraction
    """Seconds of one tick."""
    origin: int
    """Tick at which the file starts: time zero."""
    turn: int
    """Degrees clockwise that the frames must still be turned; 0 where the backend does it."""
    frame_ticks: int
    """Usual duration of a frame, for frames that do not tell their own."""

    def frames(self) -> Iterator[VideoFrame]:
        """Every frame that can be decoded, each with `pts`; damage goes to the tally. Raises ItemError."""


class OpenSource(Protocol):
    """A backend: `open(path, tally)` is a context that gives a VideoSource or raises ItemError."""

    def __call__(self, path: Path, tally: Tally) -> AbstractContextManager[VideoSource]: ...
