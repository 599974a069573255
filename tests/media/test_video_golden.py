"""Frames, their choice and their resizing against the reference outputs in ../shared/golden/video."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlprep.errors import MissingDependencyError
from vlprep.media.video.backends import BACKENDS, load_backend
from vlprep.media.video.base import FrameStream
from vlprep.media.video.decode import open_video, probe

PUBLISHED = {
    "resnet152": FrameStream(resize=224),
    "resnext101": FrameStream(resize=112, crop=112),
    "s3d": FrameStream(resize=256, crop=224, interpolation="bilinear"),
    "s3d_howto100m": FrameStream(resize=224, square_first=True),
    "s3d_howto100m_univl": FrameStream(resize=224, crop=224),
}
CLIPS = [
    ("resnet152", "", FrameStream(fps=1, resize=224)),
    ("resnext101", "", FrameStream(fps=24, resize=112, crop=112)),
    ("s3d", "", FrameStream(fps=20, resize=256, crop=224, interpolation="bilinear")),
    ("s3d_howto100m", "", FrameStream(fps=10, resize=224, square_first=True)),
    ("s3d_howto100m", "_16f", FrameStream(fps=16, resize=224, crop=224)),
]


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


@pytest.fixture(params=["pancake", "ggsy"])
def video(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def frames(golden: Path) -> Path:
    return golden / "video" / "frames"


@pytest.fixture
def facts(frames: Path, video: str) -> dict[str, Any]:
    return json.loads((frames / "frames.json").read_text())["videos"][video]


@pytest.fixture
def file(samples: Path, facts: dict[str, Any]) -> Path:
    return samples / "howto100m" / "videos" / str(facts["file"])


def test_probe_tells_what_the_file_is(file, facts, backend):
    info = probe(file, backend=backend)
    assert (info.width, info.height, info.rotation) == (facts["width"], facts["height"], 0)
    assert info.codec == "h264"
    assert info.start_time == 0
    assert info.duration == pytest.approx(facts["container_duration_seconds"])
    assert info.fps == pytest.approx(float(Fraction(facts["average_fps"])))


def test_every_listed_frame_is_bit_equal_and_at_its_time(file, facts, frames, video, backend):
    seen, times = {}, []
    with open_video(file, [FrameStream()], backend=backend) as decoding:
        for frame in decoding:
            seen[frame.index] = hashlib.sha256(frame.pixels.tobytes()).hexdigest()
            times.append(frame.time)
    listed = facts["frames"]
    assert len(listed) > 20
    assert {entry["index"]: seen[entry["index"]] for entry in listed} == {e["index"]: e["sha256"] for e in listed}
    with np.load(frames / "frames.npz") as arrays:
        np.testing.assert_allclose(times, arrays[f"{video}.pts"] * float(Fraction(facts["time_base"])), atol=1e-9)
    assert decoding.summary.status == "ok"
    assert decoding.summary.end == pytest.approx(facts["video_end_seconds"], abs=1e-6)


def test_frames_are_chosen_as_by_the_fps_filter(file, frames, video, backend):
    rates = json.loads((frames / "sampling.json").read_text())["videos"][video]["rates"]
    streams = [FrameStream(fps=int(rate), resize=16) for rate in rates]
    chosen: list[list[int]] = [[] for _ in rates]
    with open_video(file, streams, backend=backend) as decoding:
        for frame in decoding:
            assert frame.index == len(chosen[frame.stream])
            assert frame.nominal == pytest.approx(frame.index / int(list(rates)[frame.stream]))
            chosen[frame.stream].append(frame.source)
    assert dict(zip(rates, chosen, strict=True)) == {rate: expected["index"] for rate, expected in rates.items()}


def test_frames_are_resized_as_published(file, frames, video, backend):
    """Byte for byte by PyAV, which resizes in the colour format of the file; backends that give RGB within 2 levels."""
    with np.load(frames / "resize.npz") as arrays:
        expected = {name: arrays[f"{video}.{name}"] for name in PUBLISHED}
        at = int(arrays[f"{video}.source_index"][0])
    resized = {}
    with open_video(file, list(PUBLISHED.values()), backend=backend) as decoding:
        for frame in decoding:
            if frame.source == at:
                resized[list(PUBLISHED)[frame.stream]] = frame.pixels
    for name, pixels in resized.items():
        if backend == "pyav":
            np.testing.assert_array_equal(pixels, expected[name], err_msg=name)
        else:
            assert np.abs(pixels.astype(int) - expected[name]).mean() < 2, name
    assert resized.keys() == expected.keys()


@pytest.mark.parametrize(("encoder", "suffix", "stream"), CLIPS)
def test_the_clips_of_the_encoders_are_bit_equal(golden, samples, encoder, suffix, stream):
    folder = golden / "video" / encoder
    cases = json.loads((folder / "spec.json").read_text())["cases"]
    cases = {name: case for name, case in cases.items() if name.endswith("_16f") == bool(suffix)}
    assert cases
    for name, case in cases.items():
        assert case["fps"] == stream.fps
        with open_video(samples / "howto100m" / "videos" / case["video"], [stream]) as decoding:
            by_index = {frame.index: frame for frame in decoding}
        outputs = case["output_frames"] if encoder == "resnet152" else range(*case["output_frames"])
        wanted = [by_index[index] for index in outputs if index in by_index]
        with np.load(folder / "frames.npz") as arrays:
            np.testing.assert_array_equal(np.stack([frame.pixels for frame in wanted]), arrays[name], err_msg=name)
        assert [frame.source for frame in wanted] == case["source_frame_indices"]
        np.testing.assert_allclose([frame.time for frame in wanted], case["source_times_seconds"], atol=6e-4)
