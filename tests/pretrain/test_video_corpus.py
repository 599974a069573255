"""Narrated videos from stores: what is joined, what is left out, what clips and neighbours a segment has."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from pretrain.stores import text, write

from vlprep.errors import SettingsError
from vlprep.pretrain.base import StoreFacts
from vlprep.pretrain.corpus import DatasetStores, Mixture
from vlprep.pretrain.dual import narrated_clips
from vlprep.pretrain.narration import clips_in, widened
from vlprep.pretrain.places import CorpusSettings
from vlprep.pretrain.setup import store_facts
from vlprep.pretrain.video_corpus import VideoCorpus
from vlprep.shards.schema import text_schema, video_schema


def featured(clips, dim, *, seconds=1.0, source=None):
    starts = np.arange(clips) * seconds
    return {
        "source_id": source,
        "duration": clips * seconds,
        "fps": 25.0,
        "times": np.stack([starts, starts + seconds], 1),
        "features": np.arange(clips)[:, None] * np.ones((1, dim)),
        "status": "ok",
        "frames": clips,
        "errors": 0,
    }


@pytest.fixture
def stores(tmp_path):
    """a: told three times; b: not in the second store; c: silent; d: told by its own id, once after its end."""
    first = {"a.mp4": featured(10, 4), "b.mp4": featured(5, 4), "c.mp4": featured(5, 4)}
    first["d.mp4"] = featured(6, 4, source="D")
    second = {name: featured(8, 6, seconds=1.5, source=first[name]["source_id"]) for name in ("a.mp4", "c.mp4")}
    second["other/d.mp4"] = featured(4, 6, seconds=1.5, source="D")
    texts = {
        "a.mp4#0": text("a.mp4", [3, 4], start=4.0, end=6.0),
        "a.mp4#1": text("a.mp4", [5], start=0.5, end=2.0),
        "a.mp4#2": text("a.mp4", [], start=2.0, end=4.0),
        "a.mp4#3": text("a.mp4", [6] * 9, start=2.0, end=4.0),
        "a.mp4#4": text("a.mp4", [9]),
        "b.mp4#0": text("b.mp4", [1], start=0.0, end=2.0),
        "d#0": text("elsewhere", [7], start=5.0, end=5.5, source="D"),
        "d#1": text("elsewhere", [8], start=6.5, end=9.0, source="D"),
        "e.mp4#0": text("e.mp4", [1], start=0.0, end=2.0),
    }
    return DatasetStores(
        text=write(tmp_path / "text", text_schema(), "text", texts),
        features=(
            write(tmp_path / "one", video_schema(4), "video", first),
            write(tmp_path / "two", video_schema(6), "video", second),
        ),
    )


def test_a_sample_is_a_video_with_what_all_its_stores_have(stores):
    corpus = VideoCorpus(stores, CorpusSettings(max_text=8))
    assert len(corpus) == 2
    video = corpus.sample(0).video
    assert [features.shape for features in video.features_CD] == [(10, 4), (8, 6)]
    np.testing.assert_array_equal(video.times_C2[1][1], [1.5, 3.0])
    np.testing.assert_array_equal(video.spans_N2, [[0.5, 2], [4, 6], [0, 10]])
    assert [ids.tolist() for ids in video.texts] == [[5], [3, 4], [9]]
    assert [ids.tolist() for ids in corpus.sample(1).video.texts] == [[7]]
    assert corpus.items().tolist() == [0, 3]
    assert [(ids.tolist(), span) for ids, span in narrated_clips(corpus.sample(1))] == [([7], (5.0, 5.5))]


def test_what_makes_no_sample_is_counted(stores):
    assert +VideoCorpus(stores, CorpusSettings(max_text=8)).left_out == {
        "texts without a word": 1,
        "texts that are too long": 1,
        "texts without a video": 1,
        "videos without two": 1,
        "videos without narration": 1,
        "segments without a clip": 1,
    }


def test_datasets_go_together(stores):
    corpus = VideoCorpus(stores, CorpusSettings())
    mixture = Mixture([corpus, corpus])
    assert mixture.usable_for(frozenset({"video", "words"})).tolist() == [0, 1, 2, 3]
    assert not len(mixture.usable_for(frozenset({"regions"})))
    sample = mixture.sample(3)
    assert sample.key == 3
    assert sample.video.texts[0].tolist() == [7]
    assert store_facts([corpus, corpus]) == StoreFacts(clip_dims=(4, 6))
    swapped = VideoCorpus(DatasetStores(text=stores.text, features=stores.features[::-1]), CorpusSettings())
    with pytest.raises(SettingsError, match="same clip dims"):
        store_facts([corpus, swapped])


def test_it_goes_to_a_loader_process(stores):
    corpus = pickle.loads(pickle.dumps(VideoCorpus(stores, CorpusSettings())))
    assert corpus.sample(1).video.texts[0].tolist() == [7]


def test_clips_of_a_second_each_are_those_that_are_published():
    times_C2 = np.stack([np.arange(10), np.arange(10) + 1], 1).astype(float)
    for start, end in ((0.0, 0.4), (2.3, 4.0), (2.3, 4.9), (8.0, 20.0)):
        assert clips_in(times_C2, start, end) == slice(int(start), min(10, int(end) + 1))
    assert not len(times_C2[clips_in(times_C2, 11.0, 12.0)])


def test_a_short_segment_takes_the_neighbours_that_keep_it_shortest():
    spans_N2 = np.array([[0, 2], [2, 3], [3.5, 4], [4, 6], [9, 20]], np.float32)
    assert widened(spans_N2, 2, 0.5) == ([2], (3.5, 4.0))
    assert widened(spans_N2, 2, 3.0) == ([2, 1, 0], (0.0, 4.0))
    assert widened(spans_N2, 0, 3.5) == ([0, 1, 2], (0.0, 4.0))
    assert widened(spans_N2, 4, 100.0) == ([4, 3, 2, 1, 0], (0.0, 20.0))


def test_of_two_neighbours_alike_the_earlier_comes_first():
    assert widened(np.array([[0, 1], [1, 2], [2, 3]], np.float32), 1, 2.0)[0] == [1, 0]


def test_without_a_usable_text_there_is_no_sample(stores):
    nobody = replace(
        stores, text=write(stores.text.with_name("foreign"), text_schema(), "text", {"x": text("x.mp4", [5])})
    )
    assert len(VideoCorpus(nobody, CorpusSettings())) == 0
