"""The language of a decoding process: messages through a pipe, pixels through shared memory.

A message is a kind (1 byte), the length of its body (4 bytes, little-endian) and the body: JSON, or for frames their
packed headers. Pixels lie one frame after another in a block of memory that both processes see. The decoding process
fills a block, names it in a message and takes another; its parent copies the block and gives it back through a second
pipe. (Measured at 224 x 224: 0.1 ms a frame for both processes together, where pixels in the pipe cost 0.5 ms.)
Nothing that comes back is unpickled: the process has been reading other people's files.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum
from mmap import mmap
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vlprep.media.video.base import MAX_OUTPUT_PIXELS, Frame

HEAD = struct.Struct("<BI")
_BLOCK = struct.Struct("<B")
_FRAME = struct.Struct("<HqddqHH")
"""stream, index, nominal, time, source, height, width"""

BLOCKS = 3
BLOCK_BYTES = 3 * MAX_OUTPUT_PIXELS
BEAT_S = 1.0
"""A parent that is kept waiting hears something this often while packets are still being read."""


class Kind(IntEnum):
    """What a message says."""

    READY = 1
    """The backend is loaded; jobs may come."""
    UNUSABLE = 2
    """The backend cannot be loaded at all."""
    OPENED = 3
    FRAMES = 4
    BEAT = 5
    """Still reading, but there is no frame to show for it."""
    FINISHED = 6
    FAILED = 7


class Sender:
    """The decoding side."""

    def __init__(self, out: BinaryIO, memory: mmap, free_blocks: int) -> None:
        """`free_blocks`: file descriptor from which numbers of free blocks can be read, a byte each."""
        self._out = out
        self._memory: NDArray[np.uint8] = np.frombuffer(memory, np.uint8).reshape(BLOCKS, BLOCK_BYTES)
        self._free_fd = free_blocks
        self._free = list(range(BLOCKS))
        self._headers: list[bytes] = []
        self._used = 0
        self._last = time.monotonic()

    def say(self, kind: Kind, body: Any = None) -> None:
        """Send a message with a JSON body, after all frames so far."""
        self.flush()
        self._write(kind, json.dumps(body).encode())

    def beat(self) -> None:
        """Called often; says something where nothing has been said for a while."""
        if time.monotonic() - self._last > BEAT_S:
            if self._headers:
                self.flush()
            else:
                self._write(Kind.BEAT, b"")

    def frame(self, frame: Frame) -> None:
        """Queue a frame; it is sent with others, when its block is full or by `beat`."""
        pixels = frame.pixels.reshape(-1)
        if self._used + pixels.size > BLOCK_BYTES:
            self.flush()
        if not self._free:
            self._free.extend(os.read(self._free_fd, BLOCKS))
        self._memory[self._free[0], self._used : self._used + pixels.size] = pixels
        self._used += pixels.size
        height, width, _ = frame.pixels.shape
        self._headers.append(
            _FRAME.pack(frame.stream, frame.index, frame.nominal, frame.time, frame.source, height, width)
        )

    def flush(self) -> None:
        """Send the queued frames."""
        if self._headers:
            self._write(Kind.FRAMES, b"".join([_BLOCK.pack(self._free.pop(0)), *self._headers]))
            self._headers.clear()
            self._used = 0

    def _write(self, kind: Kind, body: bytes) -> None:
        self._out.write(HEAD.pack(kind, len(body)) + body)
        self._out.flush()
        self._last = time.monotonic()


def parse_frames(body: memoryview, memory: mmap, free_blocks: int) -> Iterator[Frame]:
    """The frames of a message. Copies their pixels and gives the block back before the first comes out.

    Raises ValueError where the message makes no sense.
    """
    (block,) = _BLOCK.unpack_from(body)
    headers = list(_FRAME.iter_unpack(body[_BLOCK.size :]))
    used = sum(height * width * 3 for *_, height, width in headers)
    if block >= BLOCKS or used > BLOCK_BYTES:
        raise ValueError("frames outside of their memory")
    pixels = np.frombuffer(memory, np.uint8, used, block * BLOCK_BYTES).copy()
    pixels.setflags(write=False)
    with suppress(BrokenPipeError):  # it has died since; its frames are good
        os.write(free_blocks, _BLOCK.pack(block))
    end = 0
    for stream, index, nominal, time_s, source, height, width in headers:
        begin, end = end, end + height * width * 3
        yield Frame(stream, index, nominal, time_s, source, pixels[begin:end].reshape(height, width, 3))
