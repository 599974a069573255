"""ViLBERT: co-attention by its formula, losses against the published code's, leak protection, and what it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretrain.learning import WORDS, named_images, tiny_recipe, train

from vlprep.errors import SettingsError
from vlprep.pretrain.attention import Layout
from vlprep.pretrain.base import MicroBatch, RegionSample, Sample
from vlprep.pretrain.corpus import Corpus
from vlprep.pretrain.encoder import EncoderConfig
from vlprep.pretrain.masking import generator
from vlprep.pretrain.models.parts import Streams
from vlprep.pretrain.models.vilbert import Vilbert, VilbertConfig
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.objectives.vilbert import (
    VilbertTargets,
    VilbertTasks,
    VilbertTaskSettings,
    overlapping,
    with_global_region,
)
from vlprep.pretrain.packing import Example, pack, text_rows
from vlprep.pretrain.places import CorpusSettings
from vlprep.pretrain.recipe import Recipe

TASKS = VilbertTasks(rule=SequenceRule(words=WORDS))
CONFIG = VilbertConfig(
    encoder=EncoderConfig(layers=3, hidden=16, heads=2, intermediate=32, dropout=0, attention_dropout=0),
    regions=EncoderConfig(layers=2, hidden=12, heads=2, intermediate=8, dropout=0, attention_dropout=0),
    cross_layers=2,
    cross_hidden=20,
    cross_heads=2,
    vocabulary=40,
    positions=32,
    region_dim=8,
    region_classes=5,
)


def photo(key: int, words: int = 6, regions: int = 4) -> Sample:
    rng = np.random.default_rng(key)
    probs = rng.dirichlet(np.ones(5), regions).astype(np.float32)
    corners = np.sort(rng.random((regions, 2, 2)), axis=1).reshape(regions, 4)
    return Sample(
        key=key,
        text_ids=rng.integers(5, 40, words).astype(np.int32),
        regions=RegionSample(
            features_RD=rng.random((regions, 8)).astype(np.float32),
            boxes_R4=corners.astype(np.float32),
            object_ids_R=probs[:, 1:].argmax(1).astype(np.uint16),
            class_probs_RK=probs[:, 1:],
            background_R=probs[:, 0],
        ),
    )


def regions_of(features_RD: np.ndarray) -> RegionSample:
    count = len(features_RD)
    return RegionSample(
        features_RD=features_RD, boxes_R4=np.zeros((count, 4), np.float32), object_ids_R=np.zeros(count, np.uint16)
    )


@pytest.mark.parametrize("target", ["kl", "mse"])
def test_losses_and_gradient_of_the_published_code(golden: Path, target: str) -> None:
    folder, name = golden / "pretraining", f"vilbert_region_{target}"
    expected = json.loads((folder / "losses.json").read_text())["cases"][name]["expected"]
    given = {
        key.removeprefix(f"{name}.in."): torch.from_numpy(array)
        for key, array in np.load(folder / "losses.npz").items()
        if key.startswith(f"{name}.in.")
    }
    scores = given["scores_v"].requires_grad_()
    model = SimpleNamespace(  # hands out the stored scores for states
        encode=lambda inputs: Streams(given["scores_t"].flatten(0, 1), scores.flatten(0, 1)),
        word_logits=lambda states: states,
        region_outputs=lambda states: states,
        alignment_logits=lambda streams, inputs: given["scores_alignment"],
    )
    labels = given["masked_lm_labels"].flatten()
    text_rows = (labels >= 0).nonzero()[:, 0]
    images, places = (given["image_label"] == 1).nonzero(as_tuple=True)
    tasks, wanted_NX = replace(TASKS, settings=VilbertTaskSettings(target=target)), given["image_target"]
    features = F.pad(wanted_NX, (0, 0, 1, 0)) if target == "mse" else torch.zeros(*scores.shape[:2], 8)
    inputs = pack([Example(text_ids_P=np.zeros(1, int), regions=regions_of(image.numpy())) for image in features])

    def run(keep: slice) -> tuple[MicroBatch, dict[str, torch.Tensor]]:
        rows = (images * scores.shape[1] + places + 1)[keep]  # the global region comes first
        targets = VilbertTargets(
            text_rows,
            labels[text_rows],
            rows,
            1 - given["alignment_label"],
            wanted_NX[images, places][keep] if target == "kl" else None,
        )
        batch = MicroBatch(
            objective="vilbert",
            inputs=inputs,
            targets=targets,
            count=len(given["alignment_label"]),
            real_tokens=0,
            term_counts={"mlm": len(text_rows), "regions": len(rows)},
        )
        loss = tasks.loss(model, batch)
        return batch, {"align": loss.sum, **loss.terms, "total": loss.mean(batch.counts)}

    batch, found = run(slice(None))
    regions = found["regions"] / batch.counts["regions"]
    assert regions.item() == pytest.approx(expected["image_loss"], rel=1e-5, abs=1e-6)
    assert found["mlm"].item() / batch.counts["mlm"] == pytest.approx(expected["lm_loss"], rel=1e-5, abs=1e-6)
    assert found["align"].item() / batch.count == pytest.approx(expected["alignment_loss"], rel=1e-5, abs=1e-6)
    regions.backward()
    wanted = np.load(folder / "losses.npz")[f"{name}.out.grad_scores_v"]
    np.testing.assert_allclose(scores.grad, wanted, rtol=1e-5, atol=2e-6)
    _, nothing = run(slice(0))  # published, for kl: NaN
    assert nothing["regions"] == 0
    assert torch.isfinite(nothing["total"])


def test_co_attention_by_its_formula() -> None:
    torch.manual_seed(0)
    layer = Vilbert(CONFIG).bert["encoder"].c_layer[0].eval()
    regions, text = torch.randn(5, 12), torch.randn(3, 16)
    weights = layer.biattention

    def look(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        parts = []
        for q, k, v in zip(queries.split(10, 1), keys.split(10, 1), values.split(10, 1), strict=True):
            parts.append((q @ k.T / 10**0.5).softmax(1) @ v)
        return torch.cat(parts, 1)

    out = layer.biOutput
    seen = look(weights["query1"](regions), weights["key2"](text), weights["value2"](text))
    told = look(weights["query2"](text), weights["key1"](regions), weights["value1"](regions))
    expected_regions = out.LayerNorm1(regions + out.dense1(seen))
    expected_text = out.LayerNorm2(text + out.dense2(told))
    expected_regions = layer.v_output.LayerNorm(
        expected_regions + layer.v_output.dense(F.gelu(layer.v_intermediate.dense(expected_regions)))
    )
    expected_text = layer.t_output.LayerNorm(
        expected_text + layer.t_output.dense(F.gelu(layer.t_intermediate.dense(expected_text)))
    )
    cpu = torch.device("cpu")
    found = layer(regions, Layout(torch.tensor([5]), cpu), text, Layout(torch.tensor([3]), cpu))
    torch.testing.assert_close(found, (expected_regions, expected_text), rtol=1e-5, atol=1e-5)


def test_packing_with_others_changes_nothing() -> None:
    torch.manual_seed(0)
    model = Vilbert(CONFIG).eval()
    examples = [TASKS.example(photo(key, 2 + key, 6 - key), generator(0, 0, key, "v"), photo(9)) for key in range(3)]
    inputs = pack([example.sequence for example in examples])
    alone = [pack([example.sequence]) for example in examples]
    with torch.no_grad():
        together = model.encode(inputs)
        each = [model.encode(one) for one in alone]
        torch.testing.assert_close(together.text_PH, torch.cat([one.text_PH for one in each]), rtol=0, atol=1e-5)
        torch.testing.assert_close(together.regions_RH, torch.cat([one.regions_RH for one in each]), rtol=0, atol=1e-5)
        logits = model.alignment_logits(together, inputs)
        by_one = [model.alignment_logits(one, packed) for one, packed in zip(each, alone, strict=True)]
        torch.testing.assert_close(logits, torch.cat(by_one), rtol=0, atol=1e-5)


def test_what_overlaps_a_masked_region() -> None:
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.41], [0, 0, 1, 0.39], [0.5, 0.5, 1, 1], [0, 0, 0, 0]], np.float32)
    first = np.array([True, False, False, False, False])
    assert overlapping(boxes, first).tolist() == [True, True, False, False, False]
    assert not overlapping(boxes, np.zeros(5, bool)).any()


@pytest.mark.parametrize("protected", [True, False])
def test_masked_regions_do_not_leak(protected: bool) -> None:
    sample = photo(1, regions=12)
    boxes = np.tile(np.array([0.1, 0.1, 0.5, 0.5], np.float32), (12, 1))
    boxes[6:] += 0.5  # two heaps of equal boxes
    sample = replace(sample, regions=replace(sample.regions, boxes_R4=boxes))
    tasks = replace(TASKS, settings=VilbertTaskSettings(leak_protection=protected, only_matched=False))
    for key in range(40):
        example = tasks.example(sample, generator(0, 0, key, "vilbert"), photo(2))
        hidden, targets = example.sequence.masked_R, example.rows - 1
        heaps = {int(target >= 6) for target in targets}
        seen = [row for row in range(12) if int(row >= 6) not in heaps]
        mean = sample.regions.features_RD[seen].mean(0) if seen else np.zeros(8)
        np.testing.assert_allclose(example.sequence.regions.features_RD[0], mean, rtol=1e-5)
        assert not hidden[0]
        near = [row for row in range(12) if row not in targets and int(row >= 6) in heaps]
        assert hidden[1:][near].all() == (protected or not near)
        assert not hidden[1:][seen].any()
        np.testing.assert_array_equal(example.distributions, sample.regions.distributions()[targets])
        np.testing.assert_array_equal(example.sequence.regions.features_RD[1:], sample.regions.features_RD)


def test_nothing_is_learned_from_the_masks_of_a_wrong_pair() -> None:
    labels = set()
    for key in range(40):
        example = TASKS.example(photo(1, 30, 30), generator(0, 0, key, "vilbert"), photo(2, 25, 5))
        assert example.sequence.num_text == (32 if example.label else 27)
        assert (len(example.ids) > 0, len(example.rows) > 0) == (bool(example.label), bool(example.label))
        labels.add(example.label)
    assert labels == {0, 1}


def nce_batch(*regions: int) -> MicroBatch:
    tasks = replace(TASKS, settings=VilbertTaskSettings(target="nce", only_matched=False))
    samples = [photo(key, regions=count) for key, count in enumerate(regions)]
    drawn = (generator(0, 0, sample.key, "n") for sample in samples)
    return tasks.collate([tasks.example(one, draw, photo(99)) for one, draw in zip(samples, drawn, strict=True)])


def test_a_region_is_told_from_regions_of_its_own_and_of_other_images() -> None:
    targets = nce_batch(30, 20, 40).targets
    image_of = np.repeat([0, 1, 2], [31, 21, 41])  # with the regions that stand for all of an image
    for own, *others in targets.candidates_NC.tolist():
        assert len(others) == 254
        assert own not in others
        assert sum(image_of[other] == image_of[own] for other in others) == 76
        assert not {0, 31, 52} & set(others)
    assert targets.candidates_NC[:, 0].tolist() == targets.region_rows_N.tolist()
    assert len(targets.candidates_NC) > 5


def test_the_nce_of_features_by_its_formula() -> None:
    batch = nce_batch(12, 15)
    features = batch.inputs.regions.features_RD
    torch.manual_seed(0)
    model = Vilbert(replace(CONFIG, region_classes=0)).eval()
    with torch.no_grad():
        found = replace(TASKS, settings=VilbertTaskSettings(target="nce")).loss(model, batch).terms["regions"]
        states = model.encode(batch.inputs).regions_RH
        expected = 0.0
        for own, *others in batch.targets.candidates_NC.tolist():
            scores = features[[own, *others]] @ model.region_outputs(states[own])
            expected -= (scores[0] - scores.logsumexp(0)).item()
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_others_come_from_where_there_are_any() -> None:
    for regions in ((60,), (1,) * 60):
        candidates = nce_batch(*regions).targets.candidates_NC
        assert len(candidates)
        assert not (candidates[:, 1:] == candidates[:, :1]).any()
    tasks = replace(TASKS, settings=VilbertTaskSettings(target="nce", only_matched=False))
    drawn = (tasks.example(photo(1, regions=1), generator(0, 0, key, "n"), photo(2)) for key in range(100))
    masked = next(example for example in drawn if len(example.rows))
    with pytest.raises(SettingsError, match="told from others"):
        tasks.collate([masked])


def test_region_masks_have_the_published_shares(golden: Path) -> None:
    rules = json.loads((golden / "pretraining" / "masking_statistics.json").read_text())["rules"]
    shares = {name: entry["p"] for name, entry in rules["vilbert_regions"]["statistics"].items()}
    tasks = replace(TASKS, settings=VilbertTaskSettings(leak_protection=False, only_matched=False))
    sample = photo(1, regions=36)
    examples = [tasks.example(sample, generator(0, 0, key, "vilbert"), photo(2)) for key in range(1500)]
    targets = sum(len(example.rows) for example in examples)
    zeroed = sum(int(example.sequence.masked_R.sum()) for example in examples)
    p = shares["region_is_target"]
    assert abs(targets / (36 * 1500) - p) < 5 * (p * (1 - p) / (36 * 1500)) ** 0.5
    p = shares["zeroed_given_target"]
    assert abs(zeroed / targets - p) < 5 * (p * (1 - p) / targets) ** 0.5


def test_an_image_whose_regions_are_all_hidden_has_no_mean() -> None:
    regions = with_global_region(photo(1).regions, np.zeros(4, bool))
    assert not regions.features_RD[0].any()
    assert regions.boxes_R4[0].tolist() == [0, 0, 1, 1]


def test_there_are_no_more_co_attentions_than_layers() -> None:
    with pytest.raises(SettingsError, match="cross_layers"):
        replace(CONFIG, cross_layers=3)


def small_recipe(**settings) -> Recipe:
    sizes = {"region_layers": 1, "cross_layers": 1, "region_hidden": 32, "region_heads": 2, "cross_hidden": 32}
    return tiny_recipe(["vilbert"], tokens=1000, kind="vilbert", region_intermediate=64, **sizes, **settings)


@pytest.mark.slow
@pytest.mark.parametrize(("shuffled", "least", "most"), [(False, 0.75, 1.0), (True, 0.0, 0.65)])
def test_alignment_is_learned(tmp_path: Path, shuffled: bool, least: float, most: float) -> None:
    """Held-out AUC, with masks: a quarter of the mismatches look like matches, so that 0.87 is the most there is.

    All boxes are the same here: with leak protection half of the images would show nothing.
    """
    recipe = replace(
        small_recipe(steps=300, lr=3e-3), objectives={"vilbert": VilbertTaskSettings(leak_protection=False)}
    )
    figures, _ = train(recipe, named_images(tmp_path, shuffled=shuffled), tmp_path)
    assert least <= figures["vilbert/auc"] <= most


@pytest.mark.slow
@pytest.mark.parametrize("target", ["mse", "nce"])
def test_features_of_masked_regions_are_told_from_the_rest(tmp_path: Path, target: str) -> None:
    """By the mean of all features the squared error is 0.38 a dimension, and by chance the NCE is log 255 = 5.5.

    Half of the candidates are of the same kind, so that it is at least 4.8.
    """
    recipe = small_recipe(steps=200, lr=3e-3)
    settings = VilbertTaskSettings(target=target, leak_protection=False)
    recipe = replace(recipe, model=replace(recipe.model, region_outputs="features"), objectives={"vilbert": settings})
    figures, _ = train(recipe, named_images(tmp_path), tmp_path)
    assert figures["vilbert/regions"] < {"mse": 0.1, "nce": 5.0}[target]


@pytest.mark.parametrize(("shuffled", "least", "most"), [(False, 0.9, 1.0), (True, 0.0, 0.45)])
def test_captions_are_guessed_from_the_regions(tmp_path: Path, shuffled: bool, least: float, most: float) -> None:
    """Of new images, whose only word is masked; guessing gives a quarter."""
    recipe = small_recipe(steps=100, lr=5e-3)
    _, trainer = train(recipe, named_images(tmp_path, shuffled=shuffled), tmp_path)
    corpus = Corpus(named_images(tmp_path / "new", 80, seed=1), CorpusSettings(max_regions=12))
    samples = [corpus.sample(number) for number in range(len(corpus))]
    mask = np.array([WORDS.mask])
    whole = [
        replace(sample, regions=with_global_region(sample.regions, np.ones(len(sample.regions.features_RD), bool)))
        for sample in samples
    ]
    sequences = [TASKS.rule.sequence(mask, sample) for sample in whole]
    trainer.model.eval()
    with torch.no_grad():
        states = trainer.model.encode(pack(sequences)).text_PH[text_rows(sequences, [np.array([1])] * len(sequences))]
        guessed = trainer.model.word_logits(states).argmax(1).tolist()
    right = np.mean([word == sample.text_ids[0] for word, sample in zip(guessed, samples, strict=True)])
    assert least <= right <= most
