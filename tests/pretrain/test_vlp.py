"""VLP's masks and losses against the published code's, what it learns, and the captions that it writes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pretrain.learning import WORDS, named_images, tiny_recipe, train

from vlprep.errors import SettingsError
from vlprep.pretrain.attention import prefix_mask
from vlprep.pretrain.base import MicroBatch, RegionSample, Sample
from vlprep.pretrain.captions import write_captions
from vlprep.pretrain.corpus import Corpus
from vlprep.pretrain.encoder import EncoderConfig
from vlprep.pretrain.masking import TextVocabulary, generator
from vlprep.pretrain.models.vlp import Vlp, VlpConfig
from vlprep.pretrain.objectives.mlm import WordTargets
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.objectives.vlp import CaptionSettings, MaskedCaption, caption_sequence
from vlprep.pretrain.packing import Example, pack
from vlprep.pretrain.places import CorpusSettings

RULE = SequenceRule(words=WORDS)
TASK = MaskedCaption(rule=RULE)


def photo(regions: int, words: int = 6, key: int = 0) -> Sample:
    rng = np.random.default_rng(key)
    probs = rng.dirichlet(np.ones(5), regions).astype(np.float32)
    return Sample(
        key=key,
        text_ids=rng.integers(5, 40, words).astype(np.int32),
        regions=RegionSample(
            features_RD=rng.random((regions, 8)).astype(np.float32),
            boxes_R4=np.sort(rng.random((regions, 4)).astype(np.float32), 1),
            object_ids_R=probs[:, 1:].argmax(1).astype(np.uint16),
            class_probs_RK=probs[:, 1:],
            background_R=probs[:, 0],
            confidence_R=probs.max(1),
        ),
    )


def test_masks_and_segments_of_the_published_loader(golden: Path) -> None:
    cases = json.loads((golden / "pretraining" / "vlp_masks.json").read_text())["masks"]
    arrays = np.load(golden / "pretraining" / "vlp_masks.npz")
    for name, case in cases.items():
        caption = np.full(case["kept_caption_tokens"] + 1, 7)  # with its [SEP]
        sequence = caption_sequence(RULE, photo(case["regions"]), caption, written=case["mode"] == "s2s")
        assert sequence.length == case["length"]
        inputs = pack([sequence])
        prefix = inputs.prefix_B if inputs.prefix_B is not None else inputs.lengths_B
        mask = prefix_mask(inputs.lengths_B, prefix, case["max_len"])[0]
        np.testing.assert_array_equal(mask, arrays[name].astype(bool), err_msg=name)
        types = torch.zeros(case["max_len"], dtype=torch.int64)
        types[inputs.text.slots_P] = inputs.text.types_P
        types[inputs.regions.slots_R] = inputs.regions.types_R
        assert types.tolist() == [value for value, run in case["segment_ids"] for _ in range(run)]
        assert inputs.text.positions_P.tolist() == inputs.text.slots_P.tolist()


def test_numbers_of_targets(golden: Path) -> None:
    folder = golden / "pretraining"
    counts = json.loads((folder / "vlp_masks.json").read_text())["n_predictions_by_caption_length"]
    for length, count in counts.items():
        example = TASK.example(photo(2, int(length)), generator(0, 0, 0, "vlp"))
        assert len(example.ids) == count, length
    rules = json.loads((folder / "masking_statistics.json").read_text())["rules"]
    for length in (1, 4, 10):
        shares = {key: entry["p"] for key, entry in rules[f"vlp_mlm.caption{length}"]["statistics"].items()}
        sample = photo(2, length)
        examples = [TASK.example(sample, generator(0, 0, key, "vlp")) for key in range(3000)]
        last = np.mean([length + 1 in example.places for example in examples])
        assert abs(last - shares["final_sep_is_target"]) < 5 * (0.25 / 3000) ** 0.5
        shown = np.concatenate([example.sequence.ends_with[example.places] for example in examples])
        share = (shown == WORDS.mask).mean()
        assert abs(share - shares["mask_given_target"]) < 5 * (0.16 / len(shown)) ** 0.5
        written = np.mean([example.sequence.prefix is not None for example in examples])
        assert abs(written - rules["vlp_mode"]["statistics"]["s2s"]["p"]) < 5 * (0.1875 / 3000) ** 0.5


@pytest.mark.parametrize(("name", "drop"), [("vlp_mlm.drop0", 0.0), ("vlp_mlm.drop02", 0.2)])
def test_loss_and_gradient_of_the_published_code(golden: Path, name: str, drop: float) -> None:
    folder = golden / "pretraining"
    case = json.loads((folder / "losses.json").read_text())["cases"][name]
    arrays = np.load(folder / "losses.npz")
    scores = torch.from_numpy(arrays[f"{name}.in.sequence_scores"]).requires_grad_()
    captions, length = scores.shape[:2]
    used = arrays[f"{name}.in.masked_weights"].astype(bool)
    rows = np.arange(captions)[:, None] * length + arrays[f"{name}.in.masked_pos"]
    targets = WordTargets(torch.from_numpy(rows[used]), torch.from_numpy(arrays[f"{name}.in.masked_labels"][used]))
    model = SimpleNamespace(
        encode=lambda inputs: scores.flatten(0, 1), word_logits=lambda states: states, training=True
    )
    inputs = pack([Example(text_ids_P=np.zeros(length, int))] * captions)
    batch = MicroBatch(objective="vlp", inputs=inputs, targets=targets, count=int(used.sum()), real_tokens=0)
    loss = MaskedCaption(rule=RULE, settings=CaptionSettings(drop_worst=drop)).loss(model, batch).mean(batch.counts)
    assert loss.item() == pytest.approx(case["expected"]["loss"], rel=1e-5, abs=1e-6)
    loss.backward()
    np.testing.assert_allclose(scores.grad, arrays[f"{name}.out.grad_sequence_scores"], rtol=1e-5, atol=2e-6)


def test_validation_drops_nothing(model: Vlp) -> None:
    batch = TASK.collate([TASK.example(photo(3, key=key), generator(0, 0, key, "vlp")) for key in range(5)])
    every, kept = (
        MaskedCaption(rule=RULE, settings=CaptionSettings(drop_worst=share)).loss(model, batch).sum.item()
        for share in (0.0, 0.8)
    )
    assert kept == every
    model.train()
    assert (
        MaskedCaption(rule=RULE, settings=CaptionSettings(drop_worst=0.8)).loss(model, batch).sum.item() < 0.999 * every
    )
    alone = TASK.collate([TASK.example(photo(3), generator(0, 0, 0, "vlp"))])
    assert (
        MaskedCaption(rule=RULE, settings=CaptionSettings(drop_worst=0.8)).loss(model, alone).sum.isfinite()
    )  # the only one is kept


def test_not_all_captions_can_be_dropped() -> None:
    with pytest.raises(SettingsError, match="drop_worst"):
        MaskedCaption(rule=RULE, settings=CaptionSettings(drop_worst=1.0))


@pytest.fixture
def model() -> Vlp:
    torch.manual_seed(0)
    sizes = EncoderConfig(layers=2, hidden=16, heads=2, intermediate=32, dropout=0, attention_dropout=0, norm_eps=1e-5)
    return Vlp(VlpConfig(encoder=sizes, vocabulary=40, positions=32, region_dim=8, region_classes=5)).eval()


def states(model: Vlp, sequences: list[Example]) -> torch.Tensor:
    with torch.no_grad():
        return model.encode(pack(sequences, distributions=True))


def test_a_written_piece_depends_on_what_comes_before_it_only(model: Vlp) -> None:
    sample, one = photo(3), np.array([10, 11, 12, 13])
    before = states(model, [caption_sequence(RULE, sample, one, written=True)])
    other = one.copy()
    other[2] = 30
    after = states(model, [caption_sequence(RULE, sample, other, written=True)])
    same = torch.isclose(before, after, atol=1e-6).all(1).tolist()
    assert same == [True] * (5 + 2) + [False, False]  # [CLS], 3 regions, [SEP], two pieces; then the changed one
    both = [states(model, [caption_sequence(RULE, sample, text, written=False)]) for text in (one, other)]
    assert not torch.isclose(*both, atol=1e-6).all(1).any()


def test_packing_with_others_changes_nothing(model: Vlp) -> None:
    sequences = [
        caption_sequence(RULE, photo(3), np.array([10, 11]), written=True),
        caption_sequence(RULE, photo(5, key=1), np.array([10, 11, 12, 13]), written=False),
        caption_sequence(RULE, photo(2, key=2), np.array([20]), written=True),
    ]
    alone = torch.cat([states(model, [sequence]) for sequence in sequences])
    torch.testing.assert_close(states(model, sequences), alone, rtol=0, atol=1e-5)


def test_the_likeliest_captions_are_found(model: Vlp) -> None:
    """With as many beams as there are captions, beam search is exhaustive."""
    words = TextVocabulary(size=8, pad=0, cls=1, sep=2, mask=3, first_word=5)
    rule = SequenceRule(words=words)
    sample = photo(2)
    small = Vlp(VlpConfig(encoder=model.config.encoder, vocabulary=8, positions=32, region_dim=8, region_classes=5))
    found = write_captions(small, sample, rule, beams=400, longest=2)
    small.eval()

    def scores(prefix: tuple[int, ...]) -> torch.Tensor:
        caption = np.array([*prefix, words.mask])
        last = states(small, [caption_sequence(rule, sample, caption, written=True)])[-1:]
        return small.word_logits(last)[0].log_softmax(0)

    expected = {}
    for first in (2, 5, 6, 7):
        for second in (None,) if first == 2 else (2, 5, 6, 7):
            for third in (None,) if second in (None, 2) else (2,):
                pieces, total = (), 0.0
                for piece in (first, second, third):
                    if piece is not None:
                        total += scores(pieces)[piece].item()
                        pieces += (piece,)
                expected[pieces[:-1]] = total
    assert {tuple(caption.pieces.tolist()) for caption in found} == expected.keys()
    for caption in found:
        assert caption.log_probability == pytest.approx(expected[tuple(caption.pieces.tolist())], abs=1e-4)


@pytest.mark.parametrize(("shuffled", "least", "most"), [(False, 0.9, 1.0), (True, 0.0, 0.5)])
def test_captions_of_new_images_are_written(tmp_path: Path, shuffled: bool, least: float, most: float) -> None:
    """One word each; guessing gives a quarter."""
    recipe = tiny_recipe(["vlp"], steps=120, lr=5e-3, kind="vlp", layers=1)
    figures, trainer = train(recipe, named_images(tmp_path, shuffled=shuffled), tmp_path)
    corpus = Corpus(named_images(tmp_path / "new", 50, seed=1), CorpusSettings(max_regions=12))
    samples = [corpus.sample(number) for number in range(len(corpus))]
    written = [write_captions(trainer.model, sample, RULE, beams=2, longest=3)[0] for sample in samples]
    right = [
        caption.pieces.tolist() == sample.text_ids.tolist() for caption, sample in zip(written, samples, strict=True)
    ]
    assert least <= np.mean(right) <= most
    if not shuffled:
        assert figures["vlp/accuracy"] > figures["vlp/accuracy without"] + 0.1
