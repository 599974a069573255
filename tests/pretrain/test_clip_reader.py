"""Clips for training: the right frames, drawn by the generator alone; files of no use raise ItemError."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from media.video_fixtures import number_of, unusable_videos, write_video

from vlprep.errors import ItemError, SettingsError
from vlprep.pretrain.clip_reader import ClipReader, ClipSettings

PLAIN = ClipSettings(fps=5, frames=4, side=64, short_side=64, random_crop=False, random_flip=False, crop="square")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds at 25 frames a second, a key frame a second, each frame with its number."""
    path = tmp_path_factory.mktemp("clips") / "numbered.mp4"
    return write_video(path, size=(64, 64), pts=range(200), options={"preset": "ultrafast", "g": "25"})


@pytest.fixture
def reader() -> Iterator[ClipReader]:
    reader = ClipReader(PLAIN)
    yield reader
    reader.close()


def numbers(clips: np.ndarray) -> list[list[int]]:
    return [[number_of(frame) for frame in clip] for clip in clips]


def draw(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_clips_begin_at_whole_seconds_of_the_span(reader: ClipReader, video: Path) -> None:
    found = [numbers(reader.random(video, (2.7, 6.9), draw(seed)))[0] for seed in range(24)]
    assert {clip[0] for clip in found} == {52, 77, 102, 127}  # seconds 2 to int(6 - 0.8)
    for first, *rest in found:
        assert rest == [first + 5, first + 10, first + 15]  # a fifth of a second apart


def test_windows_are_spread_over_the_span(reader: ClipReader, video: Path) -> None:
    clips = reader.spread(video, (1.0, 4.8))
    assert clips.shape == (4, 4, 64, 64, 3)
    assert [clip[0] for clip in numbers(clips)] == [27, 52, 77, 102]


def test_beyond_the_end_a_clip_begins_earlier_and_a_short_video_is_held(
    reader: ClipReader, video: Path, tmp_path: Path
) -> None:
    slow = ClipReader(replace(PLAIN, fps=2))
    assert numbers(slow.random(video, (7.0, 8.0), draw(0)))[0] == [156, 168, 181, 193]  # the last two seconds
    slow.close()
    assert numbers(reader.random(video, (50.0, 60.0), draw(0)))[0] == [182, 187, 192, 197]
    short = write_video(tmp_path / "short.mp4", size=(64, 64), pts=range(10), options={"preset": "ultrafast"})
    assert numbers(reader.random(short, (0.0, 5.0), draw(0)))[0] == [2, 7, 7, 7]


def test_place_and_mirror_come_from_the_draw(reader: ClipReader, video: Path, tmp_path: Path) -> None:
    wide = write_video(tmp_path / "wide.mp4", size=(160, 64), pts=range(50), options={"preset": "ultrafast"})
    settings = ClipSettings(fps=5, frames=2, side=32, short_side=40)
    varied = ClipReader(settings)
    clips = [varied.random(wide, (0.0, 0.5), draw(seed)) for seed in range(8)]
    assert all(clip.shape == (1, 2, 32, 32, 3) for clip in clips)
    assert len({clip.tobytes() for clip in clips}) == 8
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(varied)).random(wide, (0.0, 0.5), draw(3)), clips[3])
    varied.close()
    mirrored = ClipReader(replace(PLAIN, random_flip=True))
    sides = {seed: mirrored.random(video, (0.0, 1.0), draw(seed))[0, 0] for seed in range(6)}
    plain = reader.random(video, (0.0, 1.0), draw(0))[0, 0]
    kinds = {np.array_equal(side, plain) for side in sides.values()}
    assert kinds == {True, False}
    assert all(np.array_equal(side, plain) or np.array_equal(side, plain[:, ::-1]) for side in sides.values())
    mirrored.close()


def test_files_of_no_use_say_so(reader: ClipReader, video: Path, tmp_path: Path) -> None:
    for path in unusable_videos(tmp_path).values():
        with pytest.raises(ItemError, match=path.name):
            reader.random(path, (0.0, 4.0), draw(0))
    reader.random(video, (0.0, 4.0), draw(0))
    with pytest.raises(SettingsError):
        ClipSettings(side=8)


def test_a_reader_that_is_gone_leaves_no_process(video: Path) -> None:
    reader = ClipReader(PLAIN)
    reader.spread(video, (0.0, 3.0))
    process = psutil.Process(reader._process._process.pid)
    del reader
    gc.collect()
    assert not process.is_running()
