"""Strange and damaged files: the frames are those of a sequential decode, and damage is counted, never fatal."""

from __future__ import annotations

import importlib.util
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import video_fixtures as fixtures
from media.video_fixtures import FRAMES, RATE, number_of

from vlprep.errors import ItemError, MissingDependencyError, SettingsError
from vlprep.media.video import pyav_source
from vlprep.media.video.backends import BACKENDS, load_backend, require_backend
from vlprep.media.video.base import DecodeSummary, Frame, FrameStream
from vlprep.media.video.decode import open_video, probe

EVERY = FrameStream()
REFUSED = {
    "decord": {"open-gop", "edit-list", "av1", "avi", "ts"},
    "torchcodec": {"avi", "ts"},
}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return fixtures.healthy_videos(tmp_path_factory.mktemp("healthy"))


@pytest.fixture(params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if importlib.util.find_spec("av" if name == "pyav" else name) is None:
        pytest.skip(f"{name} is not installed")
    try:
        load_backend(name)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    return name


def decode(path: Path, *streams: FrameStream, backend: str = "pyav") -> tuple[list[Frame], DecodeSummary]:
    with open_video(path, streams or (EVERY,), backend=backend) as decoding:
        return list(decoding), decoding.summary


def sequential(path: Path) -> list[np.ndarray]:
    """What the file holds: plain PyAV from start to end, turned upright by NumPy."""
    with av.open(f"file:{path}") as container:
        frames = list(container.decode(video=0))
    return [np.rot90(f.to_ndarray(format="rgb24", interpolation="BICUBIC"), f.rotation // 90) for f in frames]


def test_every_strange_file_gives_the_frames_of_a_sequential_decode(healthy, backend):
    refused = set()
    for name, path in healthy.items():
        try:
            frames, summary = decode(path, backend=backend)
        except ItemError as error:
            refused.add(name if "'pyav'" in str(error) else str(error))
            continue
        expected = sequential(path)
        assert len(frames) == len(expected) == summary.frames, name
        assert summary.status == "ok", name
        if backend == "pyav" or name != "odd-size":  # decord converts colours another way at odd widths
            assert all(np.array_equal(f.pixels, e) for f, e in zip(frames, expected, strict=True)), name
    assert refused == REFUSED.get(backend, set())


WHY = {"edit-list": "edit lists", "open-gop": "open GOPs", "av1": "the codec", "avi": "container avi", "ts": "mpegts"}


@pytest.mark.parametrize("name", WHY)
def test_decord_is_not_asked_where_it_lies(healthy, name):
    pytest.importorskip("decord")
    with pytest.raises(ItemError, match=f"{WHY[name]}.*'pyav'"):
        decode(healthy[name], backend="decord")


def test_every_frame_is_the_one_that_was_written_at_its_time(healthy):
    for name, path in healthy.items():
        frames, summary = decode(path)
        info = probe(path)
        numbers = [number_of(np.rot90(frame.pixels, info.rotation // 90)) for frame in frames]
        hidden = 10 if name == "edit-list" else 0
        assert numbers == list(range(hidden, FRAMES)), name
        if name not in ("variable-rate", "avi"):  # AVI has no times of its own: they are off by the decoder's delay
            np.testing.assert_allclose([f.time for f in frames], np.arange(FRAMES - hidden) / RATE, atol=1e-6)
            assert summary.end == pytest.approx((FRAMES - hidden) / RATE), name


def test_probe_tells_the_size_that_a_person_sees(healthy):
    sizes = {name: (info.width, info.height, info.rotation) for name in healthy if (info := probe(healthy[name]))}
    assert sizes["plain"] == (96, 64, 0)
    assert sizes["rotated-90"] == (64, 96, 90)
    assert sizes["rotated-180"] == (96, 64, 180)
    assert sizes["rotated-270"] == (64, 96, 270)
    assert sizes["odd-size"] == (101, 67, 0)


def test_a_portrait_video_is_turned_before_it_is_resized(healthy):
    frames, _ = decode(healthy["rotated-90"], FrameStream(fps=1, resize=48))
    assert frames[0].pixels.shape == (72, 48, 3)
    assert number_of(np.rot90(frames[0].pixels)) == frames[0].source


def test_variable_rate_is_shown_as_its_time_stamps_say(healthy):
    every, _ = decode(healthy["variable-rate"])
    frames, _ = decode(healthy["variable-rate"], FrameStream(fps=10))
    times = np.array([frame.time for frame in every])
    for frame in frames:
        shown = np.flatnonzero(np.floor(times * 10 + 0.5) <= frame.index)[-1]
        assert frame.source == shown
        assert number_of(frame.pixels) == shown
        assert frame.time == times[shown]


def test_a_video_that_begins_after_its_sound_keeps_its_time(tmp_path):
    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        picture = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        picture.width, picture.height = 96, 64
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000 * 3), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        silence.pts, silence.time_base = 0, Fraction(1, 16000)
        container.mux(sound.encode(silence))
        for number in range(RATE):
            frame = av.VideoFrame.from_ndarray(fixtures.picture(number, 96, 64), format="rgb24")
            frame.pts, frame.time_base = 2 * RATE + number, Fraction(1, RATE)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        container.mux(sound.encode(None))
    frames, summary = decode(path, FrameStream(fps=5))
    assert probe(path).start_time == pytest.approx(2.0)
    assert [frame.index for frame in frames] == [10, 11, 12, 13, 14]
    assert frames[0].nominal == pytest.approx(2.0)
    assert summary.end == pytest.approx(3.0)


def test_one_decode_for_three_streams_is_three_decodes(healthy):
    streams = (
        FrameStream(fps=1, resize=56),
        FrameStream(fps=24, resize=28, crop=28),
        FrameStream(fps=20, resize=64, crop=56, interpolation="bilinear"),
    )
    for name in ("b-frames", "edit-list", "rotated-90", "variable-rate", "odd-size"):
        together, summary = decode(healthy[name], *streams)
        for position, stream in enumerate(streams):
            alone, _ = decode(healthy[name], stream)
            ours = [frame for frame in together if frame.stream == position]
            assert len(ours) == len(alone) == summary.outputs[position] > 0
            for one, other in zip(ours, alone, strict=True):
                assert (one.index, one.time, one.nominal, one.source) == (
                    other.index,
                    other.time,
                    other.nominal,
                    other.source,
                )
                np.testing.assert_array_equal(one.pixels, other.pixels)


def test_files_that_are_no_videos_are_item_errors(tmp_path, backend):
    for name, path in fixtures.unusable_videos(tmp_path / "bad").items():
        with pytest.raises(ItemError, match=path.name) as caught:
            decode(path, backend=backend)
        assert len(str(caught.value)) > len(str(path)) + 20, name


def test_a_truncated_video_gives_what_is_left(tmp_path):
    kept = []
    for _, data in fixtures.truncations(tmp_path / "whole.mp4"):
        path = tmp_path / "cut.mp4"
        path.write_bytes(data)
        try:
            frames, summary = decode(path)
        except ItemError:
            kept.append(0)
            continue
        assert summary.status == "partial"
        assert summary.errors > 0
        assert [number_of(frame.pixels) for frame in frames] == list(range(len(frames)))
        kept.append(len(frames))
    assert kept == sorted(kept)
    assert kept[-1] > FRAMES * 0.9
    assert sum(count > 0 for count in kept) >= 15


def test_a_matroska_file_cut_between_packets_is_partial(tmp_path):
    whole = fixtures.write_video(tmp_path / "whole.mkv", options=fixtures.X264_FEW_KEYS)
    data = whole.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    assert decode(whole)[1].status == "ok"
    frames, summary = decode(tmp_path / "cut.mkv")
    assert 0 < len(frames) < FRAMES
    assert (summary.status, summary.errors) == ("partial", 1)


@pytest.mark.parametrize("damage", [fixtures.bit_flips, fixtures.zero_hole])
def test_damage_in_the_middle_loses_only_what_it_hits(tmp_path, damage):
    path = tmp_path / "hurt.mp4"
    path.write_bytes(damage(tmp_path / "whole.mp4"))
    frames, summary = decode(path)
    assert summary.status == "partial"
    assert summary.errors + summary.corrupt > 0
    assert summary.frames == len(frames) >= FRAMES * 0.75
    intact = {number_of(frame.pixels) for frame in frames}
    assert intact >= set(range(25)), "before the damage"
    assert FRAMES - 1 in intact, "after it"
    assert frames[-1].time == pytest.approx((FRAMES - 1) / RATE)


def test_lying_headers_are_not_believed(tmp_path):
    path = tmp_path / "liar.mp4"
    path.write_bytes(fixtures.lying_size(tmp_path / "a.mp4", 1920, 1080))
    frames, _ = decode(path)
    assert len(frames) == FRAMES
    assert frames[0].pixels.shape == (64, 96, 3)
    path.write_bytes(fixtures.lying_duration(tmp_path / "b.mp4", 10_000))
    frames, summary = decode(path, FrameStream(fps=1))
    assert len(frames) == 3
    assert summary.end == pytest.approx(3.0)


def test_an_absurd_size_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = fixtures.write_video(tmp_path / "huge.mp4", pts=range(3))
    monkeypatch.setattr(pyav_source, "MAX_PIXELS", 96 * 64 - 1)
    with pytest.raises(ItemError, match="96x64"):
        decode(path)


def test_one_frame_is_shown_as_long_as_ffmpeg_shows_it(tmp_path):
    path = fixtures.write_video(tmp_path / "one.mp4", pts=[0])
    frames, summary = decode(path, EVERY, FrameStream(fps=1), FrameStream(fps=25))
    assert summary.outputs == (1, 0, 1)
    assert summary.status == "ok"
    assert len(frames) == 2


def test_no_duration_is_no_error(tmp_path):
    path = fixtures.write_video(tmp_path / "still.mkv", pts=[0, 0, 0], options={"preset": "ultrafast"})
    assert decode(path)[1].frames >= 1


def test_a_decoder_that_does_not_exist_is_a_settings_error():
    with pytest.raises(SettingsError, match="pyav"):
        require_backend("opencv")
    with pytest.raises(SettingsError, match="stream"), open_video(Path("x.mp4"), ()):
        pass


def test_a_decoder_that_is_not_installed_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install torchcodec"):
        require_backend("torchcodec")
