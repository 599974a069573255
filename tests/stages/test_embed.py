"""Embeddings of a short run as a store, and retrieval by the same vectors."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import faiss
import numpy as np
import pytest
from click.testing import CliRunner
from pretrain.narrated import narrated_videos
from pretrain.stores import that_has_seen_nothing
from stages.small_datasets import SHRINK, give_tokenizer

from vlprep.errors import SettingsError
from vlprep.pretrain.recipe import load_recipe, with_settings
from vlprep.shards import StoreReader
from vlprep.shards.arrays import flat_entries
from vlprep.stages.embed import embed
from vlprep.stages.evaluate import evaluate_retrieval
from vlprep.stages.import_clips import import_clips
from vlprep.stages.pretrain import pretrain
from vlprep_cli.main import cli


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("how")
    narrated_videos(folder / "vlprep", 12, segments=3)
    give_tokenizer(folder / "vlprep" / "text")
    return folder


@pytest.fixture(scope="module")
def run(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    settings = [*(one for one in SHRINK if not one.startswith("batches.tokens")), "model.video_layers=1"]
    pretrain([videos], with_settings(load_recipe("univl-stage1-small"), settings), out=out, device="cpu")
    return out


def test_every_narrated_segment_has_a_clip_and_a_text(run: Path, videos: Path, tmp_path: Path) -> None:
    report = embed(run, videos, out=tmp_path / "store")
    store = StoreReader(tmp_path / "store")
    assert (len(store), report.segments, report.status.failed) == (12, 36, 0)
    row = store[4]
    assert row["clips"].shape == row["texts"].shape == (3, report.size)
    texts = StoreReader(videos / "vlprep" / "text")
    assert [texts[number]["item_id"] for number in row["text_rows"].tolist()] == [row["id"]] * 3
    assert [texts[number]["start"] for number in row["text_rows"].tolist()] == row["times"][:, 0].tolist()


def test_a_second_run_does_nothing_and_writes_the_same(run: Path, videos: Path, tmp_path: Path) -> None:
    embed(run, videos, out=tmp_path / "one")
    embed(run, videos, out=tmp_path / "two")
    again = embed(run, videos, out=tmp_path / "one")
    assert again.segments == 0
    part = "part-00000.arrow"
    assert (tmp_path / "one" / part).read_bytes() == (tmp_path / "two" / part).read_bytes()


def test_a_faiss_index_over_the_store_ranks_as_evaluate_does(run: Path, videos: Path, tmp_path: Path) -> None:
    embed(run, videos, out=tmp_path / "store")
    table = StoreReader(tmp_path / "store").columns(["clips", "texts"])
    clips, texts = (
        np.concatenate([flat_entries(chunk) for chunk in table.column(name).chunks]) for name in table.column_names
    )
    index = faiss.IndexFlatIP(clips.shape[1])
    index.add(clips)
    _, found = index.search(texts, 5)
    hits = (found == np.arange(len(texts))[:, None]).any(1).mean()
    found = evaluate_retrieval(that_has_seen_nothing(run, tmp_path / "run"), videos).text_to_seen
    assert found.recall[5].value == pytest.approx(hits, abs=1 / len(texts))


def test_models_without_a_joint_space_are_refused(videos: Path, tmp_path: Path) -> None:
    recipe = with_settings(load_recipe("cbt-small"), [one for one in SHRINK if not one.startswith("batches.tokens")])
    pretrain([videos], recipe, out=tmp_path / "run", device="cpu")
    with pytest.raises(SettingsError, match="no joint space"):
        embed(tmp_path / "run", videos)
    found = evaluate_retrieval(that_has_seen_nothing(tmp_path / "run", tmp_path / "new"), videos)  # pair by pair
    assert (found.texts, found.candidates, found.seen) == (36, 36, "video")


def test_command(run: Path, videos: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["embed", str(run), str(videos), "--out", str(tmp_path / "store"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["segments"] == 36


def test_texts_of_one_video_share_a_candidate(run: Path, videos: Path, tmp_path: Path) -> None:
    """As MSR-VTT has twenty captions a video."""
    features = tmp_path / "features.pickle"
    arrays = {f"video{number}": np.random.default_rng(number).normal(size=(6, 16)) for number in range(5)}
    features.write_bytes(pickle.dumps(arrays))
    table = tmp_path / "captions.csv"
    rows = [f"video{number % 5},w{number} w{number + 1}" for number in range(15)]
    table.write_text("\n".join(["video_id,sentence", *rows]) + "\n")
    tokenizer = videos / "vlprep" / "text" / "tokenizer.json"
    import_clips(tmp_path / "set", features, captions=table, tokenizer=str(tokenizer))
    give_tokenizer(tmp_path / "set" / "vlprep" / "text")
    report = evaluate_retrieval(run, tmp_path / "set")
    assert (report.texts, report.candidates) == (15, 5)
    assert report.seen_to_text.chance[1] == pytest.approx(3 / 15)
