"""Videos decoded in processes of their own: a hang or a crash costs one video, never the run.

Each process decodes in one thread; a thread here listens to it, and all of them fill one buffer of bounded size, so
decoding runs several videos ahead of the network and then waits. Processes are started from scratch (never forked), see
the end of their parent and end with it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from vlprep.errors import ItemError, SettingsError, VlprepError
from vlprep.media.video.backends import DEFAULT_BACKEND, require_backend
from vlprep.media.video.base import Frame, FrameStream
from vlprep.media.video.buffer import Buffer, BufferClosedError
from vlprep.media.video.process import DecoderProcess, LostProcessError, Word
from vlprep.media.video.turns import Turns

DEFAULT_TIMEOUT_S = 60.0
DEFAULT_BUFFER_BYTES = 256 << 20
DEFAULT_LEAD = 32

Event = tuple[str, Word]
"""The name of a video and a word about it."""


class DecoderPool:
    """Keeps its decoding processes through many calls of `decode`. A context manager; one `decode` at a time."""

    def __init__(
        self,
        *,
        processes: int = 1,
        backend: str = DEFAULT_BACKEND,
        timeout: float = DEFAULT_TIMEOUT_S,
        buffer_bytes: int = DEFAULT_BUFFER_BYTES,
    ) -> None:
        """`timeout`: seconds without a sign of life after which a process is killed and its video has failed.

        `buffer_bytes`: pixels decoded ahead, all processes together (each has 36 MiB more in shared memory).
        Raises SettingsError for a backend that does not exist.
        """
        if processes < 1:
            raise SettingsError(f"processes={processes}: decoding needs at least one")
        require_backend(backend)
        self._processes = processes
        self._backend = backend
        self._timeout = timeout
        self._buffer_bytes = buffer_bytes
        self._idle: deque[DecoderProcess] = deque()
        self._busy: set[DecoderProcess] = set()
        self._threads: list[threading.Thread] = []
        self._buffer: Buffer[Event] | None = None
        self._turns: Turns | None = None

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, and with them a `decode` that is not finished."""
        self._stop()
        while self._idle:
            self._idle.pop().close()

    def decode(
        self, videos: Sequence[tuple[str, Path]], streams: Sequence[FrameStream], *, lead: int = DEFAULT_LEAD
    ) -> Generator[Event, None, None]:
        """Decode each video (name, path) once for all `streams`, and tell of it as it goes; several videos interleave.

        Of each video: a VideoInfo if it can be opened, then Frames (each stream's in order of time), and as the last
        word a DecodeSummary or, perhaps after frames, an ItemError. Leaving the iterator early kills what is being
        decoded. None is begun that is `lead` or more places after one that is unfinished. Raises VlprepError where
        decoding processes cannot be started at all.
        """
        if self._threads:
            raise RuntimeError("this pool is decoding already; finish or close that iterator first")
        workers = min(self._processes, len(videos))
        self._buffer = Buffer(self._buffer_bytes, producers=workers)
        self._turns = Turns(videos, lead)
        arguments = (self._turns, tuple(streams), self._buffer)
        self._threads = [threading.Thread(target=self._produce, args=arguments, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()
        try:
            yield from self._buffer
        finally:
            self._stop()

    def _stop(self) -> None:
        if self._buffer is not None and self._turns is not None:
            self._buffer.close()
            self._turns.close()
        for thread in self._threads:
            while thread.is_alive():
                for process in tuple(self._busy):  # again each time: one may have been starting
                    process.kill()
                thread.join(0.1)
        self._threads = []

    def _produce(self, videos: Turns, streams: tuple[FrameStream, ...], buffer: Buffer[Event]) -> None:
        failure: VlprepError | None = VlprepError("a decoding thread ended unexpectedly; this is a bug in vlprep")
        try:
            for video, path in videos:
                try:
                    with self._process() as process:
                        for word in process.decode(path, streams, timeout=self._timeout):
                            buffer.put((video, word), word.pixels.nbytes if isinstance(word, Frame) else 0)
                except LostProcessError as lost:
                    buffer.put((video, ItemError(f"{path}: its decoding process {lost}")))
            failure = None
        except BufferClosedError:
            failure = None
        except VlprepError as error:
            failure = error
        finally:
            buffer.leave(failure)

    @contextmanager
    def _process(self) -> Iterator[DecoderProcess]:
        """A living process for one video; it is kept for the next one only where all went well."""
        process = self._take()
        self._busy.add(process)
        try:
            yield process
        except BaseException:
            process.close()
            raise
        else:
            self._idle.append(process)
        finally:
            self._busy.discard(process)

    def _take(self) -> DecoderProcess:
        while True:
            try:
                process = self._idle.pop()
            except IndexError:
                return DecoderProcess(self._backend)
            if process.alive:
                return process
            process.close()
