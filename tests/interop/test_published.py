"""Checkpoints of other systems: every name and shape of the published file, there and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from vlprep.interop.bert_names import to_ours
from vlprep.interop.initial import load_initial
from vlprep.interop.published import (
    FILES,
    to_hugging_face_lxmert,
    to_published,
    write_hugging_face_lxmert,
    write_oscar,
    write_published,
)
from vlprep.pretrain.encoder import EncoderConfig
from vlprep.pretrain.models.howto100m import HowTo100M, HowTo100MConfig
from vlprep.pretrain.models.lxmert import Lxmert, LxmertConfig
from vlprep.pretrain.models.oscar import Oscar, OscarConfig
from vlprep.pretrain.models.univl import Univl, UnivlConfig
from vlprep.pretrain.models.vilbert import Vilbert, VilbertConfig
from vlprep.pretrain.models.vlp import Vlp, VlpConfig

TINY = EncoderConfig(layers=2, hidden=16, heads=2, intermediate=32)
REGIONS = EncoderConfig(layers=2, hidden=12, heads=2, intermediate=8)
VLP = VlpConfig(encoder=EncoderConfig(norm_eps=1e-5), vocabulary=28_996, region_dim=2048, region_classes=1601)
OSCAR = OscarConfig(encoder=EncoderConfig(), vocabulary=30_522, region_dim=2048)
LXMERT = LxmertConfig(vocabulary=30_522, answers=9500)

BASE: Mapping[str, Callable[[], nn.Module]] = {
    "lxmert": lambda: Lxmert(LXMERT),
    "vlp": lambda: Vlp(VLP),
    "vilbert": lambda: Vilbert(VilbertConfig(vocabulary=30_522)),
    "univl": lambda: Univl(UnivlConfig(vocabulary=30_522)),
    "howto100m": lambda: HowTo100M(HowTo100MConfig(vocabulary=3_000_000, joint=6144)),
}
"""The published sizes."""
SMALL: Mapping[str, Callable[[], nn.Module]] = {
    "lxmert": lambda: Lxmert(
        replace(LXMERT, encoder=TINY, region_layers=1, cross_layers=1, vocabulary=50, answers=5, region_dim=8)
    ),
    "oscar": lambda: Oscar(replace(OSCAR, encoder=TINY, vocabulary=50, region_dim=8, normalise_regions=True)),
    "vilbert": lambda: Vilbert(
        VilbertConfig(
            encoder=TINY, regions=REGIONS, cross_layers=1, cross_hidden=24, cross_heads=2, vocabulary=50, region_dim=8
        )
    ),
    "univl": lambda: Univl(
        UnivlConfig(encoder=TINY, video_layers=1, cross_layers=1, decoder_layers=1, vocabulary=50, clip_dim=8)
    ),
    "vlp": lambda: Vlp(replace(VLP, encoder=TINY, vocabulary=50, region_dim=8, region_classes=5)),
    "howto100m": lambda: HowTo100M(HowTo100MConfig(vocabulary=50, word_dim=6, clip_dim=8, joint=10)),
}
KEYS = {"lxmert": "lxmert_original", "vlp": "vlp", "vilbert": "vilbert", "univl": "univl", "howto100m": "howto100m"}


def keys(golden: Path, name: str) -> dict:
    return json.loads((golden / "pretraining" / "keys" / f"{name}.json").read_text())


def shapes(state: Mapping[str, torch.Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in state.items()}


def zeros(shapes: Mapping[str, list[int]]) -> dict[str, torch.Tensor]:
    """Tensors of any size that take no memory."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("system", BASE)
def test_names_and_shapes_to_the_letter(golden, system: str) -> None:
    published = keys(golden, KEYS[system])
    with torch.device("meta"):
        state = BASE[system]().state_dict()
    assert shapes(to_published(state)) == published["keys"]
    counted = {name: tensor for name, tensor in state.items() if "running" not in name and "num_batches" not in name}
    assert sum(tensor.numel() for tensor in counted.values()) == published["parameters"]
    assert shapes(to_ours(zeros(published["keys"]), "x")) == shapes(state)
    for second, first in published["tied"].items():
        assert to_published(state)[second] is state[first]


