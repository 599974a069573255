"""The cluster stage whole: tokens as by hand, vocabularies kept and applied, resume, refusals."""

from __future__ import annotations

from pathlib import Path

import inline_engine
import numpy as np
import pytest

from vlprep.cluster.assign import AssignRule
from vlprep.cluster.train import TrainSettings
from vlprep.cluster.vocabulary import VOCABULARY_NAME, Vocabulary
from vlprep.errors import SettingsError, VlprepError
from vlprep.shards import StoreReader, StoreSettings, open_store
from vlprep.shards.schema import video_schema
from vlprep.shards.verify import verify
from vlprep.stages import run
from vlprep.stages.cluster_video import (
    ClusterReport,
    ClusterSettings,
    assign_tokens,
    find_or_train,
    lacks_features,
)
from vlprep.stages.run import RunSettings

DIM = 8
TRAINING = TrainSettings(branching=3, depth=2, iterations=5, seed=1)


@pytest.fixture(autouse=True)
def _inline(monkeypatch):
    monkeypatch.setattr(run, "run_parts", inline_engine.run_parts)


def features_of(video: int, clips: int) -> np.ndarray:
    rng = np.random.default_rng(video)
    centres = np.random.default_rng(99).standard_normal((12, DIM)) * 4
    return (centres[rng.integers(12, size=clips)] + rng.standard_normal((clips, DIM)) / 4).astype(np.float16)


def make_features(dataset: Path, videos: int = 20, name: str = "s3d", dim: int = DIM) -> Path:
    """A video store of videos that need not exist, 5 to 24 clips each; a failure among them."""
    store = open_store(
        dataset / "vlprep" / name, video_schema(dim), StoreSettings(kind="video", settings={}, weights=None)
    )
    store.plan([f"{number:03}.mp4" for number in range(videos)] + ["broken.mp4"], part_size=8)
    for part in store.pending():
        with store.write_part(part) as writer:
            for item in store.part_items(part):
                if item == "broken.mp4":
                    writer.fail(item, ValueError("no video"))
                    continue
                number = int(item[:3])
                features = features_of(number, 5 + number % 20)[:, :dim]
                times = 1.5 * np.arange(len(features))[:, None] + [0, 1.5]
                row = {"path": item, "source_id": f"id{number}", "times": times, "features": features}
                writer.add(item, {**row, "status": "ok", "frames": 9, "errors": 0})
    return store.folder


def settings(**changes: object) -> ClusterSettings:
    return ClusterSettings(**{"training": TRAINING, **changes})


def run_settings(**changes: object) -> RunSettings:
    return RunSettings(**{"device": "cpu", "part_size": 6, **changes})


def cluster(dataset: Path, chosen: ClusterSettings, how: RunSettings | None = None) -> ClusterReport:
    how = how or run_settings()
    return assign_tokens(dataset, chosen, find_or_train(dataset, chosen, how), how)


def by_hand(vector: np.ndarray, vocabulary: Vocabulary, rule: str) -> int:
    """The token of one vector, in float64."""

    def distance(level: int, node: int) -> float:
        return float(np.square(vocabulary.centroids[level - 1][node].astype(np.float64) - vector).sum())

    if rule == "flat":
        leaves = np.flatnonzero(vocabulary.present(vocabulary.depth))
        return int(min(leaves, key=lambda leaf: distance(vocabulary.depth, leaf)))
    node = 0
    for level in range(1, vocabulary.depth + 1):
        first = node * vocabulary.branching
        children = range(first, first + int(vocabulary.children[level - 1][node]))
        node = min(children, key=lambda child: distance(level, child))
    return node


