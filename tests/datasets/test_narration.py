"""What is said when: every published form, given to the right videos."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest

from vlprep.datasets import Segment, open_dataset
from vlprep.datasets.narration import usable
from vlprep.errors import ItemError, SettingsError

LISTS = {"start": [0.0, 3.5], "end": [3.5, 6], "text": ["mix the flour", "now bake"]}
SPOKEN = [(0.0, 3.5, "mix the flour"), (3.5, 6.0, "now bake")]
VTT = "WEBVTT\n\n00:00.000 --> 00:03.500\nmix the flour\n\n00:03.500 --> 00:06.000\nnow bake\n"


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def put(root: Path, name: str, content: str | bytes) -> None:
    touch(root, name)
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def narration(root: Path) -> dict[str, list[tuple[float, float, str]]]:
    dataset = open_dataset(root)
    return {
        video.id: [(s.start, s.end, s.text) for s in segments]
        for video in dataset.videos
        if (segments := dataset.narration_of(video))
    }


TABLES = {
    "caption.json": json.dumps({"dQw4w9WgXcQ": LISTS, "other": LISTS}),
    "raw_caption.json": json.dumps({"other": LISTS, "dQw4w9WgXcQ": dict(reversed(LISTS.items()))}),
    "caption.pickle": pickle.dumps({"dQw4w9WgXcQ": LISTS}),
    "youcookii_data.pickle": pickle.dumps(
        {"dQw4w9WgXcQ": {name: np.array(values, object) for name, values in LISTS.items()} | {"transcript": ["", ""]}}
    ),
    "validation_youcook.csv": (
        "end,start,task,text,video_id\n3.5,0,1,mix the flour,dQw4w9WgXcQ\n6,3.5,1,now bake,dQw4w9WgXcQ\n"
    ),
    "howto100m_captions/dQw4w9WgXcQ.csv": ",start,end,text\n0,0.0,3.5,mix the flour\n1,3.5,6.0,now bake\n",
    "segments.jsonl": "".join(
        json.dumps({"video": "food/dQw4w9WgXcQ.mp4", "start": start, "end": end, "sentence": text}) + "\n"
        for start, end, text in SPOKEN
    ),
    "food/dQw4w9WgXcQ.vtt": VTT,
    "food/dQw4w9WgXcQ.en.vtt": VTT,
    "food/dQw4w9WgXcQ.en-orig.vtt": VTT,
    "food/dQw4w9WgXcQ.srt": VTT.removeprefix("WEBVTT\n\n"),
    "subtitles/Cooking [dQw4w9WgXcQ].en-GB.vtt": VTT,
}


@pytest.mark.parametrize("name", TABLES)
def test_every_form(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "food/dQw4w9WgXcQ.mp4", "food/unheard_of.mp4")
    put(tmp_path, name, TABLES[name])
    assert narration(tmp_path) == {"food/dQw4w9WgXcQ.mp4": SPOKEN}


@pytest.mark.parametrize("video", ["dQw4w9WgXcQ.mp4.webm", "a/Pan cakes! [dQw4w9WgXcQ].mkv", "dQw4w9WgXcQ.MOV"])
def test_video_names_of_downloaders(tmp_path: Path, video: str) -> None:
    touch(tmp_path, video)
    put(tmp_path, "caption.json", TABLES["caption.json"])
    assert narration(tmp_path) == {video: SPOKEN}


def test_segments_carry_the_videos_id(tmp_path: Path) -> None:
    touch(tmp_path, "a [dQw4w9WgXcQ].mp4")
    put(tmp_path, "a [dQw4w9WgXcQ].en.vtt", VTT)
    dataset = open_dataset(tmp_path)
    assert dataset.narration_of(dataset.videos[0])[0] == Segment("dQw4w9WgXcQ", 0.0, 3.5, "mix the flour")


def cue(text: str) -> str:
    return f"WEBVTT\n\n00:00.000 --> 00:01.000\n{text}\n"


def test_order_of_preference(tmp_path: Path) -> None:
    """Whole sentences, then sentences without stop words, then the video's own files: plain, English, others."""
    touch(tmp_path, "talk.mp4")

    def first() -> str:
        return narration(tmp_path)["talk.mp4"][0][2]

    put(tmp_path, "talk.de.vtt", cue("de"))
    assert first() == "de"
    put(tmp_path, "talk.en.srt", cue("en srt").removeprefix("WEBVTT\n\n"))
    assert first() == "en srt"
    put(tmp_path, "talk.en.vtt", cue("en vtt"))
    assert first() == "en vtt"
    put(tmp_path, "talk.vtt", cue("plain"))
    assert first() == "plain"
    put(tmp_path, "caption.json", json.dumps({"talk": {"start": [0], "end": [1], "text": ["stopped"]}}))
    assert first() == "stopped"
    put(tmp_path, "raw_caption.json", json.dumps({"talk": {"start": [0], "end": [1], "text": ["raw"]}}))
    assert first() == "raw"


def test_subtitles_beside_a_video_are_not_its_namesakes(tmp_path: Path) -> None:
    touch(tmp_path, "a/talk.mp4", "b/talk.mp4")
    put(tmp_path, "a/talk.vtt", cue("of a"))
    assert narration(tmp_path) == {"a/talk.mp4": [(0.0, 1.0, "of a")]}


