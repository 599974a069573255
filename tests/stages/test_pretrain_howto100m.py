"""HowTo100M from the stores of a dataset: what is asked for, a run, its file for the published code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrain.narrated import FIRST_WORD, WORD_COUNT, narrated_videos

from vlprep.errors import SettingsError
from vlprep.interop.initial import load_initial
from vlprep.pretrain.checkpoint import read_model
from vlprep.pretrain.models.howto100m import HowTo100M, HowTo100MConfig
from vlprep.pretrain.recipe import Recipe, load_recipe, with_settings
from vlprep.stages.checkpoints import export_checkpoint
from vlprep.stages.pretrain import pretrain
from vlprep.stages.pretrain_data import find_stores
from vlprep.text.word_vectors import write_word_folder


def small(*settings: str) -> Recipe:
    run = ("steps=6", "save_every=3", "log_every=3", "loaders=0", "validation_share=0.2", "validate_every=0")
    assignments = [f"train.{one}" for one in run]
    return with_settings(
        load_recipe("howto100m-small"), ["model.joint=16", "batches.samples=4", *assignments, *settings]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stores = tmp_path / "howto" / "vlprep"
    narrated_videos(stores, 20)
    (stores / "text").rename(stores / "words")
    vectors = np.random.default_rng(0).normal(size=(FIRST_WORD + WORD_COUNT, 6)).astype(np.float32)
    write_word_folder(stores / "words", [f"w{number}" for number in range(len(vectors))], vectors)
    manifest = stores / "words" / "store.json"
    content = json.loads(manifest.read_text())
    content["settings"] |= {"tokenizer": "words:x", "vocabulary": len(vectors), "sha256": "x"}
    content["settings"] |= {"lower": True, "stop_words": False}
    manifest.write_text(json.dumps(content))
    return tmp_path / "howto"


def test_a_run_resumes_to_the_same_weights_and_is_exported(folder: Path, tmp_path: Path) -> None:
    report = pretrain([folder], small(), device="cpu")
    assert report.figures.keys() == {"howto100m/loss", "howto100m/accuracy"}
    again = tmp_path / "again"
    shutil.copytree(report.folder, again)
    shutil.rmtree(again / "checkpoints" / "step-00000006")
    resumed = pretrain([folder], small(), out=again, device="cpu")
    first, second = read_model(report.checkpoint), read_model(resumed.checkpoint)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())

    [file] = export_checkpoint(report.folder, "howto100m").files
    assert file.name == "howto100m_pt_model.pth"
    published = torch.load(file)
    assert published.keys() == first.keys()
    model = HowTo100M(HowTo100MConfig(vocabulary=40, word_dim=6, clip_dim=16, joint=16))
    assert not load_initial(model, str(file)).initial
    started = pretrain([folder], small(f"model.init='{file}'"), out=tmp_path / "started", device="cpu")
    assert started.steps == 6
    with pytest.raises(SettingsError, match=r"text_pooling\.fc\.weight is 16 x 6 there and 8 x 6"):
        pretrain([folder], small(f"model.init='{file}'", "model.joint=8"), out=tmp_path / "other", device="cpu")


def test_what_is_missing_is_named_with_its_command(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"no resnet152 store yet.*\n  vlprep extract-video .*--model resnet152$"):
        find_stores(folder, small("data.features=['s3d', 'resnet152']"))
    with pytest.raises(SettingsError, match=r"names no store of clip features"):
        find_stores(folder, small("data.features=[]"))
    with pytest.raises(SettingsError, match="batched by their number"):
        pretrain([folder], small("batches.samples=0"), device="cpu")
    shutil.rmtree(folder / "vlprep" / "words")
    with pytest.raises(SettingsError, match=r"\n  vlprep tokenize .*--tokenizer words:train:300 --out .*vlprep/words$"):
        find_stores(folder, small())


def test_pieces_are_no_words(folder: Path) -> None:
    manifest = folder / "vlprep" / "words" / "store.json"
    manifest.write_text(manifest.read_text().replace("words:x", "train:8000"))
    with pytest.raises(SettingsError, match=r"made with train:8000, and howto100m reads words with vectors"):
        find_stores(folder, small())
