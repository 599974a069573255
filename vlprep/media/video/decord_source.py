"""decord as a backend, for features that must match ones made with it. PyAV is better in every measured respect.

decord (0.6, unmaintained since 2022, libav of 2018) is only ever read from start to end here: it returns wrong frames
without a word when it seeks in files with edit lists, open GOPs, AVI, ASF or MPEG-TS, and in MPEG-TS even in order.
Such files are refused, and so are codecs on which nobody compared it (AV1 it cannot read at all). It decodes ahead
without bound: a consumer slower than the decoder makes it hold a whole video in memory. It stops at the first damage.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import decord
import numpy as np
from decord._ffi.base import DECORDError
from numpy.typing import NDArray

from vlprep.errors import ItemError
from vlprep.media.video.base import Tally
from vlprep.media.video.rgb_source import USE_PYAV, PacketTable, RgbSource, read_packets

CONTAINERS = ("mov", "matroska", "flv")
CODECS = ("h264", "hevc", "vp8", "vp9")


@contextmanager
def open_decord(path: Path, tally: Tally) -> Iterator[RgbSource]:
    """Open a file that decord reads correctly. Raises ItemError for any other."""
    table = read_packets(path, tally)
    if why := _known_to_lie(table):
        raise ItemError(f"{path}: decord gives wrong frames or none for {why}; {USE_PYAV}")
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
    except (RuntimeError, DECORDError) as error:
        raise ItemError(f"{path}: decord cannot open it ({_first_line(error)}); {USE_PYAV}") from error
    yield RgbSource(path, table, _pictures(path, reader), len(reader), tally)


def _known_to_lie(table: PacketTable) -> str | None:
    if table.damage:
        return f"damaged files ({table.damage})"
    if table.container.split(",")[0] not in CONTAINERS:
        return f"the container {table.container}"
    if table.codec not in CODECS:
        return f"the codec {table.codec}"
    if table.hidden:
        return "edit lists"
    return "open GOPs" if table.open_gop else None


def _pictures(path: Path, reader: Any) -> Iterator[NDArray[np.uint8]]:
    try:
        for _ in range(len(reader)):
            yield reader.next().asnumpy()
    except (DECORDError, StopIteration) as error:
        raise ItemError(f"{path}: decord stops at damage ({_first_line(error)}); {USE_PYAV}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or ["end of file"])[0]
