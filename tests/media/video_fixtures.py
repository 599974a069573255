"""Videos made on the spot, each with a trait that decoders get wrong, and ways to damage them.

Every frame carries its number as a row of black and white bars, so that a test can say which frame it is looking at.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

BITS = 8
RATE = 25
FRAMES = 75


def picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """(height, width, 3): eight bars for the number over a ramp that moves with it."""
    image = np.empty((height, width, 3), np.uint8)
    image[...] = (np.arange(width)[None, :, None] * 2 + np.arange(height)[:, None, None] + number * 5) % 200 + 20
    image[..., 1] //= 2
    bars = np.repeat([255 * (number >> bit & 1) for bit in range(BITS)], width // BITS)
    image[: height // 2, : len(bars)] = bars[None, :, None]
    return image


def number_of(image: NDArray[np.uint8]) -> int:
    """The number that a decoded picture carries."""
    height, width, _ = image.shape
    bars = image[: height // 4, : width // BITS * BITS].mean((0, 2)).reshape(BITS, -1).mean(1)
    return int(sum(1 << bit for bit, level in enumerate(bars) if level > 127))


def write_video(
    path: Path,
    *,
    size: tuple[int, int] = (96, 64),
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, RATE),
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    rotation: int = 0,
    pixel_format: str = "yuv420p",
) -> Path:
    """Encode one numbered frame for each of `pts` (ticks of `time_base`); three seconds at 25 by default."""
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=RATE, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = time_base
        stream.thread_count = 1
        if rotation:
            stream.set_display_rotation(rotation)
        for number, ticks in enumerate(range(FRAMES) if pts is None else pts):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts, frame.time_base = ticks, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_apart(path: Path, **options: Any) -> Path:
    """`write_video` in a process of its own: SVT-AV1, run by root, makes the whole process real-time, and all that it
    starts from then on; two such processes that wait for each other by looking can hold two cores for ever.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(write_video, (path,), options)


def remux(source: Path, target: Path, *, shift: Fraction, keep: Callable[[int], bool] = lambda number: True) -> Path:
    """Copy packets with their times moved, as `ffmpeg -ss -c copy` does; `keep` picks packets by number."""
    with av.open(str(source)) as original, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(original.streams.video[0])
        for number, packet in enumerate(original.demux(video=0)):
            if packet.dts is None or not keep(number):
                continue
            ticks = round(shift / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts + ticks, packet.dts + ticks, stream
            container.mux(packet)
    return target


def write_audio(path: Path) -> Path:
    """A second of silence and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


X264_FEW_KEYS = {"preset": "ultrafast", "g": "25", "bf": "0"}


def healthy_videos(folder: Path) -> dict[str, Path]:
    """Files that are strange but not damaged."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = write_video(folder / "plain.mp4", options=X264_FEW_KEYS)
    b_frames = {"preset": "veryfast", "bf": "3", "g": "25", "x264-params": "b-adapt=0:scenecut=0"}
    open_gop = b_frames | {"x264-params": "b-adapt=0:scenecut=0:open-gop=1:keyint=12:min-keyint=12"}
    fast = {"preset": "ultrafast"}
    jittered = np.cumsum([40 + 37 * (number % 5 == 0) - 11 * (number % 3 == 0) for number in range(FRAMES)]).tolist()
    milli = Fraction(1, 1000)
    return {
        "plain": plain,
        "b-frames": write_video(folder / "b-frames.mp4", options=b_frames),
        "open-gop": write_video(folder / "open-gop.mp4", options=open_gop),
        "edit-list": remux(plain, folder / "edit-list.mp4", shift=Fraction(-10, RATE)),
        "late-start": write_video(folder / "late-start.mkv", pts=range(50, 50 + FRAMES), options=fast),
        "rotated-90": write_video(folder / "rotated-90.mp4", rotation=-90, options=fast),
        "rotated-180": write_video(folder / "rotated-180.mp4", rotation=180, options=fast),
        "rotated-270": write_video(folder / "rotated-270.mp4", rotation=90, options=fast),
        "variable-rate": write_video(folder / "variable-rate.mkv", pts=jittered, time_base=milli, options=fast),
        "odd-size": write_video(folder / "odd-size.mkv", size=(101, 67), codec="libvpx-vp9", options={"cpu-used": "8"}),
        "vp8": write_video(folder / "vp8.webm", codec="libvpx", options={"cpu-used": "8"}),
        "av1": write_apart(folder / "av1.mp4", codec="libsvtav1", options={"preset": "12"}),
        "4:4:4": write_video(folder / "444.mp4", pixel_format="yuv444p", options=fast),
        "avi": write_video(folder / "xvid.avi", codec="mpeg4", options={"bf": "2"}),
        "ts": write_video(folder / "stream.ts", options=open_gop),
        "quote'd name: #1": write_video(folder / "quote'd name: #1 %d.mp4", options=fast),
    }


def unusable_videos(folder: Path) -> dict[str, Path]:
    """Files of which nothing can be shown."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("This is not a video.\n" * 200)
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n")
    (folder / "concat.mp4").write_text("ffconcat version 1.0\nfile plain.mp4\n")
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    (folder / "folder.mp4").mkdir(exist_ok=True)
    plain = write_video(folder / "whole.mp4", options={"preset": "ultrafast"})
    (folder / "no-moov.mp4").write_bytes(plain.read_bytes()[: plain.stat().st_size // 2])
    plain.unlink()
    return {path.stem: path for path in sorted(folder.iterdir())} | {
        "audio-only": write_audio(folder / "audio-only.mp4"),
        "missing": folder / "missing.mp4",
    }


def moov_first(path: Path) -> bytes:
    """A fresh plain video whose index comes before its data, so that a truncated file can still be read."""
    write_video(path, options=X264_FEW_KEYS, muxer={"movflags": "faststart"})
    return path.read_bytes()


def truncations(path: Path, points: int = 20) -> Iterable[tuple[float, bytes]]:
    """(fraction kept, bytes) of a video cut at so many places."""
    whole = moov_first(path)
    for point in range(points):
        kept = (point + 0.5) / points
        yield kept, whole[: round(len(whole) * kept)]


def bit_flips(path: Path, *, flips: int = 30, seed: int = 0) -> bytes:
    """A video with bits flipped in the middle half of its data."""
    whole = bytearray(moov_first(path))
    random = np.random.default_rng(seed)
    for place in random.integers(len(whole) // 2, len(whole) * 3 // 4, flips):
        whole[place] ^= 1 << int(random.integers(8))
    return bytes(whole)


def zero_hole(path: Path) -> bytes:
    """A video with a tenth of its bytes zeroed in the middle."""
    whole = bytearray(moov_first(path))
    hole = len(whole) // 10
    whole[len(whole) // 2 : len(whole) // 2 + hole] = bytes(hole)
    return bytes(whole)


def lying_size(path: Path, width: int, height: int) -> bytes:
    """A video whose container says another size than its frames have."""
    whole = bytearray(moov_first(path))
    entry = whole.index(b"avc1", whole.index(b"stsd"))
    whole[entry + 28 : entry + 32] = width.to_bytes(2, "big") + height.to_bytes(2, "big")
    return bytes(whole)


def lying_duration(path: Path, factor: int) -> bytes:
    """A video whose headers promise another duration than its frames have."""
    whole = bytearray(moov_first(path))
    for box, offset in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)):
        at = whole.index(box) + offset
        told = int.from_bytes(whole[at : at + 4], "big") * factor
        whole[at : at + 4] = told.to_bytes(4, "big")
    return bytes(whole)
