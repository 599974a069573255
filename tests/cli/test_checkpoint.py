"""`vlprep checkpoint`: the run as it was left, and files that others open."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from vlprep.pretrain.checkpoint import TrainingState, save_checkpoint
from vlprep.pretrain.encoder import EncoderConfig
from vlprep.pretrain.models.config_file import write_model_config
from vlprep.pretrain.models.kinds import build_model
from vlprep.pretrain.models.lxmert import LxmertConfig
from vlprep.pretrain.models.single_stream import SingleStream, SingleStreamConfig
from vlprep.pretrain.recipe import load_recipe
from vlprep.pretrain.run_folder import open_run

SIZES = EncoderConfig(layers=1, hidden=16, heads=2, intermediate=32)
REGIONS = SingleStreamConfig(encoder=SIZES, vocabulary=50, positions=32, region_dim=8, region_classes=5)
VIDEO = SingleStreamConfig(encoder=SIZES, vocabulary=50, positions=32, visual_vocabulary=20)


def make_run(folder, config=REGIONS, steps=(10, 20)):
    """What `vlprep pretrain` leaves; the model of step n was made with seed n."""
    open_run(folder, load_recipe("uniter-small"))
    write_model_config(folder, config)
    for step in steps:
        torch.manual_seed(step)
        state = TrainingState(step=step, samples=8 * step, tokens=100 * step, skipped=1)
        save_checkpoint(folder / "checkpoints", state, build_model(config), {}, keep=2)
    return folder


def words(step, config=REGIONS):
    torch.manual_seed(step)
    return build_model(config).state_dict()["bert.embeddings.word_embeddings.weight"]


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def test_info_tells_step_sizes_and_objectives(run, vlprep, document):
    found = document("checkpoint", "info", run)
    assert (found["state"]["step"], found["steps"]) == (20, [10, 20])
    assert found["model"]["encoder"]["hidden"] == 16
    assert found["parameters"] == sum(tensor.numel() for tensor in SingleStream(REGIONS).state_dict().values())
    text = vlprep("checkpoint", "info", run / "checkpoints" / "step-00000010").stdout
    for fact in ("step-00000010", "80 samples, 1,000 tokens, 1 step skipped", "steps 10, 20", "mlm:2", "5 region"):
        assert fact in text


@pytest.mark.parametrize("step", [10, 20])
def test_exports_are_of_the_checkpoint_that_was_named(run, vlprep, step):
    named = run if step == 20 else run / "checkpoints" / "step-00000010"
    result = vlprep("checkpoint", "export", named, "--to", "hf")
    assert "left out, having no name there" in result.stdout
    assert "itm_output.weight" in result.stdout
    exported = load_file(run / "hf" / "model.safetensors")
    assert torch.equal(exported["bert.embeddings.word_embeddings.weight"], words(step))


def test_uniters_file_goes_where_it_is_wanted(run, document, tmp_path):
    exported = document("checkpoint", "export", run, "--to", "uniter", "--out", tmp_path / "there")
    assert exported == {"files": [str(tmp_path / "there" / "uniter.pt")], "left_out": []}
    arrays = torch.load(exported["files"][0], weights_only=True)
    assert torch.equal(arrays["cls.predictions.decoder.weight"], words(20))
    assert not (run / "uniter").exists()


def test_uniter_is_told_of_video_models(tmp_path, vlprep):
    run = make_run(tmp_path / "run", VIDEO, steps=(1,))
    result = vlprep("checkpoint", "export", run, "--to", "uniter")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--to hf" in result.stderr
    assert vlprep("checkpoint", "export", run, "--to", "hf").exit_code == 0


def test_a_folder_that_is_no_run_is_named(run, vlprep, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, complaint in ((tmp_path / "empty", "is no run of"), (make_run(tmp_path / "new", steps=()), "no check")):
        result = vlprep("checkpoint", "info", folder)
        assert result.exit_code == 2
        assert complaint in result.stderr
        assert str(folder) in result.stderr


def test_the_model_of_another_size_is_kept_too(tmp_path, document):
    config = replace(REGIONS, positions=48, types=4, encoder=replace(SIZES, norm_eps=1e-5, dropout=0.0))
    run = make_run(tmp_path / "run", config, steps=(1,))
    document("checkpoint", "export", run, "--to", "hf")
    written = json.loads((run / "hf" / "config.json").read_text())
    assert (written["max_position_embeddings"], written["type_vocab_size"]) == (48, 4)
    assert (written["layer_norm_eps"], written["hidden_dropout_prob"], written["num_attention_heads"]) == (1e-5, 0, 2)


def test_an_lxmert_goes_to_its_own_code_and_to_transformers(tmp_path, vlprep, document):
    sizes = LxmertConfig(encoder=SIZES, region_layers=1, cross_layers=1, vocabulary=50, positions=32, region_dim=8)
    run = make_run(tmp_path / "run", sizes, steps=(1,))
    assert document("checkpoint", "info", run)["model"]["cross_layers"] == 1
    exported = document("checkpoint", "export", run, "--to", "lxmert")
    arrays = torch.load(exported["files"][0], weights_only=True)
    assert torch.equal(arrays["cls.predictions.decoder.weight"], words(1, sizes))
    document("checkpoint", "export", run, "--to", "hf")
    assert json.loads((run / "hf" / "config.json").read_text())["model_type"] == "lxmert"
    result = vlprep("checkpoint", "export", run, "--to", "uniter")
    assert result.exit_code == 2
    assert "this is lxmert: --to hf or --to lxmert" in result.stderr
