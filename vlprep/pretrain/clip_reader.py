"""Clips decoded while training: a window of a video file, cut, scaled and turned as MIL-NCE's loader does it.

MIL-NCE_HowTo100M@b282b15 video_loader.py:57-94: 16 frames at 5 a second that begin at a whole second of the segment;
the short side 256 and a random square of 224, or the largest square at a random place scaled to 224; mirrored every
other time. Deviations: a window that reaches beyond the end of the video begins earlier, and of a video shorter than a
clip the last frame is held, where the published loader appends black frames; what cannot be decoded raises `ItemError`
and is left out and counted, where it shows black clips or ends the training.

Decoding runs in a process beside each loader, so that a file that makes the decoder hang or crash costs that file only.
Shape suffixes: T frames, H, W pixels, 3 colours.
"""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlprep.errors import ItemError, SettingsError
from vlprep.media.video.base import DecodeSummary, Frame, FrameStream
from vlprep.media.video.process import DecoderProcess, LostProcessError
from vlprep.pretrain.narration import Span

_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSettings:
    """What a clip is."""

    fps: int = 5
    frames: int = 16
    side: int = 224
    """Pixels of a frame, which is square."""
    short_side: int = 256
    """To which a picture is scaled before the square is cut out."""
    crop: Literal["scaled", "square"] = "scaled"
    """`scaled`: cut out of the picture scaled to `short_side` (--crop_only 1, the default); `square`: the largest
    square, then scaled to `side` (--crop_only 0).
    """
    random_crop: bool = True
    random_flip: bool = True
    windows: int = 4
    """Clips of a segment, spread evenly, whose embeddings are averaged in evaluation (--num_windows_test)."""

    def __post_init__(self) -> None:
        if min(self.fps, self.frames, self.windows) < 1 or self.side < 32:
            raise SettingsError("clips: fps, frames and windows are at least 1, side at least 32")
        if self.crop == "scaled" and self.short_side < self.side:
            raise SettingsError(f"clips: short_side = {self.short_side} is below side = {self.side}, which is cut out")

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    def stream(self, place: tuple[float, float]) -> FrameStream:
        """What to ask of the decoder; `place` from 0 (left, top) to 1."""
        if self.crop == "square":
            return FrameStream(fps=self.fps, square_first=True, resize=(self.side, self.side), place=place)
        return FrameStream(fps=self.fps, resize=self.short_side, crop=self.side, place=place)


class ClipReader:
    """Reads clips; small to pickle. The decoding process starts when it is needed, one in each process that reads."""

    def __init__(self, settings: ClipSettings) -> None:
        self.settings = settings
        self._process: DecoderProcess | None = None
        self._owner = 0

    def __reduce__(self) -> tuple[type[ClipReader], tuple[ClipSettings]]:
        return ClipReader, (self.settings,)

    def random(self, path: Path, span: Span, draw: np.random.Generator) -> NDArray[np.uint8]:
        """(1, T, H, W, 3) a clip of the span at a random second, place and side, all drawn from `draw`."""
        settings = self.settings
        first, last = int(span[0]), int(max(int(span[0]), int(span[1]) - settings.seconds))
        second = int(draw.integers(first, last + 1))
        place = draw.random(2).tolist()
        mirrored = bool(draw.random() < 0.5) and settings.random_flip
        stream = settings.stream((place[0], place[1]) if settings.random_crop else (0.5, 0.5))
        clip_THW3 = self._read(path, stream, second * settings.fps)
        return np.ascontiguousarray(clip_THW3[:, :, ::-1] if mirrored else clip_THW3)[None]

    def spread(self, path: Path, span: Span) -> NDArray[np.uint8]:
        """(`windows`, T, H, W, 3) clips spread evenly over the span, of the centre (youtube_loader's evaluation)."""
        settings = self.settings
        last = max(span[0], span[1] - settings.seconds)
        seconds = np.linspace(span[0], last, settings.windows)
        stream = settings.stream((0.5, 0.5))
        return np.stack([self._read(path, stream, round(second * settings.fps)) for second in seconds.tolist()])

    def _read(self, path: Path, stream: FrameStream, first: int) -> NDArray[np.uint8]:
        """(T, H, W, 3) from frame number `first` of the stream."""
        wanted = self.settings.frames
        frames, summary = self._decode(path, stream, range(first, first + wanted))
        if len(frames) < wanted:
            end = int(summary.end * self.settings.fps)
            frames, _ = self._decode(path, stream, range(max(0, end - wanted), end + wanted))
        if not frames:
            raise ItemError(f"{path}: has no frame at {first / self.settings.fps:g} s nor before its end")
        last_ones = frames[-wanted:]
        return np.stack(last_ones + last_ones[-1:] * (wanted - len(last_ones)))

    def _decode(self, path: Path, stream: FrameStream, window: range) -> tuple[list[NDArray[np.uint8]], DecodeSummary]:
        frames: list[NDArray[np.uint8]] = []
        try:
            for word in self._decoder().decode(path, (stream,), timeout=_TIMEOUT_S, window=window):
                if isinstance(word, Frame):
                    frames.append(word.pixels)
                elif isinstance(word, ItemError):
                    raise word
                elif isinstance(word, DecodeSummary):
                    return frames, word
        except LostProcessError as lost:
            self.close()
            raise ItemError(f"{path}: its decoding process {lost}") from lost
        raise ItemError(f"{path}: its decoding ended without a summary")

    def _decoder(self) -> DecoderProcess:
        if self._process is None or self._owner != os.getpid():  # a forked loader must not talk to its parent's
            self._process, self._owner = DecoderProcess("pyav"), os.getpid()
            self._ending = weakref.finalize(self, _end, self._process, self._owner)
        return self._process

    def close(self) -> None:
        """End the decoding process; it starts again when it is needed. Done at the latest when the reader is gone."""
        if self._process is not None:
            self._ending()
            self._process = None


def _end(process: DecoderProcess, owner: int) -> None:
    if os.getpid() == owner:  # a forked loader's copy of the reader has none of its own
        process.close()
