"""Moving scenes with narration: short videos whose every second is known because we drew it.

A story is a chain of shots in front of one backdrop; in each, one coloured shape crosses the picture. Narration tells
two shots at a time. So a clip that is masked can be told in part from its neighbours, which share the backdrop, and
much better from what is said.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from vlprep.media.scenes.drawing import render
from vlprep.media.scenes.layout import COLOURS, SHAPES, Scene, SceneObject
from vlprep.media.scenes.own_folder import write_own_files

SHOT_SECONDS = 1.5
"""One of VideoBERT's clips."""
SHOTS_TOLD_TOGETHER = 2
_FRAMES_PER_SECOND = 10
_SIDE, _OBJECT_SIDE = 64, 36
_BACKDROPS = 4
_X264 = {"crf": "18", "preset": "veryfast", "x264-params": "mbtree=0"}
"""Its macroblock tree gives other bytes each time for pictures as small as these."""
_MOVES = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_BEGINNINGS = ("we see", "here comes", "look at", "there is")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One shape that moves across the picture."""

    shape: str
    colour: str
    move: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A video to be: shots one after another, each `SHOT_SECONDS` long."""

    shots: tuple[Shot, ...]
    seed: int


def random_story(seed: int, shots: int = 16) -> Story:
    """Neighbouring shots differ both in shape and in colour."""
    rng = np.random.default_rng([seed, 3])
    chosen: list[Shot] = []
    for _ in range(shots):
        before = chosen[-1] if chosen else None
        shape = str(rng.choice([name for name in SHAPES if before is None or name != before.shape]))
        colour = str(rng.choice([name for name in COLOURS if before is None or name != before.colour]))
        chosen.append(Shot(shape=shape, colour=colour, move=str(rng.choice(list(_MOVES)))))
    return Story(shots=tuple(chosen), seed=seed)


def frames(story: Story) -> Iterator[NDArray[np.uint8]]:
    """The pictures, (height, width, 3) RGB, 10 a second."""
    count = round(SHOT_SECONDS * _FRAMES_PER_SECOND)
    room = _SIDE - _OBJECT_SIDE - 2
    for shot in story.shots:
        across, down = _MOVES[shot.move]
        for number in range(count):
            way = number / (count - 1) - 0.5
            x, y = (1 + round(room * (0.5 + way * direction)) for direction in (across, down))
            thing = SceneObject(shape=shot.shape, colour=shot.colour, box=(x, y, x + _OBJECT_SIDE, y + _OBJECT_SIDE))
            yield render(Scene(width=_SIDE, height=_SIDE, objects=(thing,), seed=story.seed % _BACKDROPS))


def narration(story: Story) -> list[tuple[float, float, str]]:
    """(start, end, text) in seconds, a segment for every two shots."""
    rng = np.random.default_rng([story.seed, 4])
    told = []
    for first in range(0, len(story.shots), SHOTS_TOLD_TOGETHER):
        group = story.shots[first : first + SHOTS_TOLD_TOGETHER]
        phrases = [f"{_noun(shot)} moving {shot.move}" for shot in group]
        text = f"{rng.choice(_BEGINNINGS)} {' and then '.join(phrases)}"
        told.append((first * SHOT_SECONDS, (first + len(group)) * SHOT_SECONDS, text))
    return told


def write_howto_folder(folder: Path, videos: int, seed: int = 0) -> list[Story]:
    """Write `videos/demoNNNNNNN.mp4` and `caption.json` in HowTo100M's format.

    The story of video n is `random_story(seed * 1_000_000 + n)`; the stories are returned.

    Raises:
        SettingsError: The folder has files that an earlier such call did not write (`write_own_files`).
    """
    files: dict[str, bytes] = {}
    stories = [random_story(seed * 1_000_000 + number) for number in range(1, videos + 1)]
    captions: dict[str, dict[str, list[float] | list[str]]] = {}
    for number, story in enumerate(stories, start=1):
        name = f"demo{number:07}"  # as long as a YouTube id, which is how captions and files find each other
        files[f"videos/{name}.mp4"] = _mp4(story)
        starts, ends, texts = zip(*narration(story), strict=True)
        captions[name] = {"start": list(starts), "end": list(ends), "text": list(texts)}
    files["caption.json"] = (json.dumps(captions, indent=1) + "\n").encode()
    write_own_files(folder, files)
    return stories


def _mp4(story: Story) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=_FRAMES_PER_SECOND, options=_X264)
        stream.width = stream.height = _SIDE
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for picture in frames(story):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def _noun(shot: Shot) -> str:
    return f"{'an' if shot.colour[0] in 'aeiou' else 'a'} {shot.colour} {shot.shape}"
