"""The pretrain stage: runs that resume, missing stores that are named, validation that is logged."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from pretrain.stores import text, told_videos, write
from stages.small_datasets import SHRINK, give_tokenizer

from vlprep.cluster.train import TrainSettings, train
from vlprep.cluster.vocabulary import VOCABULARY_NAME
from vlprep.errors import SettingsError
from vlprep.pretrain.checkpoint import checkpoints, read_state
from vlprep.pretrain.recipe import Recipe, load_recipe, with_objectives, with_settings
from vlprep.pretrain.run_folder import as_toml, read_metrics
from vlprep.shards.schema import text_schema
from vlprep.stages.pretrain import Begun, pretrain


@pytest.fixture
def recipe() -> Recipe:
    return with_settings(load_recipe("uniter-small"), SHRINK)


def test_a_run_leaves_checkpoints_metrics_and_its_recipe(images, recipe, tmp_path) -> None:
    events: list[object] = []
    report = pretrain([images], recipe, out=tmp_path / "run", device="cpu", on_event=events.append)
    begun = events[0]
    assert isinstance(begun, Begun)
    assert 0 < begun.held_out < begun.samples == 40
    assert 0.5 < begun.fill <= 1
    assert 0 <= begun.padding_saved < 1
    assert report.curves.read_bytes()[:4] == b"\x89PNG"
    assert read_state(report.checkpoint).step == report.steps == 8
    assert load_recipe(str(report.folder / "recipe.toml")) == recipe
    entries = read_metrics(report.folder)
    assert [entry["step"] for entry in entries if entry["kind"] == "train"] == [2, 4, 6, 8]
    assert [entry["step"] for entry in entries if entry["kind"] == "validation"] == [4, 8]
    assert {"mlm/accuracy", "mlm/accuracy without", "itm/auc", "mrc-kl/loss"} <= report.figures.keys()


def test_a_store_that_is_not_whole_is_told(images, recipe, tmp_path) -> None:
    torn = shutil.copytree(images, tmp_path / "torn")
    more = {f"{number:03}.jpg#0": text(f"{number:03}.jpg", [11, 21]) for number in range(40)}
    shutil.rmtree(torn / "vlprep" / "text")
    write(torn / "vlprep" / "text", text_schema(), "text", more, part_size=30)
    give_tokenizer(torn / "vlprep" / "text")
    with (torn / "vlprep" / "text" / "part-00001.arrow").open("r+b") as part:
        part.truncate(100)
    events: list[object] = []
    pretrain([torn], recipe, out=tmp_path / "run", device="cpu", on_event=events.append)
    [note] = events[0].notes
    assert note.startswith(f"{torn / 'vlprep' / 'text'} is not whole: 10 of its items are still to do")


def test_the_same_call_resumes_and_other_settings_are_refused(images, recipe, tmp_path) -> None:
    whole = pretrain([images], recipe, out=tmp_path / "whole", device="cpu")
    pretrain([images], with_settings(recipe, ["train.steps=8"]), out=tmp_path / "run", device="cpu")
    shutil.rmtree(checkpoints(tmp_path / "run" / "checkpoints")[-1])
    events: list[object] = []
    report = pretrain([images], recipe, out=tmp_path / "run", device="cpu", on_event=events.append)
    assert isinstance(events[0], Begun)
    assert events[0].resumed_from == 4
    ours, theirs = ((folder / "model.safetensors").read_bytes() for folder in (report.checkpoint, whole.checkpoint))
    assert ours == theirs
    losses = [
        [(entry["step"], entry.get("losses"), entry.get("figures")) for entry in read_metrics(folder)]
        for folder in (tmp_path / "run", tmp_path / "whole")
    ]
    assert losses[0] == losses[1]  # what was logged after the checkpoint is taken back, not doubled
    with pytest.raises(SettingsError, match=r"optimiser\.lr: the run has"):
        pretrain([images], with_settings(recipe, ["optimiser.lr=1.0"]), out=tmp_path / "run", device="cpu")
    other = with_settings(recipe, ["optimiser.lr=0.1"])
    again = pretrain([images], other, out=tmp_path / "run", resume="never", device="cpu")
    assert again.steps == 8


def test_videos_train_videobert(tmp_path) -> None:
    told_videos(tmp_path / "vlprep")
    give_tokenizer(tmp_path / "vlprep" / "text")
    recipe = with_settings(load_recipe("videobert-small"), SHRINK)
    report = pretrain([tmp_path], recipe, device="cpu")
    assert report.folder == tmp_path / "vlprep" / "runs" / "pretrain"
    assert {"mfm/accuracy", "mfm/accuracy without", "align/auc"} <= report.figures.keys()


def test_tokens_need_the_vocabulary_that_made_them_and_all_the_same(tmp_path) -> None:
    recipe = with_objectives(with_settings(load_recipe("videobert-small"), SHRINK), "mfm")
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        told_videos(folder / "vlprep")
        give_tokenizer(folder / "vlprep" / "text")
    vocabularies = [folder / "vlprep" / "tokens" / VOCABULARY_NAME for folder in folders]
    train(np.eye(40, 6, dtype=np.float32), TrainSettings(branching=20, depth=1)).save(vocabularies[1])
    with pytest.raises(SettingsError, match=r"different vocabularies.*--vocabulary .*/a/vlprep/tokens"):
        pretrain(folders, recipe, device="cpu")
    vocabularies[1].unlink()
    with pytest.raises(SettingsError, match="vlprep cluster-video"):
        pretrain(folders, recipe, device="cpu")


def test_what_is_missing_is_named_with_the_command_that_makes_it(tmp_path, recipe) -> None:
    with pytest.raises(SettingsError) as caught:
        pretrain([tmp_path], recipe, device="cpu")
    assert f"vlprep extract-regions {tmp_path}" in str(caught.value)
    assert f"vlprep tokenize {tmp_path}" in str(caught.value)
    with pytest.raises(SettingsError, match="vlprep cluster-video"):
        pretrain([tmp_path], with_objectives(recipe, "mfm"), device="cpu")
    with pytest.raises(SettingsError, match="there are mlm"):
        pretrain([tmp_path], replace(recipe, objectives={"mim": recipe.objectives["mlm"]}), device="cpu")


def test_toml_survives() -> None:
    import tomllib

    table = {"a": {"x": 1e-6, "y": [0.9, 0.98], "z": 'w"x', "deep": {"flag": True}}, "b": {"n": 3}}
    assert tomllib.loads(as_toml(table)) == table