@pytest.mark.parametrize("rule", ["tree", "flat"])
def test_tokens_are_those_found_by_hand(tmp_path, rule):
    source = StoreReader(make_features(tmp_path))
    report = cluster(tmp_path, settings(assign=AssignRule.parse(rule)))
    assert report.stage.folder == tmp_path / "vlprep" / "tokens"
    assert (report.stage.done, report.stage.status.rows, report.stage.status.failed) == (20, 20, 0)
    assert verify(report.stage.folder) == []
    vocabulary = Vocabulary.load(report.vocabulary)
    rows = {row["id"]: row for row in StoreReader(report.stage.folder)}
    assert rows.keys() == set(source.ids)
    for row in source:
        found = rows[row["id"]]
        assert found["tokens"].tolist() == [
            by_hand(vector, vocabulary, rule) for vector in row["features"].astype(np.float64)
        ]
        np.testing.assert_array_equal(found["times"], row["times"])
        assert found["source_id"] == row["source_id"]
    assert StoreReader(report.stage.folder).manifest.settings["assign"] == rule


def test_the_report_counts_and_judges(tmp_path):
    make_features(tmp_path)
    report = cluster(tmp_path, settings())
    tokens = np.concatenate([row["tokens"] for row in StoreReader(report.stage.folder)])
    assert report.tokens == len(tokens) == report.judged
    for judged, size in zip(report.levels, (3, 1), strict=True):
        share = np.bincount(tokens // size) / len(tokens)
        share = share[share > 0]
        assert judged.quality.perplexity == pytest.approx(np.exp(-(share * np.log(share)).sum()))
        assert judged.quality.largest == pytest.approx(share.max())
    assert 0 < report.levels[1].error < report.levels[0].error < 1
    recorded = Vocabulary.load(report.vocabulary).settings
    assert recorded["errors"] == pytest.approx([judged.error for judged in report.levels])


def test_new_videos_get_tokens_from_the_same_vocabulary(tmp_path):
    make_features(tmp_path)
    first = cluster(tmp_path, settings())
    before = first.vocabulary.read_bytes()
    rows = {row["id"]: row["tokens"].tolist() for row in StoreReader(first.stage.folder)}
    make_features(tmp_path, videos=26)
    report = cluster(tmp_path, settings())
    assert (report.stage.done, report.stage.status.rows) == (6, 26)
    assert report.vocabulary.read_bytes() == before
    after = {row["id"]: row["tokens"].tolist() for row in StoreReader(report.stage.folder)}
    assert rows.items() < after.items()


def test_training_again_gives_the_same_bytes(tmp_path):
    make_features(tmp_path)
    chosen = settings(polish=2, assign=AssignRule.parse("beam:4"))
    first, second = (cluster(tmp_path, chosen, run_settings(out=tmp_path / name)) for name in "ab")
    assert first.vocabulary.read_bytes() == second.vocabulary.read_bytes()
    for path in first.stage.folder.glob("*.arrow"):
        assert path.read_bytes() == (second.stage.folder / path.name).read_bytes()


def test_a_vocabulary_is_applied_to_other_videos(tmp_path):
    make_features(tmp_path / "one")
    make_features(tmp_path / "two", videos=4)
    trained = cluster(tmp_path / "one", settings())
    applied = cluster(tmp_path / "two", settings(vocabulary=trained.vocabulary))
    assert applied.vocabulary.read_bytes() == trained.vocabulary.read_bytes()
    one = {row["id"]: row["tokens"].tolist() for row in StoreReader(trained.stage.folder)}
    two = {row["id"]: row["tokens"].tolist() for row in StoreReader(applied.stage.folder)}
    assert two.items() < one.items()
    manifest = StoreReader(applied.stage.folder).manifest
    assert manifest.weights["source"] == str(trained.vocabulary)
    assert manifest.weights["sha256"] == StoreReader(trained.stage.folder).manifest.weights["sha256"]


def test_a_vocabulary_for_other_vectors_is_refused(tmp_path):
    make_features(tmp_path / "one")
    make_features(tmp_path / "two", dim=4)
    trained = cluster(tmp_path / "one", settings())
    with pytest.raises(SettingsError, match=r"for vectors of 8 numbers; those of .* have 4"):
        cluster(tmp_path / "two", settings(vocabulary=trained.vocabulary))


def test_other_settings_are_refused_before_any_training(tmp_path, monkeypatch):
    make_features(tmp_path)
    cluster(tmp_path, settings())
    monkeypatch.setattr("vlprep.stages.cluster_video.train", lambda *_: pytest.fail("trained"))
    assert cluster(tmp_path, settings()).stage.done == 0
    with pytest.raises(SettingsError, match=r"settings\.assign: the store has \"tree\", this run \"flat\""):
        cluster(tmp_path, settings(assign=AssignRule.parse("flat")))
    with pytest.raises(SettingsError, match=r"vocabulary\.depth"):
        cluster(tmp_path, settings(training=TrainSettings(branching=3, depth=1)))


@pytest.mark.parametrize("place", [4, -4])
def test_a_damaged_vocabulary_is_found_and_made_again(tmp_path, place):
    make_features(tmp_path)
    path = cluster(tmp_path, settings()).vocabulary
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[place] ^= 0xFF  # of the header's length; of the last centroid
    path.write_bytes(damaged)
    assert [problem.partition(":")[0] for problem in verify(path.parent)] == [VOCABULARY_NAME]
    with pytest.raises(VlprepError, match=rf"{VOCABULARY_NAME} is damaged, .* remove it .*--overwrite"):
        cluster(tmp_path, settings())
    path.unlink()
    assert [problem.partition(";")[0] for problem in verify(path.parent)] == [f"{VOCABULARY_NAME}: missing"]
    cluster(tmp_path, settings())
    assert path.read_bytes() == whole
    assert verify(path.parent) == []


def test_overwriting_trains_anew(tmp_path):
    make_features(tmp_path)
    cluster(tmp_path, settings())
    report = cluster(tmp_path, settings(training=TrainSettings(branching=2, depth=3)), run_settings(overwrite=True))
    assert Vocabulary.load(report.vocabulary).size == 8
    assert report.stage.status.rows == 20


def test_a_killed_run_goes_on_with_its_vocabulary(tmp_path, monkeypatch):
    make_features(tmp_path)
    whole = cluster(tmp_path, settings(), run_settings(out=tmp_path / "whole"))
    out = run_settings(out=tmp_path / "killed")
    cluster(tmp_path, settings(), run_settings(out=tmp_path / "killed", shard_of="1/2"))
    monkeypatch.setattr("vlprep.stages.cluster_video.train", lambda *_: pytest.fail("trained again"))
    killed = cluster(tmp_path, settings(), out)
    for path in whole.stage.folder.glob("*.arrow"):
        assert path.read_bytes() == (killed.stage.folder / path.name).read_bytes()


def test_few_vectors_are_warned_about(tmp_path, caplog):
    make_features(tmp_path, videos=2)
    cluster(tmp_path, settings(training=TrainSettings()))
    assert "11 vectors for 20736 clusters" in caplog.text
    assert "for trying only" in caplog.text


def test_whether_features_are_missing(tmp_path):
    assert lacks_features(tmp_path, "s3d")
    store = open_store(
        tmp_path / "vlprep" / "s3d", video_schema(DIM), StoreSettings(kind="video", settings={}, weights=None)
    )
    store.plan(["000.mp4", "broken.mp4"], part_size=1)
    assert lacks_features(tmp_path, "s3d")
    make_features(tmp_path, videos=1)
    assert not lacks_features(tmp_path, "s3d")
    assert not lacks_features(Path("/nowhere"), str(store.folder))


@pytest.mark.parametrize(("changes", "message"), [({"sample": 0}, "--sample"), ({"polish": -1}, "--polish")])
def test_wrong_settings_say_which(changes, message):
    with pytest.raises(SettingsError, match=message):
        settings(**changes)


def test_the_file_is_in_the_folder_of_the_store(tmp_path):
    make_features(tmp_path)
    assert cluster(tmp_path, settings()).vocabulary == tmp_path / "vlprep" / "tokens" / VOCABULARY_NAME
