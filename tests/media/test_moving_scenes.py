"""Moving scenes: what is narrated is what is seen, a shot is one clip, files find their narration."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from vlprep.errors import SettingsError
from vlprep.media.scenes import COLOURS
from vlprep.media.scenes.videos import (
    SHOT_SECONDS,
    SHOTS_TOLD_TOGETHER,
    frames,
    narration,
    random_story,
    write_howto_folder,
)

FRAMES_OF_A_SHOT = round(SHOT_SECONDS * 10)


def test_neighbouring_shots_share_neither_shape_nor_colour() -> None:
    for seed in range(50):
        shots = random_story(seed).shots
        assert all(a.shape != b.shape and a.colour != b.colour for a, b in pairwise(shots))
    assert random_story(3) == random_story(3) != random_story(4)


def test_narration_tells_every_shot_while_it_is_seen() -> None:
    story = random_story(7)
    told = narration(story)
    assert len(told) * SHOTS_TOLD_TOGETHER == len(story.shots)
    for number, (start, end, text) in enumerate(told):
        shots = story.shots[number * SHOTS_TOLD_TOGETHER : (number + 1) * SHOTS_TOLD_TOGETHER]
        assert (start, end) == (number * len(shots) * SHOT_SECONDS, (number + 1) * len(shots) * SHOT_SECONDS)
        places = [text.index(f"{shot.colour} {shot.shape} moving {shot.move}") for shot in shots]
        assert places == sorted(places)


def test_a_shot_shows_its_colour_and_moves_its_way() -> None:
    story = random_story(11, shots=4)
    pictures = list(frames(story))
    assert len(pictures) == 4 * FRAMES_OF_A_SHOT
    for number, shot in enumerate(story.shots):
        centres = []
        for picture in (pictures[number * FRAMES_OF_A_SHOT], pictures[(number + 1) * FRAMES_OF_A_SHOT - 1]):
            near = np.abs(picture.astype(int) - COLOURS[shot.colour]).max(2) < 45
            assert near.sum() > 100
            centres.append(np.argwhere(near).mean(0)[::-1])
        way = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[shot.move]
        assert np.dot(centres[1] - centres[0], way) > 10


def test_a_howto100m_folder(tmp_path: Path) -> None:
    stories = write_howto_folder(tmp_path, videos=2, seed=5)
    captions = json.loads((tmp_path / "caption.json").read_text())
    files = sorted((tmp_path / "videos").iterdir())
    assert [file.stem for file in files] == list(captions)
    for file, story in zip(files, stories, strict=True):
        assert captions[file.stem]["text"] == [text for _, _, text in narration(story)]
        with av.open(str(file)) as container:
            assert sum(1 for _ in container.decode(video=0)) == len(story.shots) * FRAMES_OF_A_SHOT


def test_a_folder_is_written_again_only_by_the_same_call(tmp_path: Path) -> None:
    write_howto_folder(tmp_path, videos=1)
    before = (tmp_path / "videos/demo0000001.mp4").read_bytes()
    write_howto_folder(tmp_path, videos=1)
    with pytest.raises(SettingsError, match="another folder"):
        write_howto_folder(tmp_path, videos=1, seed=1)
    assert (tmp_path / "videos/demo0000001.mp4").read_bytes() == before
