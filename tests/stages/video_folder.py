"""A folder of short videos, whole and broken, and settings that name the dummy encoders."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from media.video_fixtures import write_audio, write_video

from vlprep.stages.extract_video import EncoderChoice, VideoSettings
from vlprep.stages.run import RunSettings

SECONDS = (3, 1, 2, 1, 4, 2)
SIZES = ((96, 64), (64, 96), (80, 80))


def make_videos(folder: Path, seconds: tuple[int, ...] = SECONDS) -> list[str]:
    """Videos of these lengths and three shapes in two folders; returns their ids in order."""
    ids = []
    for number, length in enumerate(seconds):
        path = folder / ("train" if number % 2 else "val") / f"{number:03}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, size=SIZES[number % 3], pts=range(25 * length), options={"preset": "ultrafast"})
        ids.append(str(path.relative_to(folder)))
    return sorted(ids)


def make_red(path: Path) -> Path:
    """Two seconds of red, at which the dummy encoders may do something."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height = SIZES[0]
        stream.pix_fmt = "yuv420p"
        pixels = np.zeros((SIZES[0][1], SIZES[0][0], 3), np.uint8)
        pixels[..., 0] = 250
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def break_videos(folder: Path) -> dict[str, str]:
    """Files of which nothing can be used, with what their failures must say."""
    whole = write_video(folder / "whole.tmp.mp4", options={"preset": "ultrafast"})
    (folder / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    whole.unlink()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("no video")
    write_audio(folder / "audio.mp4")
    write_video(folder / "one frame.mp4", pts=[0], options={"preset": "ultrafast"})
    return {
        "cut.mp4": "",
        "empty.mp4": "",
        "text.mp4": "",
        "audio.mp4": "no video",
        "one frame.mp4": "too short for a clip",
    }


def choice(kind: str = "clips", **changes: object) -> EncoderChoice:
    return EncoderChoice(**{"name": f"dummy_encoder:{kind}", **changes})


def settings(*choices: EncoderChoice, **changes: object) -> VideoSettings:
    return VideoSettings(**{"encoders": choices or (choice(),), "store_dtype": "float32", **changes})


def run_settings(**changes: object) -> RunSettings:
    return RunSettings(**{"device": "cpu", "part_size": 3, **changes})
