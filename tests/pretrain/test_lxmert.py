"""LXMERT's network against transformers', its losses against the published code's, and what it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pretrain.learning import WORDS, asked_images, named_images, paired_and_shuffled, tiny_recipe, train

from vlprep.pretrain.base import MicroBatch, RegionSample, Sample
from vlprep.pretrain.encoder import EncoderConfig
from vlprep.pretrain.masking import generator
from vlprep.pretrain.models.lxmert import Lxmert, LxmertConfig
from vlprep.pretrain.models.parts import Streams
from vlprep.pretrain.objectives.lxmert import LxmertTargets, LxmertTasks
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.packing import Example, pack

TASKS = LxmertTasks(rule=SequenceRule(words=WORDS))
SIZES = EncoderConfig(layers=2, hidden=48, heads=4, intermediate=96, dropout=0.0, attention_dropout=0.0)


def published(golden: Path) -> SimpleNamespace:
    folder = golden / "pretraining"
    case = json.loads((folder / "losses.json").read_text())["cases"]["lxmert_losses"]
    arrays = np.load(folder / "losses.npz")
    pick = lambda kind: {  # noqa: E731
        name.split(".", 2)[2]: torch.from_numpy(arrays[name])
        for name in arrays.files
        if name.startswith(f"lxmert_losses.{kind}.")
    }
    return SimpleNamespace(expected=case["expected"], given=pick("in"), out=pick("out"))


def test_losses_and_gradients_of_the_published_code(golden: Path) -> None:
    case = published(golden)
    given = case.given
    heads = {name: given[f"{name}_scores"].flatten(0, 1).requires_grad_() for name in ("obj", "attr", "feat")}
    words = given["lm_scores"].flatten(0, 1)
    labels = given["lm_labels"].flatten()
    model = SimpleNamespace(  # hands out the stored scores for states
        encode=lambda inputs: Streams(words, torch.empty(0)),
        word_logits=lambda states: states,
        pooled=lambda streams, inputs: None,
        match_logits=lambda pooled: given["matched_scores"],
        answer_logits=lambda pooled: given["qa_scores"],
        region_scores=lambda states: heads,
    )
    rows = (labels >= 0).nonzero()[:, 0]
    targets = LxmertTargets(
        rows_M=rows,
        ids_M=labels[rows],
        labels_B=given["matched_labels"],
        objects_R=given["obj_labels"].flatten(),
        object_confidence_R=given["obj_conf"].flatten(),
        attributes_R=given["attr_labels"].flatten(),
        attribute_confidence_R=given["attr_conf"].flatten(),
        features_RD=given["feat_target"].flatten(0, 1),
        masked_R=given["feat_mask"].flatten().bool(),
        answers_B=given["qa_labels"],
    )
    regions = len(targets.objects_R)
    batch = MicroBatch(
        objective="lxmert",
        inputs=pack([Example(text_ids_P=np.zeros(1, int))]),
        targets=targets,
        count=len(targets.labels_B),
        real_tokens=0,
        term_counts={
            "mlm": len(rows),
            "objects": regions,
            "attributes": regions,
            "features": regions,
            "answers": int((given["qa_labels"] >= 0).sum()),
        },
    )
    loss = TASKS.loss(model, batch)
    names = {"mlm": "mask_lm", "objects": "obj", "attributes": "attr", "features": "feat", "answers": "qa"}
    for ours, theirs in names.items():
        value = loss.terms[ours] / batch.counts[ours]
        assert value.item() == pytest.approx(case.expected[theirs], rel=1e-5, abs=1e-6), theirs
    assert loss.sum.item() / batch.count == pytest.approx(case.expected["matched"], rel=1e-5, abs=1e-6)
    total = loss.mean(batch.counts)
    assert total.item() == pytest.approx(case.expected["total"], rel=1e-5, abs=1e-6)
    total.backward()
    for name, scores in heads.items():
        expected = case.out[f"grad_{name}_scores"].flatten(0, 1)
        np.testing.assert_allclose(scores.grad, expected, rtol=1e-5, atol=2e-6)


def sample(key: int, words: int, regions: int) -> Sample:
    rng = np.random.default_rng(key)
    return Sample(
        key=key,
        text_ids=rng.integers(5, 40, words).astype(np.int32),
        regions=RegionSample(
            features_RD=rng.random((regions, 8)).astype(np.float32),
            boxes_R4=np.sort(rng.random((regions, 4)).astype(np.float32), 1),
            object_ids_R=rng.integers(0, 4, regions).astype(np.uint16),
            confidence_R=rng.random(regions).astype(np.float16),
            attribute_probs_RA=rng.dirichlet(np.ones(3), regions).astype(np.float32),
        ),
    )


@pytest.mark.parametrize("attention", ["padded", "jagged"])
def test_equals_transformers(attention: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = LxmertConfig(
        encoder=SIZES,
        region_layers=2,
        cross_layers=2,
        vocabulary=40,
        positions=32,
        region_dim=8,
        region_classes=4,
        region_attributes=3,
        answers=7,
        attention=attention,
    )
    ours = Lxmert(config).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    theirs = transformers.LxmertForPreTraining(
        transformers.LxmertConfig(
            vocab_size=40,
            hidden_size=48,
            num_attention_heads=4,
            num_qa_labels=7,
            num_object_labels=4,
            num_attr_labels=3,
            intermediate_size=96,
            max_position_embeddings=32,
            l_layers=2,
            x_layers=2,
            r_layers=2,
            visual_feat_dim=8,
        )
    ).eval()
    state = {name.replace("bert.", "lxmert."): tensor for name, tensor in ours.state_dict().items()}
    words = state["lxmert.embeddings.word_embeddings.weight"]
    theirs.load_state_dict(state | {"cls.predictions.decoder.weight": words})
    samples = [sample(1, 6, 3), sample(2, 2, 5), sample(3, 9, 5)]
    sequences = [TASKS.rule.sequence(TASKS.rule.text(one), one) for one in samples]
    inputs = pack(sequences)
    with torch.no_grad():
        streams = ours.encode(inputs)
        pooled = ours.pooled(streams, inputs)
        logits, matches, answers = (
            ours.word_logits(streams.text_PH),
            ours.match_logits(pooled),
            ours.answer_logits(pooled),
        )
        word_rows = logits.split(inputs.text.lengths_B.tolist())
        region_rows = streams.regions_RH.split(inputs.regions.lengths_B.tolist())
        for place, (one, sequence) in enumerate(zip(samples, sequences, strict=True)):
            found = theirs(
                input_ids=torch.from_numpy(sequence.text_ids_P)[None],
                visual_feats=torch.from_numpy(one.regions.features_RD)[None],
                visual_pos=torch.from_numpy(one.regions.boxes_R4)[None],
            )
            torch.testing.assert_close(word_rows[place], found.prediction_logits[0], rtol=0, atol=2e-5)
            torch.testing.assert_close(matches[place], found.cross_relationship_score[0], rtol=0, atol=2e-5)
            torch.testing.assert_close(answers[place], found.question_answering_score[0], rtol=0, atol=2e-5)
            states = theirs.lxmert(
                input_ids=torch.from_numpy(sequence.text_ids_P)[None],
                visual_feats=torch.from_numpy(one.regions.features_RD)[None],
                visual_pos=torch.from_numpy(one.regions.boxes_R4)[None],
            )
            torch.testing.assert_close(region_rows[place], states.vision_output[0], rtol=0, atol=2e-5)
            for name, scores in ours.region_scores(states.vision_output[0]).items():
                head = theirs.obj_predict_head(states.vision_output)[name]
                torch.testing.assert_close(scores, head[0], rtol=0, atol=2e-5)


def test_masks_have_the_published_shares(golden: Path) -> None:
    rules = json.loads((golden / "pretraining" / "masking_statistics.json").read_text())["rules"]
    shares = {name: entry["p"] for name, entry in rules["lxmert_regions"]["statistics"].items()}
    one, other = sample(1, 10, 36), sample(2, 10, 36)
    examples = [TASKS.example(one, generator(0, 0, key, "lxmert"), other) for key in range(3000)]
    masked = np.array([example.masks.targets_R for example in examples])
    hidden = np.array([example.masks.hidden_R for example in examples])
    replaced = np.array([example.masks.replaced_R for example in examples])

    def near(got: float, p: float, count: int) -> bool:
        return abs(got - p) < 5 * (p * (1 - p) / count) ** 0.5

    assert near(masked.mean(), shares["region_is_target"], masked.size)
    assert near(hidden.sum() / masked.sum(), shares["zeroed_given_target"], masked.sum())
    assert near(replaced.sum() / masked.sum(), shares["random_region_given_target"], masked.sum())
    assert not (hidden & replaced).any()
    assert not ((hidden | replaced) & ~masked).any()
    for example in examples[:50]:
        features = example.sequence.regions.features_RD
        kept = ~example.masks.replaced_R
        np.testing.assert_array_equal(features[kept], one.regions.features_RD[kept])
        assert all((row == other.regions.features_RD).all(1).any() for row in features[~kept])
        assert example.sequence.masked_R is example.masks.hidden_R
    words = rules["lxmert_mlm.length10"]["statistics"]
    targets = np.array([len(example.positions) for example in examples])
    assert abs(targets.mean() - words["targets_per_sequence"]["mean"]) < 5 * (10 * 0.15 * 0.85 / 3000) ** 0.5
    assert near((targets == 0).mean(), words["no_target"]["p"], 3000)
    assert near(
        np.mean([example.label for example in examples]), rules["lxmert_matched"]["statistics"]["match"]["p"], 3000
    )


def test_a_mismatch_has_the_other_images_text_and_its_own_regions() -> None:
    one, other = sample(1, 5, 3), sample(2, 7, 4)
    for key in range(20):
        example = TASKS.example(one, generator(0, 0, key, "lxmert"), other)
        told = one if example.label else other
        assert example.sequence.num_text == len(told.text_ids) + 2
        assert example.regions is one.regions
        np.testing.assert_array_equal(example.ids, told.text_ids[example.positions - 1])


def test_without_attributes_their_term_is_left_out() -> None:
    bare = sample(1, 5, 3)
    bare = replace(bare, regions=replace(bare.regions, attribute_probs_RA=None))
    config = LxmertConfig(
        encoder=SIZES, vocabulary=40, positions=32, region_dim=8, region_classes=4, region_attributes=0
    )
    examples = [TASKS.example(bare, generator(0, 0, key, "lxmert"), sample(2, 5, 3)) for key in range(3)]
    batch = TASKS.collate(examples)
    loss = TASKS.loss(Lxmert(config), batch)
    assert batch.counts["attributes"] == 0
    assert loss.terms.keys() == {"mlm", "objects", "features"}  # nor are there questions
    assert torch.isfinite(loss.mean(batch.counts))


ASKED = LxmertTasks(rule=SequenceRule(words=replace(WORDS, answers={"net": 0, "netting": 1, "no": 2})))


def drawn_answers(answers: dict[str, float]) -> list[tuple[int, int]]:
    question = replace(sample(1, 5, 3), answers=answers)
    other = replace(sample(2, 7, 4), answers={"no": 1.0})
    examples = (ASKED.example(question, generator(0, 0, key, "lxmert"), other) for key in range(400))
    return [(example.label, example.answer) for example in examples]


def test_an_answer_is_drawn_by_how_right_it_is_and_never_for_another_image() -> None:
    drawn = drawn_answers({"net": 0.9, "fence": 1.0, "netting": 0.3})  # `fence` is none that the stores name
    matched = [answer for label, answer in drawn if label]
    assert set(matched) == {0, 1}
    assert abs(np.mean(matched) - 0.25) < 5 * (0.1875 / len(matched)) ** 0.5
    assert {answer for label, answer in drawn if not label} == {-1}


@pytest.mark.parametrize("answers", [{}, {"fence": 1.0}, {"net": 0.0}])
def test_a_text_without_a_right_answer_is_not_asked(answers: dict[str, float]) -> None:
    assert {answer for _, answer in drawn_answers(answers)} == {-1}


def test_a_batch_without_questions_trains_the_other_tasks() -> None:
    config = LxmertConfig(encoder=SIZES, vocabulary=40, region_dim=8, region_classes=4, region_attributes=3, answers=3)
    batch = ASKED.collate([ASKED.example(sample(1, 5, 3), generator(0, 0, 0, "lxmert"), sample(2, 5, 3))])
    loss = ASKED.loss(Lxmert(config), batch)
    assert batch.counts["answers"] == loss.terms["answers"] == 0
    assert torch.isfinite(loss.mean(batch.counts))


@pytest.mark.parametrize(("shuffled", "least", "most"), [(False, 0.95, 1.0), (True, 0.0, 0.5)])
def test_answers_are_read_off_the_regions(tmp_path: Path, shuffled: bool, least: float, most: float) -> None:
    """One of four; guessing gives a quarter."""
    recipe = tiny_recipe(
        ["lxmert"], steps=60, lr=1e-2, tokens=1000, kind="lxmert", layers=1, region_layers=1, cross_layers=1
    )
    stores, words = asked_images(tmp_path, shuffled=shuffled)
    figures, _ = train(recipe, stores, tmp_path, words)
    assert least <= figures["lxmert/answers accuracy"] <= most


def test_masked_words_are_read_off_the_regions(tmp_path: Path) -> None:
    """Half of the pairs match: what can be known is 0.5 + 0.5 / 4 of the words; guessing gives a quarter."""
    recipe = tiny_recipe(
        ["lxmert"], steps=120, lr=1e-2, tokens=1000, kind="lxmert", layers=1, region_layers=1, cross_layers=1
    )
    paired, shuffled = paired_and_shuffled(recipe, tmp_path)
    assert paired["lxmert/mlm accuracy"] > 0.5
    assert shuffled["lxmert/mlm accuracy"] < 0.4
    assert paired["lxmert/objects accuracy"] > 0.95
    assert {"lxmert/auc", "lxmert/features", "lxmert/attributes"} <= paired.keys()


@pytest.mark.slow
@pytest.mark.parametrize(("shuffled", "least", "most"), [(False, 0.75, 1.0), (True, 0.0, 0.65)])
def test_matching_is_learned(tmp_path: Path, shuffled: bool, least: float, most: float) -> None:
    """Held-out AUC, with masks: a quarter of the mismatches look like matches, so that 0.87 is the most there is."""
    recipe = tiny_recipe(
        ["lxmert"], steps=300, lr=3e-3, tokens=1000, kind="lxmert", layers=1, region_layers=1, cross_layers=1
    )
    figures, _ = train(recipe, named_images(tmp_path, shuffled=shuffled), tmp_path)
    assert least <= figures["lxmert/auc"] <= most
