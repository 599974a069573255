"""`inspect` counts what is there, missing, doubled and damaged, and never fails on a damaged file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlprep.datasets import inspect
from vlprep.errors import SettingsError

CUE = "WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n"


def put(root: Path, **contents: str) -> None:
    """Files by name, `__` standing for `/`."""
    for name, content in contents.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    put(
        tmp_path,
        **{"a__000000000001.jpg": "", "b__000000000001.jpg": "", "a__x.jpg": "", "a__y.jpg": "", "z__n.jpg": ""},
    )
    lines = ["a/x.jpg,one", "a/x.jpg,two", "a/x.jpg,one", "a/y.jpg,three", "gone.jpg,four", "gone.jpg,five"]
    put(tmp_path, **{"captions.csv": "\n".join(["image,caption", *lines, "p/n.jpg,six", "q/n.jpg,seven"])})
    put(tmp_path, **{"broken.jsonl": '{"image": "a/x.jpg", "caption": "a"}\n{', "notes.csv": "a,b\n1,2\n"})
    put(tmp_path, annotations__instances_val="", **{"annotations__instances_val.json": '{"images": []}'})
    return tmp_path


def test_images(images: Path) -> None:
    found = inspect(images)
    assert (found.images, found.videos, found.captions) == (5, 0, 3)
    assert [(file.path, file.format, file.entries, file.items) for file in found.files] == [
        ("captions.csv", "caption records", 8, 2)
    ]
    assert found.images_without_caption.examples == ["a/000000000001.jpg", "b/000000000001.jpg", "z/n.jpg"]
    assert found.captions_without_item.examples == ["gone.jpg"]
    assert found.captions_contested.examples == ["z/n.jpg"]
    assert found.captions_doubled.examples == ["a/x.jpg: one"]
    assert found.source_ids_doubled.examples == ["1"]
    assert found.not_recognised.examples == ["notes.csv"]
    assert found.boxes == ["annotations/instances_val.json"]
    assert list(found.unreadable) == ["broken.jsonl"]
    assert "line 2" in found.unreadable["broken.jsonl"]


def test_a_name_of_two_items_is_ambiguous_and_not_missing(tmp_path: Path) -> None:
    put(tmp_path, **{"one__a.jpg": "", "two__a.jpg": "", "c.csv": "image,caption\na.jpg,hello\nb.jpg,bye\n"})
    found = inspect(tmp_path)
    assert found.captions_ambiguous.examples == ["a.jpg"]
    assert found.captions_without_item.examples == ["b.jpg"]


def test_names_that_are_no_text_can_be_printed(tmp_path: Path) -> None:
    put(tmp_path, **{"a.jpg": "", "c.jsonl": r'{"image": "\ud800.jpg", "caption": "a"}'})
    assert inspect(tmp_path).captions_without_item.examples == [r"\ud800.jpg"]


def test_damaged_beginnings_are_listed(tmp_path: Path) -> None:
    put(tmp_path, **{"a.jpg": "", "deep.json": "[" * 100_000})
    assert list(inspect(tmp_path).unreadable) == ["deep.json"]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    put(tmp_path, **{"v__one.mp4": "", "v__two.mkv": "", "v__three.webm": "", "v__four.avi": "", "v__five.mov": ""})
    spoken = {"start": [0, 5, 4, 6, -1, 9], "end": [6, 6, 5, 9, 2, 8], "text": ["a", "b", "c", "d", "e", "f"]}
    put(tmp_path, **{"caption.json": json.dumps({"one": spoken, "gone": spoken})})
    put(tmp_path, **{"v__one.vtt": CUE, "v__two.en.vtt": CUE, "v__three.srt": "no times", "v__lost.vtt": CUE})
    put(tmp_path, **{"HowTo100M_v1.csv": "video_id,category_1,rank,task_id\none,Food,1,5\nmissing,Food,2,5\n"})
    put(tmp_path, **{"raw_caption.json": '{"one": {"start": [0'})
    return tmp_path


def test_videos(videos: Path) -> None:
    found = inspect(videos)
    assert (found.images, found.videos, found.segments) == (0, 5, 5 + 1)
    assert [(file.path, file.format, file.entries, file.items) for file in found.files] == [
        ("raw_caption.json", "HowTo100M narration", 0, 0),
        ("caption.json", "HowTo100M narration", 6, 1),
        ("1 x *.srt", "a file for each video", 0, 0),
        ("3 x *.vtt", "a file for each video", 1, 1),
        ("HowTo100M_v1.csv", "list of videos", 2, 1),
    ]
    assert found.videos_without_narration.examples == ["v/five.mov", "v/four.avi"]
    assert found.narration_without_video.examples == ["gone", "lost"]
    assert found.narration_doubled.examples == ["v/one.mp4: caption.json, v/one.vtt"]
    assert found.segments_out_of_order.count == 2
    assert found.segments_overlapping.examples == ["v/one.mp4: 0.0-6.0, then 5.0-6.0"]
    assert found.segments_out_of_bounds.count == 2
    assert found.listed_videos_missing.examples == ["missing"]
    assert found.unreadable.keys() == {"raw_caption.json", "v/three.srt"}


def test_segments_that_touch_do_not_overlap(tmp_path: Path) -> None:
    put(tmp_path, **{"v.mp4": "", "caption.json": '{"v": {"start": [0, 2], "end": [2, 3], "text": ["a", "b"]}}'})
    assert inspect(tmp_path).segments_overlapping.count == 0


def test_examples_are_few_and_the_count_is_whole(tmp_path: Path) -> None:
    put(tmp_path, **{f"{number}.jpg": "" for number in range(20)})
    finding = inspect(tmp_path).images_without_caption
    assert (finding.count, len(finding.examples)) == (20, 5)


def test_result_is_json(images: Path) -> None:
    document = json.loads(json.dumps(inspect(images).as_json()))
    assert document["captions_doubled"] == {"count": 1, "examples": ["a/x.jpg: one"]}


def test_empty_folder_and_no_folder(tmp_path: Path) -> None:
    assert inspect(tmp_path).images == 0
    with pytest.raises(SettingsError, match="cannot be used"):
        inspect(tmp_path / "gone")


def test_samples(samples: Path) -> None:
    coco, howto = inspect(samples / "coco"), inspect(samples / "howto100m")
    assert (coco.images, coco.captions, coco.images_without_caption.count) == (6, 18, 0)
    assert (howto.videos, howto.segments, howto.videos_without_narration.count) == (2, 8, 0)
    assert coco.unreadable == howto.unreadable == {}
