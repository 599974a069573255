"""What decoders that give bare RGB pictures share: times from the file's packets, and a guard against wrong frames.

Such a decoder says neither how it counts frames nor when it lost one. So the file is first read through without
decoding (cheap): the packets say which frames are shown and when, and whether the file is of a kind on which the
decoder is known to be wrong. Pictures and packets must then agree in number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from vlprep.errors import ItemError
from vlprep.media.video.base import Tally
from vlprep.media.video.pyav_source import open_container, open_pyav, video_stream

USE_PYAV = "use the decoder 'pyav'"


@dataclass(frozen=True, slots=True)
class PacketTable:
    """What the packets of a file promise."""

    container: str
    codec: str
    stamps: tuple[tuple[int, int], ...]
    """(pts, duration) in ticks of the frames that are shown, in order of presentation."""
    hidden: int
    """Packets that an edit list hides."""
    open_gop: bool
    """Whether frames before a key frame follow it in the file."""
    damage: str | None
    """Why the packets cannot be trusted."""


def read_packets(path: Path, tally: Tally) -> PacketTable:
    """Read a file from start to end without decoding it. Raises ItemError where it is not a video."""
    stamps: list[tuple[int, int]] = []
    hidden, open_gop, damage, key_pts = 0, False, None, None
    with open_container(path) as container:
        stream = video_stream(path, container)
        try:
            for packet in container.demux(stream):
                tally.beat()
                if packet.size == 0:
                    continue
                if packet.pts is None or packet.is_corrupt:
                    damage = "packets without time stamps" if packet.pts is None else "corrupt packets"
                    continue
                hidden += packet.is_discard
                if packet.is_keyframe:
                    key_pts = packet.pts
                open_gop |= key_pts is None or packet.pts < key_pts
                if not packet.is_discard:
                    stamps.append((packet.pts, packet.duration or 0))
        except FFmpegError as error:
            damage = error.strerror
        return PacketTable(
            container.format.name, stream.codec_context.name, tuple(sorted(stamps)), hidden, open_gop, damage
        )


class RgbSource:
    """A VideoSource over pictures (height, width, 3) that another library decoded and turned upright."""

    turn = 0

    def __init__(
        self, path: Path, table: PacketTable, pictures: Iterator[NDArray[np.uint8]], count: int, tally: Tally
    ) -> None:
        if count != len(table.stamps):
            raise ItemError(f"{path}: {count} frames by the decoder, {len(table.stamps)} by its packets; {USE_PYAV}")
        with open_pyav(path, Tally()) as header:
            self.info = header.info
            self.time_base = header.time_base
            self.origin = header.origin
            self.frame_ticks = header.frame_ticks
        self._pictures = pictures
        self._table = table
        self._tally = tally

    def frames(self) -> Iterator[av.VideoFrame]:
        """Every frame, with the time that the packets give it."""
        for picture, (pts, duration) in zip(self._pictures, self._table.stamps, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.duration, frame.time_base = pts, duration, self.time_base
            self._tally.frames += 1
            self._tally.beat()
            yield frame
