"""HowTo100M from the stores of a dataset: what is asked for, a run, its file for the published code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from stages.small_datasets import howto_dataset, small_howto100m

from vlprep.errors import SettingsError
from vlprep.interop.initial import load_initial
from vlprep.pretrain.checkpoint import read_model
from vlprep.pretrain.models.howto100m import HowTo100M, HowTo100MConfig
from vlprep.stages.checkpoints import export_checkpoint
from vlprep.stages.pretrain import pretrain
from vlprep.stages.pretrain_data import find_stores


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return howto_dataset(tmp_path / "howto")


def test_a_run_resumes_to_the_same_weights_and_is_exported(folder: Path, tmp_path: Path) -> None:
    report = pretrain([folder], small_howto100m(), device="cpu")
    assert report.figures.keys() == {"howto100m/loss", "howto100m/accuracy"}
    again = tmp_path / "again"
    shutil.copytree(report.folder, again)
    shutil.rmtree(again / "checkpoints" / "step-00000006")
    resumed = pretrain([folder], small_howto100m(), out=again, device="cpu")
    first, second = read_model(report.checkpoint), read_model(resumed.checkpoint)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())

    [file] = export_checkpoint(report.folder, "howto100m").files
    assert file.name == "howto100m_pt_model.pth"
    published = torch.load(file)
    assert published.keys() == first.keys()
    model = HowTo100M(HowTo100MConfig(vocabulary=40, word_dim=6, clip_dim=16, joint=16))
    assert not load_initial(model, str(file)).initial
    started = pretrain([folder], small_howto100m(f"model.init='{file}'"), out=tmp_path / "started", device="cpu")
    assert started.steps == 6
    with pytest.raises(SettingsError, match=r"text_pooling\.fc\.weight is 16 x 6 there and 8 x 6"):
        pretrain(
            [folder], small_howto100m(f"model.init='{file}'", "model.joint=8"), out=tmp_path / "other", device="cpu"
        )


def test_what_is_missing_is_named_with_its_command(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"no resnet152 store yet.*\n  vlprep extract-video .*--model resnet152$"):
        find_stores(folder, small_howto100m("data.features=['s3d', 'resnet152']"))
    with pytest.raises(SettingsError, match=r"names no store of clip features"):
        find_stores(folder, small_howto100m("data.features=[]"))
    with pytest.raises(SettingsError, match="batched by their number"):
        pretrain([folder], small_howto100m("batches.samples=0"), device="cpu")
    shutil.rmtree(folder / "vlprep" / "words")
    with pytest.raises(SettingsError, match=r"\n  vlprep tokenize .*--tokenizer words:train:300 --out .*vlprep/words$"):
        find_stores(folder, small_howto100m())


def test_pieces_are_no_words(folder: Path) -> None:
    manifest = folder / "vlprep" / "words" / "store.json"
    manifest.write_text(manifest.read_text().replace("words:x", "train:8000"))
    with pytest.raises(SettingsError, match=r"made with train:8000, and howto100m reads words with vectors"):
        find_stores(folder, small_howto100m())
