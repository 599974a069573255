"""The parent's side of one decoding process: start it, give it a video, listen with a watchdog, kill it."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import pickle
import select
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlprep.errors import ItemError, SettingsError, VlprepError
from vlprep.media.video.base import DecodeSummary, Frame, FrameStream, VideoInfo
from vlprep.media.video.wire import BLOCK_BYTES, BLOCKS, HEAD, Kind, parse_frames

STARTUP_S = 120.0
MAX_BODY = 1 << 24
KINDS = frozenset(Kind)
LAST_WORDS_BYTES = 2000

Word = VideoInfo | Frame | DecodeSummary | ItemError
"""What is told of a video: what it is, then frames, at the end a summary; or at any time why it cannot be used."""


class LostProcessError(Exception):
    """The process hung, died or sent nonsense, and is dead now; the message is the predicate of a sentence about it."""


class DecoderProcess:
    """One process, for one video after another. Not thread-safe, but `kill` may be called from any thread."""

    def __init__(self, backend: str) -> None:
        """Start it and wait until it has loaded the backend. Raises VlprepError where that fails."""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        memory_fd = _nameless_memory(BLOCKS * BLOCK_BYTES)
        self._memory = mmap.mmap(memory_fd, 0)
        freed_fd, self._free_blocks = os.pipe()
        try:
            self._process = subprocess.Popen(
                # A fresh interpreter rather than multiprocessing's spawn, which would import the caller's main module
                # and torch with it, and is forbidden to daemons. -P: no modules from the current folder.
                [sys.executable, "-P", "-m", "vlprep.media.video.worker", backend, str(memory_fd), str(freed_fd)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                pass_fds=(memory_fd, freed_fd),
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            )
        finally:
            os.close(memory_fd)
            os.close(freed_fd)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._jobs, self._messages = self._process.stdin, self._process.stdout
        self._readable = select.poll()
        self._readable.register(self._messages, select.POLLIN)
        self._wait_until_ready(backend)

    @property
    def alive(self) -> bool:
        """Whether it could take a job. One that waits has nothing to say: what can be read now is its end."""
        return self._process.poll() is None and not self._readable.poll(0)

    def decode(
        self, path: Path, streams: Sequence[FrameStream], *, timeout: float, window: range | None = None
    ) -> Iterator[Word]:
        """All that there is to tell of a video; the last word is a DecodeSummary or an ItemError.

        With a `window` only the frames of the one stream with these numbers, see `decode.open_window`.
        Raises LostProcessError, at the latest after `timeout` seconds without a sign of life.
        """
        try:
            self._jobs.write(pickle.dumps((path, tuple(streams), window)))
        except BrokenPipeError:
            raise LostProcessError(self._how_it_ended()) from None
        while True:
            kind, body = self._receive(timeout)
            if kind is Kind.BEAT:
                continue
            try:
                words = list(self._words(kind, body))
            except (ValueError, TypeError, KeyError, struct.error) as error:
                self.kill()
                raise LostProcessError(f"sent nonsense ({error}) and was killed") from error
            yield from words
            if kind in (Kind.FINISHED, Kind.FAILED):
                return

    def kill(self) -> None:
        """End the process now. Harmless when it has ended."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill it and give everything back."""
        self.kill()
        self._jobs.close()
        self._messages.close()
        self._stderr.close()
        self._memory.close()
        os.close(self._free_blocks)

    def _wait_until_ready(self, backend: str) -> None:
        try:
            kind, body = self._receive(STARTUP_S)
        except LostProcessError as lost:
            self.close()
            raise VlprepError(f"a process for the decoder {backend!r} cannot be started: it {lost}") from lost
        if kind is Kind.UNUSABLE:
            self.close()
            raise SettingsError(json.loads(bytes(body)))

    def _words(self, kind: Kind, body: memoryview) -> Iterator[Word]:
        if kind is Kind.FRAMES:
            yield from parse_frames(body, self._memory, self._free_blocks)
            return
        content = json.loads(bytes(body))
        if kind is Kind.OPENED:
            yield VideoInfo(**content)
        elif kind is Kind.FINISHED:
            yield DecodeSummary(**content | {"outputs": tuple(content["outputs"])})
        else:
            yield ItemError(content)

    def _receive(self, timeout: float) -> tuple[Kind, memoryview]:
        kind, length = HEAD.unpack(self._read(HEAD.size, timeout))
        if kind not in KINDS or length > MAX_BODY:
            self.kill()
            raise LostProcessError(f"sent nonsense (a message {kind} of {length} bytes) and was killed")
        return Kind(kind), self._read(length, timeout)

    def _read(self, size: int, timeout: float) -> memoryview:
        body = rest = memoryview(bytearray(size))
        while rest:
            if not self._readable.poll(timeout * 1000):
                self.kill()
                raise LostProcessError(f"gave no sign of life for {timeout:g} s and was killed")
            got = os.readv(self._messages.fileno(), [rest])
            if not got:
                raise LostProcessError(self._how_it_ended())
            rest = rest[got:]
        return body

    def _how_it_ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self.kill()
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
        last_words = self._stderr.read().decode(errors="replace").strip().splitlines()[-1:]
        code = self._process.returncode
        return ": ".join([f"was ended by signal {-code}" if code < 0 else f"ended with code {code}", *last_words])


def _nameless_memory(size: int) -> int:
    """A file descriptor of memory that vanishes with the last process that has it open, however that ends."""
    if sys.platform == "linux":
        fd = os.memfd_create("vlprep-frames")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
