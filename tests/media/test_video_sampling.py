"""The choice of frames and the crop against libavfilter itself, and clocks that damage has thrown off."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import FFmpegError
from av.filter import Graph
from hypothesis import given, settings
from hypothesis import strategies as st

from vlprep.errors import ItemError, SettingsError
from vlprep.media.video.base import FrameStream, Tally
from vlprep.media.video.resize import Resizer, chroma_sample
from vlprep.media.video.sampling import Clock, Sampler


def run_graph(frames: list[av.VideoFrame], *filters: tuple[str, str]) -> list[av.VideoFrame]:
    graph = Graph()
    first = frames[0]
    entry = graph.add_buffer(width=first.width, height=first.height, format=first.format, time_base=first.time_base)
    graph.link_nodes(entry, *(graph.add(*each) for each in filters), graph.add("buffersink")).configure()
    for frame in frames:
        graph.vpush(frame)
    graph.vpush(None)
    out = []
    while True:
        try:
            out.append(graph.vpull())
        except (FFmpegError, EOFError):
            return out


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.integers(1, 90), min_size=1, max_size=40),
    start=st.integers(0, 3000),
    fps=st.sampled_from([Fraction(1), Fraction(2, 3), Fraction(5), Fraction(10), Fraction(24), Fraction(30000, 1001)]),
    time_base=st.sampled_from([Fraction(1, 30), Fraction(1, 1000), Fraction(1, 981), Fraction(1, 90)]),
)
def test_the_sampler_is_the_fps_filter(steps, start, fps, time_base):
    stamps = [start, *(start + int(step) for step in np.cumsum(steps))]
    frames = []
    for number, pts in enumerate(stamps):
        frame = av.VideoFrame.from_ndarray(np.full((16, 16), number, np.uint8), format="gray8")
        frame.pts, frame.time_base, frame.duration = pts, time_base, 1
        frames.append(frame)
    expected = [(frame.pts, int(frame.to_ndarray()[0, 0])) for frame in run_graph(frames, ("fps", str(fps)))]

    sampler = Sampler(fps, time_base)
    chosen = []
    assert not sampler.until(stamps[0])
    for number, pts in enumerate([*stamps[1:], stamps[-1] + 1]):
        chosen += [(index, number) for index in sampler.until(pts)]
    assert chosen == expected


def test_a_tie_belongs_to_the_later_output():
    sampler = Sampler(1, Fraction(1, 30))
    assert [len(sampler.until(ticks)) for ticks in (0, 14, 15, 44, 45)] == [0, 0, 1, 0, 1]


def test_damaged_time_stamps_neither_stop_nor_flood_the_clock():
    tally = Tally()
    clock = Clock(Fraction(1, 10), 0, 1, tally)
    stamps = [0, 1, 2, None, 4, 10**12, 10**12 + 1, 5, 6]
    assert [clock.ticks(pts, 1) for pts in stamps] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert tally.errors == 2


def test_reordering_and_pauses_are_not_damage():
    tally = Tally()
    clock = Clock(Fraction(1, 10), 0, 1, tally)
    stamps = [0, 3, 1, 5000, 5001]
    assert [clock.ticks(pts, 0) for pts in stamps] == stamps
    assert tally.errors == 0


@pytest.mark.parametrize("size", [(426, 240), (427, 240), (101, 67), (64, 90), (66, 91), (48, 48)])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv411p"])
def test_the_first_square_is_cut_where_libavfilter_cuts_it(size, pixel_format):
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format=pixel_format, threads=1)
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    side = r"min(iw\,ih)"
    published = ("crop", f"{side}:{side}:(iw-{side})*0.5:(ih-{side})*0.5")
    (expected,) = run_graph([frame], published, ("scale", "32:32"), ("format", "rgb24"))
    stream = FrameStream(resize=32, square_first=True)
    resize = Resizer(Path("x"), stream, turn=0, chroma=chroma_sample(pixel_format, 0))
    np.testing.assert_array_equal(resize(frame), expected.to_ndarray())


@pytest.mark.parametrize(
    ("stream", "landscape", "portrait"),
    [
        (FrameStream(), (427, 240), (240, 427)),
        (FrameStream(resize=224), (398, 224), (224, 398)),
        (FrameStream(resize=(171, 128)), (171, 128), (171, 128)),
        (FrameStream(resize=112, crop=112), (112, 112), (112, 112)),
        (FrameStream(resize=224, square_first=True), (224, 224), (224, 224)),
        (FrameStream(square_first=True), (240, 240), (240, 240)),
    ],
)
def test_sizes_are_truncated_and_follow_the_short_side(stream, landscape, portrait):
    assert stream.size(427, 240) == landscape
    assert stream.size(240, 427) == portrait


def test_a_video_that_changes_its_size_keeps_the_size_that_comes_out():
    resize = Resizer(Path("x"), FrameStream(resize=16), turn=90, chroma=(1, 1))
    for width, height in ((40, 20), (60, 20), (40, 20)):
        frame = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24")
        frame.time_base = Fraction(1, 25)
        assert resize(frame).shape == (32, 16, 3)


def test_a_strange_shape_cannot_ask_for_all_memory():
    frame = av.VideoFrame.from_ndarray(np.zeros((2, 60000, 3), np.uint8), format="rgb24")
    frame.time_base = Fraction(1, 25)
    with pytest.raises(ItemError, match=r"strip\.mp4.*smaller resize"):
        Resizer(Path("strip.mp4"), FrameStream(resize=224), turn=0, chroma=(1, 1))(frame)


@pytest.mark.parametrize(
    "wrong",
    [{"fps": 0}, {"fps": 0.667}, {"resize": 0}, {"resize": (0, 4)}, {"crop": -1}, {"resize": 112, "crop": 224}],
)
def test_streams_that_make_no_sense_are_refused(wrong):
    with pytest.raises(SettingsError):
        FrameStream(**wrong)
