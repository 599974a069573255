"""Cutting streams of frames into clips."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from clips.golden_case import stream_of

from vlprep.clips.presets import preset
from vlprep.clips.spec import ClipSpec, override
from vlprep.clips.windows import Clip, cut
from vlprep.media.video import Frame


def recipe(**changes: object) -> ClipSpec:
    return override(preset("resnext101").spec, {"fps": 4, "clip_frames": 4, **changes})


def frames(number: int, first: int = 0) -> list[Frame]:
    """Frame n is filled with n + 1, so that black is never a frame."""
    values = np.arange(1, number + 1, dtype=np.uint8)[:, None, None, None]
    return stream_of(np.broadcast_to(values, (number, 2, 3, 3)), Fraction(4), first)


def seen(clips: Iterator[Clip]) -> list[tuple[list[int], float, float]]:
    return [(clip.frames_THW3[:, 0, 0, 0].tolist(), clip.start, clip.end) for clip in clips]


def test_clips_follow_each_other_and_the_last_is_filled_with_black() -> None:
    assert seen(cut(frames(10), recipe())) == [
        ([1, 2, 3, 4], 0.0, 1.0),
        ([5, 6, 7, 8], 1.0, 2.0),
        ([9, 10, 0, 0], 2.0, 2.5),
    ]


def test_a_whole_number_of_clips_leaves_no_tail() -> None:
    assert len(list(cut(frames(8), recipe()))) == 2
    assert len(list(cut(frames(8), recipe(tail="repeat")))) == 2


def test_the_tail_can_repeat_the_last_frame_or_be_dropped() -> None:
    assert seen(cut(frames(6), recipe(tail="repeat")))[-1] == ([5, 6, 6, 6], 1.0, 1.5)
    assert seen(cut(frames(6), recipe(tail="drop"))) == [([1, 2, 3, 4], 0.0, 1.0)]
    assert seen(cut(frames(3), recipe(tail="drop"))) == []
    assert seen(cut([], recipe())) == []


def test_overlapping_clips_end_when_every_frame_is_covered() -> None:
    overlapping = recipe(stride=2)
    assert [clip[0] for clip in seen(cut(frames(6), overlapping))] == [[1, 2, 3, 4], [3, 4, 5, 6]]
    assert [clip[0] for clip in seen(cut(frames(7), overlapping))][2] == [5, 6, 7, 0]


def test_a_long_stride_skips_frames() -> None:
    found = seen(cut(frames(15), recipe(stride=6)))
    assert found == [([1, 2, 3, 4], 0.0, 1.0), ([7, 8, 9, 10], 1.5, 2.5), ([13, 14, 15, 0], 3.0, 3.75)]
    assert len(list(cut(frames(6), recipe(stride=6)))) == 1


def test_picked_frames_come_in_their_order_after_filling() -> None:
    picking = recipe(pick=[3, 0, 0], tail="repeat")
    assert [clip[0] for clip in seen(cut(frames(6), picking))] == [[4, 1, 1], [6, 5, 5]]


def test_times_are_those_of_the_streams_grid() -> None:
    assert seen(cut(frames(5, first=6), recipe())) == [([1, 2, 3, 4], 1.5, 2.5), ([5, 0, 0, 0], 2.5, 2.75)]
    thirds = recipe(fps="2/3", clip_frames=1)
    assert [(clip.start, clip.end) for clip in cut(frames(3), thirds)] == [(0.0, 1.5), (1.5, 3.0), (3.0, 4.5)]


def test_hero_gets_its_last_frame_ten_times() -> None:
    (clip,) = cut(frames(45), preset("hero").spec)
    assert clip.frames_THW3[:, 0, 0, 0].tolist()[20:] == [41, 43, *[45] * 10]
    assert (clip.start, clip.end) == (0.0, 1.5)


@pytest.mark.parametrize("stride", [1, 4, 9])
def test_frames_are_taken_only_as_clips_need_them(stride: int) -> None:
    given = 0

    def endless() -> Iterator[Frame]:
        nonlocal given
        pixels = np.zeros((2, 2, 3), np.uint8)
        while True:
            yield Frame(0, given, given / 4, given / 4, given, pixels)
            given += 1

    clips = cut(endless(), recipe(stride=stride))
    for number in range(50):
        next(clips)
        assert given + 1 <= 4 + number * stride + 1
