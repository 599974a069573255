"""Names of full-size checkpoints (golden/pretraining/keys), without their numbers."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from vlprep.errors import SettingsError
from vlprep.interop.bert_names import REGION_MASK, WORDS, to_hugging_face, to_ours, to_uniter
from vlprep.interop.initial import load_initial
from vlprep.pretrain.models.single_stream import SingleStream, SingleStreamConfig


@pytest.fixture(scope="module")
def keys(golden) -> SimpleNamespace:
    def read(name: str):
        return json.loads((golden / "pretraining" / "keys" / f"{name}.json").read_text())

    return SimpleNamespace(
        uniter=read("uniter_base"), hf=read("hf_bert_model_base_cased"), renamed=read("bert_to_uniter")
    )


@pytest.fixture(scope="module")
def model() -> SingleStream:
    """UNITER-base, without memory."""
    with torch.device("meta"):
        return SingleStream(SingleStreamConfig(vocabulary=28_996, region_dim=2048, region_classes=1601))


def shapes(state) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in state.items()}


def zeros(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Tensors of any size that take no memory."""
    return {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}


def test_uniters_names_to_the_letter(keys, model) -> None:
    assert shapes(to_uniter(model.state_dict())) == keys.uniter["keys"]
    assert len(keys.uniter["keys"]) == 230
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == keys.uniter["parameters"]


def test_tied_tensors_are_one_tensor_under_two_names(keys, model) -> None:
    named = to_uniter(model.state_dict())
    for second, first in keys.uniter["tied"].items():
        assert named[second] is named[first]


def test_uniters_names_and_back(keys, model) -> None:
    assert shapes(to_ours(zeros(keys.uniter["keys"]), "x")) == shapes(model.state_dict())


def test_hugging_faces_names(keys, model) -> None:
    ours = shapes(to_hugging_face(model.state_dict()))
    tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    next_sentence = {"cls.seq_relationship.weight", "cls.seq_relationship.bias"}
    theirs = {f"bert.{name}": shape for name, shape in keys.hf["keys"].items()} | keys.hf["heads"]
    assert ours == {name: shape for name, shape in theirs.items() if name not in tied | next_sentence}


@pytest.mark.parametrize("bare", [False, True])
def test_what_bert_brings_to_uniter(keys, model, bare, monkeypatch, tmp_path) -> None:
    theirs = keys.hf["keys"] if bare else {f"bert.{n}": s for n, s in keys.hf["keys"].items()} | keys.hf["heads"]
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): shape for name, shape in theirs.items()}
    monkeypatch.setattr("vlprep.interop.initial.load_arrays", lambda path: zeros(old))
    file = tmp_path / "bert.bin"
    file.touch()
    report = load_initial(model, str(file))
    ours = {name.replace("uniter.", "bert.") for name in keys.renamed["not_in_bert_keep_initialised"]}
    heads = set(keys.hf["heads"]) & set(model.state_dict())
    assert set(report.initial) == ours - {"feat_regress.weight"} | (heads if bare else set())
    if not bare:
        # two of the 205 names that UNITER's loader counts are second names of tied tensors
        assert len(report.loaded) == keys.renamed["loaded"] - 1
        assert set(report.unused) == set(keys.renamed["not_used_by_uniter"]) - {"cls.predictions.decoder.bias"}


def test_second_names_must_be_of_the_same_numbers() -> None:
    words = torch.randn(4, 2)
    untied = {"uniter.embeddings.word_embeddings.weight": words, "cls.predictions.decoder.weight": words + 1}
    with pytest.raises(SettingsError, match=r"x\.pt: cls\.predictions\.decoder\.weight and .* differ"):
        to_ours(untied, "x.pt")
    assert to_ours({"cls.predictions.decoder.weight": words}, "x.pt") == {WORDS: words}


def test_the_first_row_of_the_region_mask_counts_as_zero() -> None:
    rows = torch.ones(2, 3)
    assert to_ours({"uniter.img_embeddings.mask_embedding.weight": rows}, "x")[REGION_MASK].sum(1).tolist() == [0, 3]
    assert rows.sum() == 6


def test_uniter_has_no_name_for_visual_tokens(keys) -> None:
    with torch.device("meta"):
        both = SingleStream(
            SingleStreamConfig(vocabulary=28_996, region_dim=2048, region_classes=1601, visual_vocabulary=20)
        )
    assert to_uniter(both.state_dict()).keys() == keys.uniter["keys"].keys()


@pytest.mark.parametrize("sizes", [{}, {"region_dim": 8}, {"visual_vocabulary": 20}])
def test_uniter_has_no_models_without_region_classes(sizes) -> None:
    with torch.device("meta"):
        state = SingleStream(SingleStreamConfig(vocabulary=50, **sizes)).state_dict()
    with pytest.raises(SettingsError, match="--to hf"):
        to_uniter(state)
