"""One decode, several streams of frames: choosing, resizing and timing, the same for every backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from vlprep.errors import SettingsError
from vlprep.media.video.backends import DEFAULT_BACKEND, load_backend
from vlprep.media.video.base import DecodeSummary, Frame, FrameStream, OpenSource, Tally, VideoInfo, VideoSource
from vlprep.media.video.pyav_source import open_pyav_at
from vlprep.media.video.resize import Resizer, chroma_sample
from vlprep.media.video.sampling import Clock, Sampler

if TYPE_CHECKING:
    from av import VideoFrame


@dataclass(frozen=True, slots=True)
class _Shown:
    """A source frame and when it begins to be shown."""

    image: VideoFrame
    number: int
    ticks: int


class _StreamState:
    """What one stream needs to go from source frames to its own."""

    def __init__(self, path: Path, position: int, stream: FrameStream, source: VideoSource, first: int) -> None:
        """Outputs before number `first` are not made."""
        chroma = chroma_sample(source.info.pixel_format, source.info.rotation)
        self.outputs = 0
        self._position = position
        self._fps = None if stream.fps is None else Fraction(stream.fps)
        self._sampler = None if self._fps is None else Sampler(self._fps, source.time_base)
        self._resize = Resizer(path, stream, turn=source.turn, chroma=chroma)
        self._time_base = source.time_base
        self._first = first

    def advance(self, held: _Shown | None, ticks: int) -> Iterator[Frame]:
        """The outputs that `held` shows, now that it is shown until `ticks`. Without one the stream begins there."""
        if self._sampler is not None:
            run = self._sampler.until(ticks)
            run = range(max(run.start, self._first), run.stop)
        else:
            run = range(held.number, held.number + 1) if held else range(0)
        if held is None or not run:
            return
        pixels = self._resize(held.image)
        time = float(held.ticks * self._time_base)
        for index in run:
            self.outputs += 1
            nominal = time if self._fps is None else float(index / self._fps)
            yield Frame(self._position, index, nominal, time, held.number, pixels)


class Decoding:
    """One pass over an open video: iterate it once, to its end; then `summary` is there."""

    def __init__(
        self,
        path: Path,
        source: VideoSource,
        streams: Sequence[FrameStream],
        tally: Tally,
        window: range | None = None,
    ) -> None:
        self.info = source.info
        self._window = window
        self._source = source
        self._tally = tally
        self._clock = Clock(source.time_base, source.origin, source.frame_ticks, tally)
        first = window.start if window else 0
        self._streams = [_StreamState(path, position, stream, source, first) for position, stream in enumerate(streams)]

    def __iter__(self) -> Iterator[Frame]:
        return self._frames() if self._window is None else islice(self._frames(), len(self._window))

    def _frames(self) -> Iterator[Frame]:
        held: _Shown | None = None
        for number, image in enumerate(self._source.frames()):
            ticks = self._clock.ticks(image.pts, image.duration)
            for stream in self._streams:
                yield from stream.advance(held, ticks)
            held = _Shown(image, number, ticks)
        if held is not None and self._clock.end is not None:
            for stream in self._streams:
                yield from stream.advance(held, self._clock.end)

    @property
    def summary(self) -> DecodeSummary:
        """How it went, as far as it went."""
        end = (self._clock.end or 0) * self._source.time_base
        return DecodeSummary(
            frames=self._tally.frames,
            errors=self._tally.errors,
            corrupt=self._tally.corrupt,
            outputs=tuple(stream.outputs for stream in self._streams),
            end=float(end),
        )


@contextmanager
def open_video(
    path: Path,
    streams: Sequence[FrameStream],
    *,
    backend: str | OpenSource = DEFAULT_BACKEND,
    beat: Callable[[], None] | None = None,
) -> Iterator[Decoding]:
    """Open a video for one pass that feeds all `streams`, in this process (stages use `DecoderPool`).

    `beat` is called after each packet, as a sign of life. Frames of all streams come interleaved, each stream's in the
    order of time; memory holds two source frames. Raises ItemError where the file cannot be used, now or in iteration.
    """
    if not streams:
        raise SettingsError("no stream of frames was asked for")
    tally = Tally() if beat is None else Tally(beat=beat)
    opener = load_backend(backend) if isinstance(backend, str) else backend
    with opener(path, tally) as source:
        yield Decoding(path, source, streams, tally)


@contextmanager
def open_window(
    path: Path, stream: FrameStream, window: range, *, beat: Callable[[], None] | None = None
) -> Iterator[Decoding]:
    """Open a video for the frames of `stream` with these numbers, beginning at the keyframe before them.

    They are the frames that `open_video` gives the same numbers, byte for byte, except where damage before them puts
    the clock of the whole file right; fewer at the ends of the file. PyAV only. Raises ItemError as `open_video` does.
    """
    if stream.fps is None:
        raise SettingsError("a window is counted in frames of a constant rate: give the stream's fps")
    tally = Tally() if beat is None else Tally(beat=beat)
    with open_pyav_at(path, tally, window.start / Fraction(stream.fps)) as source:
        yield Decoding(path, source, (stream,), tally, window)


def probe(path: Path, *, backend: str | OpenSource = DEFAULT_BACKEND) -> VideoInfo:
    """What the file says of its video; decodes one frame, so that a file without any raises ItemError."""
    with open_video(path, (FrameStream(),), backend=backend) as decoding:
        return decoding.info