def test_dots_in_a_videos_name_are_no_language(tmp_path: Path) -> None:
    touch(tmp_path, "part.one.mp4", "part.mp4")
    put(tmp_path, "part.one.vtt", cue("one"))
    put(tmp_path, "part.two.vtt", cue("language two"))
    assert narration(tmp_path) == {"part.one.mp4": [(0.0, 1.0, "one")], "part.mp4": [(0.0, 1.0, "language two")]}


def test_what_downloaders_leave_is_not_read(tmp_path: Path) -> None:
    touch(tmp_path, "talk.mp4")
    put(tmp_path, "talk.info.json", '{"captions": "none"}')
    put(tmp_path, "talk.live_chat.json", "{}")
    put(tmp_path, "talk.json", '{"caption": "none"}')
    assert narration(tmp_path) == {}
    assert open_dataset(tmp_path).annotations.unknown == []


def test_listed_path_names_a_video(tmp_path: Path) -> None:
    """HowTo100M's list with the path that its code asks for, written after a blank."""
    touch(tmp_path, "videos/first one.mp4", "videos/second.mp4")
    put(tmp_path, "HowTo100M_v1.csv", "video_id,rank,task_id, path\nother,1,52907, videos/first one\n")
    put(tmp_path, "caption.json", TABLES["caption.json"])
    assert [video.source_id for video in open_dataset(tmp_path).videos] == ["other", "second"]
    assert narration(tmp_path) == {"videos/first one.mp4": SPOKEN}


def test_usable_segments() -> None:
    def segment(start: float, end: float, text: str = "x") -> Segment:
        return Segment("v", start, end, text)

    given = [
        segment(5, 9),
        segment(2, 4),
        segment(2, 3),
        segment(-1, 1),
        segment(-3, -1),
        segment(4, 3),
        segment(math.nan, 3),
        segment(1, math.inf),
        segment(7, 7),
        segment(1, 2, ""),
    ]
    assert usable(given) == (segment(0, 1), segment(2, 3), segment(2, 4), segment(5, 9), segment(7, 7))


def test_texts_that_are_no_texts(tmp_path: Path) -> None:
    touch(tmp_path, "v.mp4")
    put(
        tmp_path,
        "caption.json",
        '{"v": {"start": [0, 1, 2, 3], "end": [1, 2, 3, 4], "text": [NaN, null, 5, " a  b "]}}',
    )
    assert narration(tmp_path) == {"v.mp4": [(2.0, 3.0, "5"), (3.0, 4.0, "a b")]}


DAMAGED_TABLES = {
    "caption.json": ('{"v": {"start": [0], "end": [1], "text": ["a"]}, "w"', "at byte .*not valid JSON"),
    "a/caption.json": ('{"v": {"start": [0, 1], "end": [1], "text": ["a"]}}', "video v: not lists of start, end"),
    "long/caption.json": (
        '{"v": {"start": [0], "end": [1' + "0" * 400 + '], "text": ["a"]}}',
        "video v: not lists of start, end",
    ),
    "b/caption.json": ('{"v": {"start": [0], "text": ["a"]}}', "video v: not lists of start, end"),
    "caption.pickle": (b"\x80\x04cos\nsystem\n", "caption.pickle"),
    "youcook_data.pkl": (pickle.dumps([1, 2]), "not narration: expected a dictionary"),
    "x.csv": ("video_id,start,end,text\nv,0,soon,a\n", "line 2: not a segment"),
    "y.csv": ("video_id,start,end,text\nv,0,1,a\n,0,1,a\n", "line 3: no video"),
}


@pytest.mark.parametrize("name", DAMAGED_TABLES)
def test_damaged_tables_name_themselves(tmp_path: Path, name: str) -> None:
    content, reason = DAMAGED_TABLES[name]
    touch(tmp_path, "v.mp4")
    put(tmp_path, name, content)
    dataset = open_dataset(tmp_path)
    with pytest.raises(SettingsError, match=reason) as caught:
        dataset.narration_of(dataset.videos[0])
    assert str(tmp_path / name) in str(caught.value)


def test_pickle_that_calls_something_is_not_run(tmp_path: Path) -> None:
    touch(tmp_path, "v.mp4")
    put(tmp_path, "caption.pickle", b"cos\nsystem\n(S'touch " + str(tmp_path / "owned").encode() + b"'\ntR.")
    dataset = open_dataset(tmp_path)
    with pytest.raises(SettingsError):
        dataset.narration_of(dataset.videos[0])
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(("name", "content"), [("v.srt", "no times"), ("v.csv", "start,end,text\n0,x,a\n")])
def test_damaged_file_of_one_video_concerns_only_it(tmp_path: Path, name: str, content: str) -> None:
    touch(tmp_path, "v.mp4", "w.mp4")
    put(tmp_path, name, content)
    put(tmp_path, "w.vtt", VTT)
    dataset = open_dataset(tmp_path)
    with pytest.raises(ItemError, match=name):
        dataset.narration_of(dataset.videos[0])
    assert len(dataset.narration_of(dataset.videos[1])) == 2


def test_sample(samples: Path) -> None:
    found = narration(samples / "howto100m")
    assert list(found) == ["videos/flipping_a_pancake.mkv", "videos/v_GGSY1Qvo990.mp4"]
    assert found["videos/v_GGSY1Qvo990.mp4"][-1] == (13.2, 18.0, "and drop it back on the floor")
