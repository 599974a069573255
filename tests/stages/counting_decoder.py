"""PyAV, with a line in `$DECODES` for each file that it opens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlprep.media.video.base import Tally, VideoSource
from vlprep.media.video.pyav_source import open_pyav

BACKEND = f"{__name__}:open_counted"


@contextmanager
def open_counted(path: Path, tally: Tally) -> Iterator[VideoSource]:
    with open(os.environ["DECODES"], "a") as log:
        log.write(f"{path.name}\n")
    with open_pyav(path, tally) as source:
        yield source
