"""Weights in the published systems' files as runs: what they answer is what the model that wrote them answered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from pretrain.stores import that_has_seen_nothing
from stages.small_datasets import howto_dataset, shrunk, small_howto100m

from vlprep.errors import SettingsError
from vlprep.pretrain.checkpoint import read_model
from vlprep.stages.checkpoints import Format, export_checkpoint
from vlprep.stages.evaluate import evaluate, evaluate_retrieval
from vlprep.stages.import_checkpoint import import_checkpoint
from vlprep.stages.pretrain import pretrain
from vlprep_cli.main import cli


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return howto_dataset(tmp_path / "howto")


@pytest.mark.parametrize("form", ["uniter", "lxmert", "vilbert", "vlp", "oscar"])
def test_systems_of_images(form: Format, images: Path, tmp_path: Path) -> None:
    recipe = shrunk(f"{form}-small", "train.steps=2", "train.save_every=2")
    report = pretrain([images], recipe, out=tmp_path / "run", device="cpu")
    assert report is not None
    [file, *_] = [
        path
        for path in export_checkpoint(report.folder, form, tmp_path / "exported").files
        if path.suffix in (".pt", ".pth", ".bin")
    ]
    done = import_checkpoint(str(file), images, recipe, tmp_path / "imported")
    trained, imported = read_model(report.checkpoint), read_model(done.folder / "checkpoints" / "step-00000000")
    assert all(torch.equal(imported[name], trained[name]) for name in (*done.weights.loaded, *done.weights.partly))
    fresh = that_has_seen_nothing(report.folder, tmp_path / "fresh")
    expected, found = (evaluate(run, images, "mlm") for run in (fresh, done.folder))
    assert found.figures == expected.figures
    assert found.samples == expected.samples == 40


def test_howto100m_ranks_all_videos(folder: Path, tmp_path: Path) -> None:
    report = pretrain([folder], small_howto100m(), device="cpu")
    assert report is not None
    [file] = export_checkpoint(report.folder, "howto100m", tmp_path / "exported").files
    done = import_checkpoint(str(file), folder, small_howto100m(), tmp_path / "imported")
    assert not done.weights.initial
    assert not done.weights.unused
    fresh = that_has_seen_nothing(report.folder, tmp_path / "fresh")
    expected, found = (evaluate_retrieval(run, folder) for run in (fresh, done.folder))
    assert (found.text_to_seen, found.seen_to_text) == (expected.text_to_seen, expected.seen_to_text)
    assert found.texts == 80  # of all 20 videos


def test_what_does_not_fit_leaves_no_run(images: Path, folder: Path, tmp_path: Path) -> None:
    report = pretrain([folder], small_howto100m(), device="cpu")
    assert report is not None
    with pytest.raises(SettingsError, match=r"is of a run of vlprep pretrain: .*runs.pretrain can be"):
        import_checkpoint(str(report.checkpoint), folder, small_howto100m(), tmp_path / "out")
    [file] = export_checkpoint(report.folder, "howto100m", tmp_path / "exported").files
    with pytest.raises(SettingsError, match=rf"^{file}: .* is no checkpoint of such a model"):
        import_checkpoint(str(file), images, shrunk("uniter-small"), tmp_path / "out")
    with pytest.raises(SettingsError, match="16 x 6 there and 8 x 6"):
        import_checkpoint(str(file), folder, small_howto100m("model.joint=8"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(SettingsError, match="has checkpoints: choose another --out"):
        import_checkpoint(str(file), folder, small_howto100m(), report.folder)


def test_the_command_tells_what_was_loaded(folder: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    report = pretrain([folder], small_howto100m(), device="cpu")
    assert report is not None
    [file] = export_checkpoint(report.folder, "howto100m", tmp_path / "exported").files
    arguments = ["checkpoint", "import", str(file), str(folder), "--recipe", "howto100m-small", "--set=model.joint=16"]
    result = runner.invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    run = folder / "vlprep" / "runs" / "howto100m-small-published"
    assert result.stdout.startswith(f"{run}: 20 of 20 tensors from {file}")
    assert runner.invoke(cli, ["evaluate", "retrieval", str(run), str(folder)]).exit_code == 0
    assert runner.invoke(cli, arguments).exit_code == 2
