"""A window of a video holds the very frames that a decode of all of it gives those numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from media import video_fixtures as fixtures
from media.video_fixtures import write_video

from vlprep.errors import ItemError, SettingsError
from vlprep.media.video.base import DecodeSummary, Frame, FrameStream
from vlprep.media.video.decode import open_video, open_window
from vlprep.media.video.process import DecoderProcess

STREAM = FrameStream(fps=5, resize=32)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("windows")
    videos = fixtures.healthy_videos(folder)
    long = {"preset": "veryfast", "bf": "3", "x264-params": "keyint=60:min-keyint=60:scenecut=0"}
    return videos | {"long": write_video(folder / "long.mp4", pts=range(250), options=long)}


def same(found: list[Frame], wanted: list[Frame]) -> None:
    assert [frame.index for frame in found] == [frame.index for frame in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.time == other.time
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_windows_hold_the_frames_of_a_whole_decode(healthy: dict[str, Path]) -> None:
    for name, path in healthy.items():
        with open_video(path, (STREAM,)) as decoding:
            every = list(decoding)
        last = every[-1].index
        for first in (0, 1, last // 3, last // 2, 2 * last // 3, last - 1, last + 5):
            with open_window(path, STREAM, range(first, first + 4)) as decoding:
                found = list(decoding)
            wanted = [frame for frame in every if frame.index >= first][:4]
            assert len(found) == len(wanted), (name, first)
            same(found, wanted)


def test_what_comes_long_before_is_not_decoded(healthy: dict[str, Path]) -> None:
    with open_window(healthy["long"], STREAM, range(40, 44)) as decoding:
        assert len(list(decoding)) == 4
        assert decoding.summary.frames < 80  # of 225 before the window's end


def test_places_of_the_cut(tmp_path: Path) -> None:
    path = write_video(tmp_path / "wide.mp4", size=(96, 64), pts=range(5), options={"preset": "ultrafast"})

    def first_frame(stream: FrameStream) -> np.ndarray:
        with open_video(path, (stream,)) as decoding:
            return next(iter(decoding)).pixels

    whole = first_frame(FrameStream(fps=5))
    for place, x, y in (((0.0, 0.0), 0, 0), ((0.5, 0.5), 32, 16), ((1.0, 0.5), 64, 16), ((1.0, 1.0), 64, 32)):
        cut = first_frame(FrameStream(fps=5, resize=64, crop=32, place=place))
        assert np.abs(cut.astype(int) - whole[y : y + 32, x : x + 32]).mean() < 3, place
    for place, x in (((0.0, 0.0), 0), ((1.0, 0.0), 32)):
        square = first_frame(FrameStream(fps=5, square_first=True, place=place))
        assert np.abs(square.astype(int) - whole[:, x : x + 64]).mean() < 3, place
    with pytest.raises(SettingsError, match="place"):
        FrameStream(crop=32, place=(0.5, 1.5))


def test_a_window_needs_a_rate_and_a_video(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="fps"), open_window(tmp_path / "x.mp4", FrameStream(), range(4)):
        pass
    for path in fixtures.unusable_videos(tmp_path / "bad").values():
        with pytest.raises(ItemError), open_window(path, STREAM, range(5, 9)) as decoding:
            list(decoding)


@pytest.fixture
def process() -> Iterator[DecoderProcess]:
    process = DecoderProcess("pyav")
    yield process
    process.close()


def test_windows_from_a_process(healthy: dict[str, Path], process: DecoderProcess) -> None:
    path, window = healthy["b-frames"], range(7, 11)
    with open_window(path, STREAM, window) as decoding:
        wanted = list(decoding)
    words = list(process.decode(path, (STREAM,), timeout=30, window=window))
    assert isinstance(words[-1], DecodeSummary)
    same([word for word in words if isinstance(word, Frame)], wanted)
