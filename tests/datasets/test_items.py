"""Ids that datasets write into file names."""

from __future__ import annotations

import pytest

from vlprep.datasets.items import image_source_id, stem_of, video_source_id


@pytest.mark.parametrize(
    ("name", "source_id"),
    [
        ("COCO_train2014_000000132417.jpg", "132417"),
        ("train2014/COCO_val2014_000000000042.jpg", "42"),
        ("000000132417.jpg", "132417"),
        ("000000000000.jpg", "0"),
        ("132417.jpg", None),
        ("0000000132417.jpg", None),
        ("x000000132417.jpg", None),
        ("٠٠٠٠٠٠١٣٢٤١٧.jpg", None),
    ],
)
def test_coco_ids(name: str, source_id: str | None) -> None:
    assert image_source_id(name) == source_id


@pytest.mark.parametrize(
    ("name", "source_id"),
    [
        ("dQw4w9WgXcQ.mp4", "dQw4w9WgXcQ"),
        ("a/b/-_w4w9WgXcQ.webm", "-_w4w9WgXcQ"),
        ("dQw4w9WgXcQ.mp4.webm", "dQw4w9WgXcQ"),
        ("dQw4w9WgXcQ.f137.mp4", "dQw4w9WgXcQ"),
        ("How to cook [1 hour] [dQw4w9WgXcQ].mkv", "dQw4w9WgXcQ"),
        ("v_GGSY1Qvo990.mp4", "v_GGSY1Qvo990"),
        ("flipping_a_pancake.mkv", "flipping_a_pancake"),
        ("a.b.c.mp4", "a.b.c"),
        ("powerlifter.part one.mp4", "powerlifter.part one"),
    ],
)
def test_video_ids(name: str, source_id: str) -> None:
    assert video_source_id(name) == source_id


def test_only_media_suffixes_are_taken_off() -> None:
    assert [stem_of(name) for name in ("a/b.c.jpg", "v1.2", "x.JPEG", "x.mp4.npy")] == ["b.c", "v1.2", "x", "x.mp4.npy"]
