"""UNITER's four tasks against the published code's losses, states and gradients (golden/pretraining §1)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vlprep.pretrain.base import Loss, MicroBatch, RegionSample
from vlprep.pretrain.encoder import EncoderConfig
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.single_stream import SingleStream, SingleStreamConfig
from vlprep.pretrain.objectives.itm import ImageTextMatching, MatchingSettings, MatchTargets
from vlprep.pretrain.objectives.mlm import MaskedLanguage, WordTargets
from vlprep.pretrain.objectives.regions import (
    MaskedRegionSettings,
    RegionClasses,
    RegionDistributions,
    RegionFeatures,
    RegionTargets,
)
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.packing import Example, pack, text_slots, visual_slots

RULE = SequenceRule(words=TextVocabulary(size=200, pad=0, cls=101, sep=102, mask=103, first_word=104))


@pytest.fixture(scope="module")
def published(golden: Path) -> SimpleNamespace:
    folder = golden / "pretraining"
    return SimpleNamespace(
        spec=json.loads((folder / "spec.json").read_text()),
        expected=json.loads((folder / "uniter.json").read_text())["expected"],
        arrays=dict(np.load(folder / "uniter.npz")),
    )


@pytest.fixture
def model(published: SimpleNamespace) -> SingleStream:
    from synth_weights import fill

    sizes = EncoderConfig(layers=2, hidden=48, heads=4, intermediate=192, dropout=0.0, attention_dropout=0.0)
    config = SingleStreamConfig(encoder=sizes, vocabulary=200, positions=64, region_dim=64, region_classes=11)
    model = SingleStream(config)
    arrays = fill({name: tuple(shape) for name, shape in published.spec["keys"].items()}, 0)
    named = {name.replace("uniter.", "bert."): torch.from_numpy(array) for name, array in arrays.items()}
    model.load_state_dict(named)  # strict: tied weights are held once, everything else has the published name
    return model.eval()


def examples(published: SimpleNamespace, ids: str, *, masked: bool = False) -> list[Example]:
    arrays = published.arrays
    made = []
    for row, (num_text, num_regions) in enumerate(zip(arrays["in.txt_lens"], arrays["in.num_boxes"], strict=True)):
        soft = arrays["in.img_soft_labels"][row, :num_regions]
        regions = RegionSample(
            features_RD=arrays["in.img_feat"][row, :num_regions],
            boxes_R4=arrays["in.img_pos_feat"][row, :num_regions, :4],
            object_ids_R=soft[:, 1:].argmax(1).astype(np.uint16),
            class_probs_RK=soft[:, 1:],
            background_R=soft[:, 0],
        )
        mask = arrays["in.img_masks"][row, :num_regions] if masked else None
        made.append(Example(text_ids_P=arrays[ids][row, :num_text], regions=regions, masked_R=mask))
    return made


def batch(published: SimpleNamespace, task: str) -> MicroBatch:
    arrays = published.arrays
    if task == "mlm":
        sequences = examples(published, "in.mlm_input_ids")
        labels = arrays["in.mlm_labels"]
        slots = text_slots(sequences, [np.flatnonzero(row >= 0) for row in labels])
        targets, count = WordTargets(slots, torch.from_numpy(labels[labels >= 0])), len(slots)
    elif task == "itm":
        sequences = examples(published, "in.input_ids")
        targets, count = MatchTargets(torch.from_numpy(arrays["in.itm_targets"])), len(sequences)
    else:
        sequences = examples(published, "in.input_ids", masked=True)
        rows = [np.flatnonzero(example.masked_R) for example in sequences]
        of_task = {
            "mrfr": lambda regions, found: regions.features_RD[found],
            "mrc": lambda regions, found: regions.object_ids_R[found].astype(np.int64),
            "mrckl": lambda regions, found: regions.distributions()[found],
        }[task]
        values = [of_task(example.regions, found) for example, found in zip(sequences, rows, strict=True)]
        values_MX = torch.from_numpy(np.concatenate(values))
        slots = visual_slots(sequences, rows)
        targets = RegionTargets(slots, values_MX)
        count = len(slots) if task == "mrc" else values_MX.numel()
    return MicroBatch(objective=task, inputs=pack(sequences), targets=targets, count=count, real_tokens=0)


OBJECTIVES = {
    "mlm": MaskedLanguage(rule=RULE),
    "mrfr": RegionFeatures(rule=RULE),
    "mrc": RegionClasses(rule=RULE),
    "mrckl": RegionDistributions(rule=RULE),
    "itm": ImageTextMatching(rule=RULE),
    "itm_ot": ImageTextMatching(rule=RULE, settings=MatchingSettings(wra=0.1)),
}


def run(model: SingleStream, published: SimpleNamespace, task: str) -> tuple[float, Loss]:
    made = batch(published, task.removesuffix("_ot"))
    loss = OBJECTIVES[task].loss(model, made)
    (loss.sum / made.count).backward()
    return loss.sum.item() / made.count, loss


@pytest.mark.parametrize("task", list(OBJECTIVES))
def test_losses_and_gradients(model: SingleStream, published: SimpleNamespace, task: str) -> None:
    expected = published.expected[task]
    value, loss = run(model, published, task)
    assert value == pytest.approx(expected["loss"], rel=1e-5, abs=1e-6)
    if task == "itm_ot":
        assert loss.parts["wra"].item() / 4 == pytest.approx(expected["ot"], rel=1e-5, abs=1e-6)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.grad is not None}
    for name, norm in expected["grad_norm"].items():
        if name == "__all_parameters__":
            got = torch.stack([parameter.grad.norm() for parameter in parameters.values()]).norm()
        else:
            got = parameters[name.replace("uniter.", "bert.")].grad.norm()
        assert got.item() == pytest.approx(norm, rel=2e-5, abs=1e-6), name
    query = parameters["bert.encoder.layer.0.attention.self.query.weight"].grad
    np.testing.assert_allclose(query, published.arrays[f"out.{task}.grad_query"], rtol=1e-5, atol=3e-6)


def test_the_kl_of_a_region(published: SimpleNamespace, model: SingleStream) -> None:
    task = replace(OBJECTIVES["mrckl"], settings=MaskedRegionSettings(reduction="region"))
    made = batch(published, "mrckl")
    value = task.loss(model, made).sum.item() / len(made.targets.slots_M)
    assert value == pytest.approx(published.expected["mrckl"]["loss_batchmean"], rel=1e-5)


@pytest.mark.parametrize(("task", "name"), [("mlm", "mlm"), ("itm", "plain"), ("mrfr", "mrm")])
def test_hidden_states(model: SingleStream, published: SimpleNamespace, task: str, name: str) -> None:
    made = batch(published, task)
    with torch.no_grad():
        states = model.encode(made.inputs)
        pooled = model.pooled(states, made.inputs)
    arrays = published.arrays
    for what, slots, lengths in (
        ("text", made.inputs.text.slots_P, arrays["in.txt_lens"]),
        ("image", made.inputs.regions.slots_R, arrays["in.num_boxes"]),
    ):
        expected = arrays[f"out.hidden_{what}.{name}"]
        real = np.arange(expected.shape[1])[None] < lengths[:, None]
        np.testing.assert_allclose(states[slots], expected[real], rtol=0, atol=1e-5)
    if task == "itm":
        np.testing.assert_allclose(pooled, arrays["out.pooled"], rtol=0, atol=1e-5)
        distances = OBJECTIVES["itm_ot"].distances(states, made.inputs)
        np.testing.assert_allclose(distances, arrays["out.itm_ot.distance"], rtol=0, atol=3e-6)


def test_logits(model: SingleStream, published: SimpleNamespace) -> None:
    with torch.no_grad():
        for task, head, name in (
            ("mlm", model.word_logits, "mlm.logits"),
            ("mrfr", model.region_features, "mrfr.prediction"),
            ("mrc", model.region_logits, "mrc.logits"),
        ):
            made = batch(published, task)
            got = head(model.encode(made.inputs)[made.targets.slots_M])
            np.testing.assert_allclose(got, published.arrays[f"out.{name}"], rtol=0, atol=2e-5)
    classes = batch(published, "mrc").targets.values_MX + 1
    np.testing.assert_array_equal(classes, published.arrays["out.mrc.target_class"])
