"""Starting from published weights, and writing ours for others: outputs must be equal, and errors must help."""

from __future__ import annotations

import json
from dataclasses import replace

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from vlprep.errors import SettingsError
from vlprep.interop.bert_files import write_hugging_face, write_uniter
from vlprep.interop.bert_names import POSITIONS
from vlprep.interop.initial import find_weights, load_initial
from vlprep.pretrain.base import Inputs, TextInput
from vlprep.pretrain.encoder import EncoderConfig
from vlprep.pretrain.models.single_stream import SingleStream, SingleStreamConfig

SIZES = EncoderConfig(layers=2, hidden=48, heads=4, intermediate=192, dropout=0.0, attention_dropout=0.0)
CONFIG = SingleStreamConfig(encoder=SIZES, vocabulary=200, positions=64, region_dim=64, region_classes=11)
IDS = torch.tensor([[101, 7, 8, 9, 102], [101, 30, 31, 32, 102]])
NOT_IN_THE_STATE = {"heads": 4, "dropout": 0.0, "attention_dropout": 0.0, "norm_eps": 1e-12}


def new(seed: int = 1, **changes) -> SingleStream:
    torch.manual_seed(seed)
    model = SingleStream(replace(CONFIG, **changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # so that no bias or norm could be forgotten unseen
            if "mask_embedding" not in name:
                parameter += 0.05 * torch.randn_like(parameter)
    return model


def outputs(model: SingleStream) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States, pooled states and word logits of `IDS`, without gradients."""
    batch, length = IDS.shape
    text = TextInput(
        lengths_B=torch.full((batch,), length),
        ids_P=IDS.flatten(),
        positions_P=torch.arange(length).repeat(batch),
        types_P=torch.zeros(batch * length, dtype=torch.int64),
        slots_P=torch.arange(batch * length),
    )
    inputs = Inputs(lengths_B=torch.full((batch,), length), text=text)
    with torch.no_grad():
        states = model.encode(inputs)
        return states.view(batch, length, -1), model.pooled(states, inputs), model.word_logits(states)


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture
def bert(transformers):
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=200,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=192,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    model = transformers.BertForPreTraining(config).eval()
    torch.nn.init.normal_(model.cls.predictions.bias)
    return model


def theirs(model) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        encoded = model.bert(IDS)
        return encoded.last_hidden_state, encoded.pooler_output, model.cls.predictions(encoded.last_hidden_state)


def close(got, expected) -> None:
    for ours, other in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, other.reshape(ours.shape), rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["safetensors", "bin of 2018"])
def test_bert_gives_the_same_outputs_in_our_model(bert, form, tmp_path) -> None:
    if form == "safetensors":
        bert.save_pretrained(tmp_path)
    else:
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in bert.state_dict().items()
        }
        torch.save(old, tmp_path / "pytorch_model.bin")
    model = new()
    report = load_initial(model, str(tmp_path))
    close(outputs(model), theirs(bert))
    assert set(report.unused) == {"cls.seq_relationship.weight", "cls.seq_relationship.bias"}
    assert {name.split(".")[0] for name in report.initial} == {
        "bert",
        "feat_regress",
        "region_classifier",
        "itm_output",
    }
    assert all(name.startswith("bert.img_embeddings.") for name in report.initial if name.startswith("bert."))


def test_a_bare_bert_model_starts_the_encoder(bert, tmp_path) -> None:
    bert.bert.save_pretrained(tmp_path)
    model = new()
    report = load_initial(model, str(tmp_path / "model.safetensors"))
    close(outputs(model)[:2], theirs(bert)[:2])
    assert "cls.predictions.bias" in report.initial


def test_our_model_gives_the_same_outputs_in_transformers(transformers, tmp_path) -> None:
    model = new()
    exported = write_hugging_face(tmp_path, model.state_dict(), **NOT_IN_THE_STATE)
    opened = transformers.BertForPreTraining.from_pretrained(tmp_path).eval()
    close(theirs(opened), outputs(model))
    alone, facts = transformers.BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not facts["missing_keys"]
    with torch.no_grad():
        close([alone.eval()(IDS).last_hidden_state], outputs(model)[:1])
    assert json.loads((tmp_path / "config.json").read_text())["num_hidden_layers"] == 2
    assert {name.split(".")[0] for name in exported.left_out} == {
        "bert",
        "feat_regress",
        "region_classifier",
        "itm_output",
    }


def test_uniters_checkpoint_comes_in_and_goes_out_unchanged(golden, tmp_path) -> None:
    from synth_weights import fill

    spec = json.loads((golden / "pretraining" / "spec.json").read_text())
    arrays = fill({name: tuple(shape) for name, shape in spec["keys"].items()}, 0)
    published = {name: torch.from_numpy(array) for name, array in arrays.items()}
    published |= {second: published[first] for second, first in spec["tied"].items()}
    torch.save(published, tmp_path / "uniter-tiny.pt")
    model = new()
    report = load_initial(model, str(tmp_path / "uniter-tiny.pt"))
    assert (report.initial, report.unused, report.partly) == ((), (), ())
    assert len(report.loaded) == len(model.state_dict())
    exported = write_uniter(tmp_path / "out", model.state_dict())
    assert exported.left_out == ()
    written = torch.load(exported.files[0], weights_only=True)
    assert written.keys() == published.keys()
    for name, tensor in published.items():
        if name == "uniter.img_embeddings.mask_embedding.weight":
            assert not written[name][0].any()
            written[name][0] = tensor[0]
        assert torch.equal(written[name], tensor), name
    assert written["feat_regress.weight"].data_ptr() == written["uniter.img_embeddings.img_linear.weight"].data_ptr()


@pytest.mark.parametrize("rows", [40, 100])
def test_position_tables_may_be_of_another_length(rows, tmp_path) -> None:
    longer = new(2, positions=rows)
    save_file(longer.state_dict(), tmp_path / "model.safetensors")
    model = new()
    before = model.state_dict()[POSITIONS].clone()
    report = load_initial(model, str(tmp_path))
    shared = min(rows, 64)
    after, given = model.state_dict()[POSITIONS], longer.state_dict()[POSITIONS]
    assert torch.equal(after[:shared], given[:shared])
    assert torch.equal(after[shared:], before[shared:])
    assert report.partly == (POSITIONS,)
    assert POSITIONS not in report.loaded
    assert "in part bert.embeddings.position_embeddings.weight" in report.summary()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"vocabulary": 28_996}, "28,996 pieces.* 200;.*--tokenizer bert-base-cased"),
        ({"vocabulary": 300}, "300 pieces.* 200;.*tokenizer that belongs to it"),
        ({"encoder": replace(SIZES, hidden=32)}, "hidden size is 32, the model's 48"),
        ({"region_dim": 32}, r"img_linear\.weight is 48 x 32 there and 48 x 64 .*detector"),
        ({"region_classes": 21}, r"region_classifier\.net\.3"),
        ({"types": 3}, "token_type_embeddings"),
    ],
)
def test_other_sizes_are_refused_with_the_way_out(changes, complaint, tmp_path) -> None:
    save_file(new(2, **changes).state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(SettingsError, match=complaint):
        load_initial(new(), str(tmp_path / "x.safetensors"))


def test_a_run_starts_from_its_newest_checkpoint(tmp_path) -> None:
    for step, seed in ((8, 5), (10, 6)):
        folder = tmp_path / "checkpoints" / f"step-{step:08}"
        folder.mkdir(parents=True)
        save_file(new(seed).state_dict(), folder / "model.safetensors")
    model = new()
    assert load_initial(model, str(tmp_path)).initial == ()
    close(outputs(model), outputs(new(6)))
    load_initial(model, str(tmp_path / "checkpoints" / "step-00000008"))
    close(outputs(model), outputs(new(5)))


def test_weights_of_other_models_are_refused(tmp_path) -> None:
    save_file({"wte.weight": torch.zeros(2, 2)}, tmp_path / "gpt.safetensors")
    with pytest.raises(SettingsError, match="no checkpoint of such a model"):
        load_initial(new(), str(tmp_path / "gpt.safetensors"))
    with pytest.raises(SettingsError, match="no model"):
        find_weights(str(tmp_path))


@pytest.mark.parametrize("source", ["uniter-base.pt", "runs/first/x", "~/nothing here"])
def test_paths_that_are_not_there_are_not_asked_of_the_hub(source, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *args, **kwargs: pytest.fail("asked"))
    with pytest.raises(SettingsError, match=f"--init {source}: no such file or folder"):
        find_weights(source)


def test_without_a_network_the_message_says_what_to_fetch(monkeypatch, tmp_path) -> None:
    def offline(repo: str, file: str, **options: bool) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(SettingsError, match=r"--init bert-base-uncased.*fetch model\.safetensors from https://"):
        find_weights("bert-base-uncased")
    cached = tmp_path / "model.safetensors"
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, file, **options: str(cached))
    assert find_weights("bert-base-uncased") == cached
