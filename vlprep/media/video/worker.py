"""A decoding process: jobs come through standard input, messages go through standard output; it may be killed.

Run by `DecoderProcess` as `python -m vlprep.media.video.worker BACKEND MEMORY FREE`, file descriptors of the shared
memory and of the pipe that gives its blocks back. Imports no torch (unless by a backend).
"""

from __future__ import annotations

import mmap
import os
import pickle
import select
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from vlprep.errors import ItemError, SettingsError
from vlprep.media.video.backends import load_backend
from vlprep.media.video.base import FrameStream, OpenSource
from vlprep.media.video.decode import open_video, open_window
from vlprep.media.video.wire import Kind, Sender


def serve(backend: str, jobs: BinaryIO, sender: Sender) -> None:
    """Decode one video after another until there are no more jobs. Any error but ItemError ends the process."""
    try:
        opener = load_backend(backend)
    except SettingsError as error:
        sender.say(Kind.UNUSABLE, str(error))
        return
    sender.say(Kind.READY)
    while True:
        try:
            path, streams, window = pickle.load(jobs)
        except EOFError:
            return
        try:
            _decode(path, streams, window, opener, sender)
        except ItemError as error:
            sender.say(Kind.FAILED, str(error))


def _decode(
    path: Path, streams: Sequence[FrameStream], window: range | None, opener: OpenSource, sender: Sender
) -> None:
    if window is None:
        opened = open_video(path, streams, backend=opener, beat=sender.beat)
    else:
        opened = open_window(path, streams[0], window, beat=sender.beat)
    with opened as decoding:
        sender.say(Kind.OPENED, asdict(decoding.info))
        for frame in decoding:
            sender.frame(frame)
        sender.say(Kind.FINISHED, asdict(decoding.summary))


def _die_with_parent() -> None:
    """Only the parent holds the other end of standard input, so a hang-up there is its end."""
    hangup = select.poll()
    hangup.register(sys.stdin.fileno(), select.POLLHUP)
    hangup.poll()
    os._exit(0)


def main() -> None:
    """Set up the pipes, then serve."""
    backend, memory, free_blocks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not get between messages
    serve(backend, sys.stdin.buffer, Sender(out, mmap.mmap(memory, 0), free_blocks))


if __name__ == "__main__":
    main()
