"""torchcodec as a backend. It imports torch (the only backend that does) and needs an ffmpeg 4 to 8 on the system.

Exact in every container tried except AVI and MPEG-TS, which are refused (torchcodec 0.17). It stops at damage.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlprep.errors import ItemError, MissingDependencyError
from vlprep.media.video.base import Tally
from vlprep.media.video.rgb_source import USE_PYAV, RgbSource, read_packets

try:
    from torchcodec.decoders import VideoDecoder
except (ImportError, RuntimeError) as error:
    raise MissingDependencyError(
        "decoder 'torchcodec' cannot load its library or the system's ffmpeg: "
        "pip install torchcodec, and install ffmpeg 4 to 8 by the system's package manager"
    ) from error

CONTAINERS = ("mov", "matroska", "flv")


@contextmanager
def open_torchcodec(path: Path, tally: Tally) -> Iterator[RgbSource]:
    """Open a file that torchcodec reads correctly. Raises ItemError for any other."""
    table = read_packets(path, tally)
    if table.damage:
        raise ItemError(f"{path}: torchcodec stops at damage ({table.damage}); {USE_PYAV}")
    if table.container.split(",")[0] not in CONTAINERS:
        raise ItemError(f"{path}: torchcodec gives wrong frames for the container {table.container}; {USE_PYAV}")
    try:
        decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
    except (RuntimeError, ValueError) as error:
        raise ItemError(f"{path}: torchcodec cannot open it ({error}); {USE_PYAV}") from error
    yield RgbSource(path, table, _pictures(path, decoder), len(decoder), tally)


def _pictures(path: Path, decoder: Any) -> Iterator[NDArray[np.uint8]]:
    try:
        for index in range(len(decoder)):
            yield decoder[index].numpy()
    except RuntimeError as error:
        raise ItemError(f"{path}: torchcodec stops at damage ({error}); {USE_PYAV}") from error
