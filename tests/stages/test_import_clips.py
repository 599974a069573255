"""Published features of retrieval benchmarks, in each of their forms, evaluated by a model trained on narrated
videos.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from vlprep.errors import SettingsError
from vlprep.interop.clip_features import read_clip_features
from vlprep.shards import StoreReader
from vlprep.stages.import_clips import import_clips
from vlprep_cli.main import cli

SAID = ["cut the onion", "fry the rice", "boil water", "serve it hot"]


def pooled(size: int, number: int) -> np.ndarray:
    return np.full(size, number, np.float32)


def youcook(folder: Path) -> Path:
    """howto100m's list: two clips of each video."""
    entries = [
        {"2d": pooled(8, number), "3d": pooled(6, number), "caption": said, "id": f"video{number // 2}"}
        for number, said in enumerate(SAID)
    ]
    path = folder / "youcook_val.pkl"
    path.write_bytes(pickle.dumps(entries))
    return path


def test_howto100m_list_of_clips(tmp_path: Path) -> None:
    report = import_clips(tmp_path / "set", youcook(tmp_path), tokenizer="train:60")
    assert (report.clips, report.texts) == (4, 4)
    flat, deep, text = (StoreReader(folder) for folder in report.stores)
    for row in range(4):
        number = int(flat[row]["features"][0, 0])
        assert flat[row]["features"].shape == (1, 8)
        assert deep[row]["features"].shape == (1, 6)
        assert text[text.index(f"{flat[row]['id']}#0")]["text"] == SAID[number]


def test_howto100m_torch_file_with_a_table(tmp_path: Path) -> None:
    path = tmp_path / "MSRVTT_features.pth"
    names = [f"video{number}" for number in range(5)]
    torch.save({s: {name: torch.full((7,), i + 0.5) for i, name in enumerate(names)} for s in ("2d", "3d")}, path)
    table = tmp_path / "MSRVTT_test.csv"
    lines = [f"ret{n},msr{n},video{n + 2},{said}" for n, said in enumerate(SAID)]
    table.write_text("\n".join(["key,vid_key,video_id,sentence", *lines]) + "\n")
    report = import_clips(tmp_path / "set", path, captions=table, tokenizer="train:60")
    # videos 0 and 1 have no sentence, and the last sentence is of a video that the features lack
    assert (report.clips, report.clips_without_text, report.texts, report.texts_without_clip) == (3, 2, 3, 1)


def test_univl_pickles_and_a_split(tmp_path: Path) -> None:
    features = tmp_path / "youcookii_videos_features.pickle"
    features.write_bytes(pickle.dumps({f"v{n}": np.full((9, 5), n, np.float32) for n in range(3)}))
    captions = tmp_path / "youcookii_data.pickle"
    lists = {
        "start": np.array([0.0, 4.0], object),
        "end": np.array([3.0, 8.5], object),
        "text": np.array(SAID[:2], object),
        "transcript": np.array(["none", "none"], object),
    }
    captions.write_bytes(pickle.dumps({f"v{n}": lists for n in range(3)}))
    split = tmp_path / "youcookii_val.csv"
    split.write_text("video_id,feature_file\nv0,v0\nv2,v2\n")
    report = import_clips(tmp_path / "set", features, captions=captions, only=split, tokenizer="train:60")
    assert (report.clips, report.texts, report.texts_without_clip) == (2, 4, 2)
    store, text = (StoreReader(folder) for folder in report.stores)
    assert store[1]["times"][-1].tolist() == [8, 9]
    assert {text[row]["end"] for row in range(4)} == {3.0, 8.5}


def test_msrvtt_json_gives_a_video_many_texts(tmp_path: Path) -> None:
    features = tmp_path / "msrvtt.pickle"
    features.write_bytes(pickle.dumps({"video0": np.ones((4, 5), np.float16)}))
    captions = tmp_path / "MSRVTT_data.json"
    sentences = [{"sen_id": n, "video_id": "video0", "caption": said} for n, said in enumerate(SAID)]
    captions.write_text(json.dumps({"videos": [], "sentences": sentences}))
    assert import_clips(tmp_path / "set", features, captions=captions, tokenizer="train:60").texts == 4


def test_the_same_import_twice_is_the_same(tmp_path: Path) -> None:
    first = import_clips(tmp_path / "a", youcook(tmp_path), tokenizer="train:60")
    import_clips(tmp_path / "a", youcook(tmp_path), tokenizer="train:60")
    second = import_clips(tmp_path / "b", youcook(tmp_path), tokenizer="train:60")
    for one, other in zip(first.stores, second.stores, strict=True):
        assert (one / "part-00000.arrow").read_bytes() == (other / "part-00000.arrow").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"2d": pooled(4, 0), "caption": "x"}], "entry 0 has no 3d, id"),
        ({}, "not features of clips"),
        ({"a": "text"}, "not one of features"),
        ({"a": np.ones((2, 3), np.float32), "b": np.ones((2, 4), np.float32)}, "different sizes"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "features.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(SettingsError, match=message) as error:
        read_clip_features(path)
    assert str(path) in str(error.value)


def test_command_says_what_was_left_out(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli, ["import", "clip-features", str(tmp_path / "set"), str(youcook(tmp_path)), "--tokenizer", "train:60"]
    )
    assert done.exit_code == 0, done.output
    assert "4 with a caption, 0 without" in done.output
