"""The default backend: PyAV, one thread, packet by packet, so that damage loses only the frames that it hits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from vlprep.errors import ItemError
from vlprep.media.video.base import Tally, VideoInfo
from vlprep.media.video.resize import upright

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,asf,ogg"
"""What libavformat may take a file for: no playlists and no texts, which could make it open other files."""
MAX_PIXELS = 1 << 26
"""8192 x 8192; a header that says more is lying, and believing it costs gigabytes."""
MAX_READ_ERRORS = 64
"""Failures to read in a row after which the rest of the file is given up."""
SHORT_BY_S = 1.0
"""A video that ends this much (and 2 %) before the end that its own track promises has lost its tail."""
MATROSKA_DURATION = re.compile(r"(\d+):(\d+):(\d+\.?\d*)")
"""The tag by which Matroska files tell the end of each track: 00:00:10.333000000."""

_EARLIER_S = (0, 2, 10, 30)
"""Where to look for a keyframe before some time: so many seconds earlier, until one is found."""


@contextmanager
def open_container(path: Path) -> Iterator[Any]:
    """The file as libavformat sees it, restricted to local video containers. Raises ItemError."""
    try:
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS})
    except (FFmpegError, OSError) as error:
        reason = error.strerror or error
        raise ItemError(f"{path}: cannot be opened as a video ({reason}); fetch it again or remove it") from error
    with container:
        yield container


def video_stream(path: Path, container: Any) -> Any:
    """The stream that is a video: not a cover picture, not of an absurd size. Raises ItemError."""
    stream = container.streams.best("video")
    if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
        kinds = ", ".join(stream.type for stream in container.streams) or "an empty header"
        raise ItemError(f"{path}: has no video, only {kinds}")
    if stream.codec_context is None:
        raise ItemError(f"{path}: its codec is unknown to this build of PyAV, or its header is damaged")
    if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
        size = f"{stream.codec_context.width}x{stream.codec_context.height}"
        raise ItemError(f"{path}: its header says {size} pixels, more than any real video has")
    return stream


def start_tick(container: Any, time_base: Fraction) -> int:
    """Where the file starts, in ticks. A negative start is the priming of an audio codec, not the start of anything."""
    return round(Fraction(max(0, container.start_time or 0), av.time_base) / time_base)


class PyAvSource:
    """An opened file. See `VideoSource`."""

    def __init__(self, path: Path, container: Any, tally: Tally, seconds: Fraction | None = None) -> None:
        """Reads from the start, or from the keyframe that the container's index has before `seconds`."""
        self._container = container
        self._tally = tally
        self._stream = video_stream(path, container)
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        self.time_base: Fraction = self._stream.time_base
        self.origin = start_tick(container, self.time_base)
        rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self.frame_ticks = max(1, round(1 / (rate * self.time_base)))
        frames = self._decoded()
        if seconds is not None:
            ticks = self.origin + int(seconds / self.time_base)
            container.seek(ticks, stream=self._stream, backward=True)
        first = next(frames, None)
        if first is None:
            raise ItemError(f"{path}: not one frame of its video can be decoded; fetch it again or remove it")
        self._frames = chain((first,), frames)
        self.first_time = None if first.pts is None else (first.pts - self.origin) * self.time_base
        """When the first frame is shown, seconds."""
        self.turn = -round(first.rotation / 90) * 90 % 360
        self.info = self._info(first, float(rate))

    def frames(self) -> Iterator[av.VideoFrame]:
        """Every frame that can be decoded, in the order of presentation."""
        end = None
        for frame in self._frames:
            self._tally.frames += 1
            self._tally.corrupt += frame.is_corrupt
            if frame.pts is not None:
                end = frame.pts + frame.duration
            yield frame
        if end is not None and self._is_short(end):
            self._tally.errors += 1

    def _packets(self) -> Iterator[Any]:
        failures = 0
        while failures < MAX_READ_ERRORS:
            try:
                for packet in self._container.demux(self._stream):
                    failures = 0
                    yield packet
                return
            except FFmpegError:
                self._tally.errors += failures == 0
                failures += 1

    def _decoded(self) -> Iterator[av.VideoFrame]:
        for packet in self._packets():
            self._tally.beat()
            try:
                frames = packet.decode()
            except FFmpegError:
                self._tally.errors += 1
                continue
            for frame in frames:
                if frame.pts is None:
                    frame.pts = frame.dts
                yield frame

    def _info(self, first: av.VideoFrame, rate: float) -> VideoInfo:
        stream, container = self._stream, self._container
        width, height = upright(first.width, first.height, self.turn)
        start = 0 if first.pts is None else first.pts - self.origin
        duration = container.duration / av.time_base if container.duration else (stream.duration or 0) * self.time_base
        return VideoInfo(
            duration=float(duration) if duration > 0 else None,
            fps=rate,
            width=width,
            height=height,
            rotation=self.turn,
            start_time=float(start * self.time_base),
            frames=stream.frames or None,
            codec=stream.codec_context.name,
            container=container.format.name,
            pixel_format=first.format.name,
        )

    def _is_short(self, end: int) -> bool:
        """Whether the file promised more: the only trace of one that was cut exactly between two packets."""
        promised = self._promised_end()
        return promised is not None and promised - float(end * self.time_base) > max(SHORT_BY_S, 0.02 * promised)

    def _promised_end(self) -> float | None:
        """Seconds on the stream's own clock."""
        if self._stream.duration:
            return float((self._stream.duration + (self._stream.start_time or 0)) * self.time_base)
        if tag := MATROSKA_DURATION.fullmatch(self._stream.metadata.get("DURATION", "")):
            hours, minutes, seconds = map(float, tag.groups())
            return hours * 3600 + minutes * 60 + seconds
        if len(self._container.streams) == 1 and self._container.duration:
            return float(self._container.duration / av.time_base)
        return None


@contextmanager
def open_pyav(path: Path, tally: Tally) -> Iterator[PyAvSource]:
    """Open a file for reading from its start to its end."""
    with open_container(path) as container:
        yield PyAvSource(path, container, tally)


@contextmanager
def open_pyav_at(path: Path, tally: Tally, seconds: Fraction) -> Iterator[PyAvSource]:
    """Open a file for reading from a keyframe that is shown no later than `seconds`, or from its start.

    An index is in the order of decoding, may lie, and may lack: so the frame that is found is looked at.
    """
    for earlier in _EARLIER_S:
        if seconds <= earlier:
            break
        with open_container(path) as container:
            source = _from_keyframe(path, container, tally, seconds - earlier)
            if source is not None and source.first_time is not None and source.first_time <= seconds:
                yield source
                return
    with open_pyav(path, tally) as source:
        yield source


def _from_keyframe(path: Path, container: Any, tally: Tally, seconds: Fraction) -> PyAvSource | None:
    """None where there is no way to jump there."""
    try:
        return PyAvSource(path, container, tally, seconds)
    except (FFmpegError, ItemError):
        return None