@pytest.mark.parametrize("system", SMALL)
def test_a_file_comes_back_as_it_was(system: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = write_published(tmp_path / "theirs", SMALL[system]().state_dict(), system).files[0]
    torch.manual_seed(1)
    model = SMALL[system]()
    report = load_initial(model, str(file))
    assert not report.initial
    assert not report.unused
    again = write_published(tmp_path / "ours", model.state_dict(), system).files[0]
    assert again.name == FILES[system]
    before, after = torch.load(file), torch.load(again)
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_other_answers_begin_anew(tmp_path: Path) -> None:
    file = write_published(tmp_path, SMALL["lxmert"]().state_dict(), "lxmert").files[0]
    model = Lxmert(replace(SMALL["lxmert"]().config, answers=3))
    report = load_initial(model, str(file))
    last = ("answer_head.logit_fc.3.bias", "answer_head.logit_fc.3.weight")
    assert report.initial == report.unused == last


def test_univls_first_stage_is_its_two_encoders(golden) -> None:
    published = keys(golden, "univl")
    with torch.device("meta"):
        state = Univl(UnivlConfig(vocabulary=30_522, cross_layers=0, decoder_layers=0)).state_dict()
    expected = {
        name: shape
        for name, shape in published["keys"].items()
        if name.startswith(tuple(published["stage_one_prefixes"]))
    }
    assert len(expected) == published["stage_one_keys"]
    assert shapes(to_published(state)) == expected


def test_univls_second_stage_starts_from_the_first(tmp_path: Path) -> None:
    first = Univl(
        UnivlConfig(encoder=TINY, video_layers=1, cross_layers=0, decoder_layers=0, vocabulary=50, clip_dim=8)
    )
    file = write_published(tmp_path, first.state_dict(), "univl").files[0]
    second = SMALL["univl"]()
    report = load_initial(second, str(file))
    assert not report.unused
    assert {name.split(".")[0] for name in report.initial} == {
        "cross",
        "decoder",
        "cls",
        "cls_visual",
        "similarity_dense",
    }
    for name, tensor in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), name


def test_hugging_faces_names_of_lxmert(golden) -> None:
    published = keys(golden, "lxmert_hf")
    with torch.device("meta"):
        state = Lxmert(LXMERT).state_dict()
    theirs = {name: shape for name, shape in published["keys"].items() if name not in published["tied"]}
    assert shapes(to_hugging_face_lxmert(state)) == theirs
    assert shapes(to_ours(zeros(published["keys"]), "x")) == shapes(state)


def test_transformers_open_an_exported_lxmert(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = SMALL["lxmert"]()
    write_hugging_face_lxmert(tmp_path, model.state_dict(), heads=2, dropout=0.1, attention_dropout=0.1)
    theirs, report = transformers.LxmertForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    state = to_hugging_face_lxmert(model.state_dict())
    for name, tensor in theirs.state_dict().items():
        if name != "cls.predictions.decoder.weight":
            assert torch.equal(tensor, state[name]), name
    assert theirs.config.num_attention_heads == 2


def test_vlps_six_token_types_start_from_berts_two(tmp_path: Path) -> None:
    types, words = torch.randn(2, 16), torch.randn(50, 16)
    file = tmp_path / "bert.pt"
    torch.save(
        {"bert.embeddings.token_type_embeddings.weight": types, "bert.embeddings.word_embeddings.weight": words}, file
    )
    model = SMALL["vlp"]()
    load_initial(model, str(file))
    got = model.state_dict()["bert.embeddings.token_type_embeddings.weight"]
    assert torch.equal(got, types[[0, 1, 0, 0, 0, 1]])


@pytest.mark.parametrize(("normalised", "classes"), [(False, 2), (True, 3)])
def test_oscars_folder(golden, tmp_path: Path, normalised: bool, classes: int) -> None:
    """No list of Oscar's names is at hand: they are BERT's, and those that modeling_bert.py:177-182 adds."""
    bert = keys(golden, "hf_bert_model_base_cased")
    with torch.device("meta"):
        state = Oscar(replace(OSCAR, normalise_regions=normalised, contrast_classes=classes)).state_dict()
    expected = {f"bert.{name}": shape for name, shape in bert["keys"].items()} | bert["heads"]
    expected["bert.embeddings.word_embeddings.weight"] = [30_522, 768]
    expected["cls.predictions.decoder.weight"] = [30_522, 768]
    expected["cls.predictions.bias"] = [30_522]
    expected["cls.seq_relationship.weight"], expected["cls.seq_relationship.bias"] = [classes, 768], [classes]
    expected |= {"bert.img_embedding.weight": [768, 2054], "bert.img_embedding.bias": [768]}
    if normalised:
        expected |= {"bert.LayerNorm.weight": [768], "bert.LayerNorm.bias": [768]}
    expected.pop("cls.predictions.decoder.bias")  # a second name of cls.predictions.bias that 2019's BERT has not
    assert shapes(to_published(state)) == expected
    written = write_oscar(tmp_path, SMALL["oscar"]().state_dict(), heads=2)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["img_feature_dim"], config["num_contrast_classes"], config["use_img_layernorm"]) == (14, 3, 1)
    report = load_initial(SMALL["oscar"](), str(tmp_path))
    assert len(written.files) == 2
    assert not report.initial
    assert not report.unused
