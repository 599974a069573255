"""How samples become sequences and batches: positions of targets, negatives, VideoBERT's regimes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlprep.errors import SettingsError
from vlprep.pretrain.base import RegionSample, Sample, to_device
from vlprep.pretrain.encoder import EncoderConfig
from vlprep.pretrain.masking import TextVocabulary, generator
from vlprep.pretrain.models.single_stream import SingleStream, SingleStreamConfig
from vlprep.pretrain.objectives.itm import ImageTextMatching, MatchingSettings
from vlprep.pretrain.objectives.mlm import MaskedLanguage
from vlprep.pretrain.objectives.regions import RegionClasses, RegionDistributions, RegionFeatures
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.objectives.video import Alignment, MaskedVisualTokens

WORDS = TextVocabulary(size=60, pad=0, cls=1, sep=2, mask=3, first_word=5)
IMAGES = SequenceRule(words=WORDS)
VIDEOS = SequenceRule(words=WORDS, visual_tokens=30, thin_up_to=5)
RNG = np.random.default_rng(0)


def photo(key: int, words: int = 6, regions: int = 4) -> Sample:
    probs = RNG.dirichlet(np.ones(6), regions).astype(np.float32)
    return Sample(
        key=key,
        text_ids=RNG.integers(5, 60, words).astype(np.int32),
        regions=RegionSample(
            features_RD=RNG.random((regions, 8)).astype(np.float16),
            boxes_R4=np.sort(RNG.random((regions, 4)).astype(np.float32), 1)[:, [0, 1, 2, 3]],
            object_ids_R=probs[:, 1:].argmax(1).astype(np.uint16),
            class_probs_RK=probs[:, 1:],
            background_R=probs[:, 0],
        ),
    )


def clip(key: int, words: int = 4, tokens: int = 12) -> Sample:
    return Sample(
        key=key,
        text_ids=RNG.integers(5, 60, words).astype(np.int32),
        visual_tokens=np.arange(tokens, dtype=np.uint16),
    )


@pytest.fixture(scope="module")
def model() -> SingleStream:
    torch.manual_seed(0)
    sizes = EncoderConfig(layers=1, hidden=16, heads=2, intermediate=32, dropout=0, attention_dropout=0)
    return SingleStream(
        SingleStreamConfig(
            encoder=sizes, vocabulary=60, positions=64, region_dim=8, region_classes=6, visual_vocabulary=30
        )
    )


def build(objective, samples):
    examples = [
        objective.example(sample, generator(0, 0, sample.key, objective.name), samples[(place + 1) % len(samples)])
        for place, sample in enumerate(samples)
    ]
    return examples, objective.collate(examples)


@pytest.mark.parametrize(
    ("objective", "make"),
    [
        (MaskedLanguage(rule=IMAGES), photo),
        (MaskedLanguage(rule=VIDEOS), clip),
        (RegionFeatures(rule=IMAGES), photo),
        (RegionClasses(rule=IMAGES), photo),
        (RegionDistributions(rule=IMAGES), photo),
        (ImageTextMatching(rule=IMAGES, settings=MatchingSettings(wra=0.1)), photo),
        (MaskedVisualTokens(rule=VIDEOS), clip),
        (Alignment(rule=VIDEOS), clip),
    ],
    ids=lambda value: getattr(value, "name", getattr(value, "__name__", "")),
)
def test_a_batch_costs_what_its_examples_cost(model, objective, make) -> None:
    """(sum, count) adds up: no example sees its neighbours, and the cut into batches changes nothing."""
    samples = [make(key, words) for key, words in enumerate((6, 2, 9, 1))]
    examples, together = build(objective, samples)
    whole = objective.loss(model, to_device(together, torch.device("cpu")))
    alone = [objective.collate([example]) for example in examples]
    parts = [objective.loss(model, batch) for batch in alone]
    torch.testing.assert_close(whole.sum, torch.stack([part.sum for part in parts]).sum(), rtol=1e-4, atol=1e-4)
    assert together.count == sum(batch.count for batch in alone) > 0
    assert together.real_tokens == together.inputs.lengths_B.sum()
    whole.sum.backward()
    for name, total in whole.parts.items():
        torch.testing.assert_close(total.float(), sum(part.parts[name] for part in parts).float())


def test_mlm_targets_stand_where_their_words_stood() -> None:
    samples = [photo(1, 9), photo(2, 5)]
    _, batch = build(MaskedLanguage(rule=IMAGES), samples)
    text = batch.inputs.text
    whole = np.full(int(batch.inputs.lengths_B.sum()), -1)
    whole[text.slots_P] = np.concatenate([[1, *samples[0].text_ids, 2], [1, *samples[1].text_ids, 2]])
    np.testing.assert_array_equal(whole[batch.targets.slots_M], batch.targets.ids_M)
    changed = text.slots_P[text.ids_P != torch.from_numpy(whole[text.slots_P])]
    assert set(changed.tolist()) <= set(batch.targets.slots_M.tolist())
    assert not batch.inputs.regions.masked_R.any()  # one modality at a time


def test_masked_regions_are_hidden_from_the_model(model) -> None:
    sample = photo(3)
    objective = RegionFeatures(rule=IMAGES)
    example = objective.example(sample, generator(0, 0, 3, "mrfr"))
    batch = objective.collate([example])
    before = model.encode(batch.inputs)
    batch.inputs.regions.features_RD[batch.inputs.regions.masked_R] += 5
    torch.testing.assert_close(model.encode(batch.inputs), before)


def test_half_of_the_pairs_are_mismatches() -> None:
    objective = ImageTextMatching(rule=IMAGES)
    right, wrong = photo(1, regions=4), photo(2, regions=7)
    pairs = [objective.example(right, generator(0, epoch, 1, "itm"), wrong) for epoch in range(400)]
    assert 150 < sum(pair.label for pair in pairs) < 250
    assert all((pair.sequence.num_visual == 4) == bool(pair.label) for pair in pairs)


def test_videobert_sequences() -> None:
    objective = MaskedVisualTokens(rule=VIDEOS)
    examples = [objective.example(clip(1), generator(0, epoch, 1, "mfm")) for epoch in range(300)]
    alone = [example for example in examples if example.sequence.num_text == 1]
    assert 100 < len(alone) < 200
    steps = {int(np.diff(example.tokens).min()) for example in examples if len(example.tokens) > 1}
    assert max(steps) >= 4
    lengths = {example.sequence.num_visual - 1 for example in examples}
    assert lengths == {12, 6, 4, 3, 2} or lengths <= {12, 6, 4, 3, 2}
    example = examples[0]
    assert example.sequence.visual_ids_V[0] == 31  # [>]
    assert example.sequence.text_ids_P[0] == 1
    assert example.sequence.ends_with.tolist() == [2]
    batch = objective.collate(examples)
    ids, slots = batch.inputs.visual_tokens.ids_V, batch.inputs.visual_tokens.slots_V
    by_slot = dict(zip(slots.tolist(), ids.tolist(), strict=True))
    kept = [
        by_slot[slot] == target
        for slot, target in zip(batch.targets.slots_M.tolist(), batch.targets.ids_M.tolist(), strict=True)
    ]
    masked = [by_slot[slot] == 30 for slot in batch.targets.slots_M.tolist()]
    assert 0.02 < np.mean(kept) < 0.25
    assert 0.7 < np.mean(masked) < 0.95
    everything = torch.cat([slots, batch.inputs.text.slots_P]).sort().values
    torch.testing.assert_close(everything, torch.arange(int(batch.inputs.lengths_B.sum())))


def test_a_model_without_regions_says_so() -> None:
    sizes = EncoderConfig(layers=1, hidden=16, heads=2, intermediate=32)
    blind = SingleStream(SingleStreamConfig(encoder=sizes, vocabulary=60, positions=64))
    _, batch = build(MaskedLanguage(rule=IMAGES), [photo(1), photo(2)])
    with pytest.raises(SettingsError, match="without regions"):
        blind.encode(batch.inputs)
