"""A decoder that misbehaves as the name of the file says, for tests of what stands around decoders."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlprep.errors import ItemError
from vlprep.media.video.base import Tally, VideoSource
from vlprep.media.video.pyav_source import open_pyav

BACKEND = f"{__name__}:open_as_named"


@contextmanager
def open_as_named(path: Path, tally: Tally) -> Iterator[VideoSource]:
    """`hang…`, `kill…`, `bug…`, `slow…`, `modules…`, `print…`; any other name is decoded by PyAV."""
    deed = path.name
    if deed.startswith("modules"):
        raise ItemError(" ".join(sorted(sys.modules)))
    if deed.startswith("print"):
        print("x" * 10_000, flush=True)
        os.write(1, b"y" * 10_000)
    if deed.startswith("bug"):
        raise KeyError("a bug in a decoder")
    with open_pyav(path, tally) as source:
        if deed.startswith(("hang", "kill", "slow")):
            frames = source.frames

            def troubled() -> Iterator[object]:
                for number, frame in enumerate(frames()):
                    if number == 20 and deed.startswith("hang"):
                        time.sleep(1000)
                    if number == 20 and deed.startswith("kill"):
                        os.kill(os.getpid(), signal.SIGKILL)
                    if number < 20 and deed.startswith("slow"):
                        time.sleep(0.25)
                        tally.beat()
                    yield frame

            source.frames = troubled  # type: ignore[method-assign]
        yield source
