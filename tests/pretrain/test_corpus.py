"""Joins of stores into samples: who is a sample, how long it is, and what is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pretrain.learning import WORDS, tiny_recipe
from pretrain.stores import clips, image, learnable_images, text, write

from vlprep.errors import SettingsError
from vlprep.pretrain.corpus import Corpus, DatasetStores, Mixture
from vlprep.pretrain.places import CorpusSettings
from vlprep.pretrain.setup import open_corpora, prepare, store_facts
from vlprep.shards.schema import regions_schema, text_schema, tokens_schema


@pytest.fixture
def images(tmp_path):
    regions = write(
        tmp_path / "regions",
        regions_schema(8, 4),
        "regions",
        {"a.jpg": image(40, 12), "b.jpg": image(40, 3, source="77"), "c.jpg": image(5, 5)},
    )
    texts = write(
        tmp_path / "text",
        text_schema(),
        "text",
        {
            "a.jpg#0": text("a.jpg", [5, 6, 7]),
            "a.jpg#1": text("a.jpg", [5]),
            "b#0": text("elsewhere.jpg", [6, 6], source="77"),
            "c.jpg#0": text("c.jpg", list(range(61))),
            "d.jpg#0": text("d.jpg", [5]),
            "e.jpg#0": text("c.jpg", []),
        },
    )
    return DatasetStores(text=texts, regions=regions)


def test_images(images) -> None:
    corpus = Corpus(images, CorpusSettings(max_regions=30))
    assert len(corpus) == 3
    # pieces + clip(#confident, 10, 30) + [CLS] + [SEP]
    assert corpus.lengths().tolist() == [3 + 12 + 2, 1 + 12 + 2, 2 + 10 + 2]
    sample = corpus.sample(2)  # joined by the dataset's own id
    assert sample.text_ids.tolist() == [6, 6]
    np.testing.assert_array_equal(sample.regions.features_RD[:, 0], np.arange(10))
    np.testing.assert_allclose(sample.regions.boxes_R4[0], [0.1, 0.1, 0.5, 0.5], rtol=1e-6)
    assert not sample.regions.features_RD.flags.owndata
    assert corpus.left_out == {
        "texts without an image": 1,
        "texts that are too long": 1,
        "texts without a word": 1,
    }


def test_sequences_that_a_model_has_no_places_for_are_counted(images) -> None:
    recipe = tiny_recipe(["mlm"], positions=15)
    recipe = replace(recipe, train=replace(recipe.train, validation_share=0.0))
    corpora = open_corpora([images], recipe)
    made = prepare(recipe, corpora, WORDS, store_facts(corpora), processes=1)
    assert made.left_out["sequences longer than model.positions"] == 1
    assert made.left_out["texts without an image"] == 1
    assert made.train["mlm"].samples.tolist() == [1, 2]


@pytest.fixture
def videos(tmp_path):
    tokens = write(
        tmp_path / "tokens",
        tokens_schema(),
        "tokens",
        {"told.mp4": clips(10), "silent.mp4": clips(20), "void.mp4": clips(0), "shown.mp4": clips(3)},
    )
    texts = write(
        tmp_path / "text",
        text_schema(),
        "text",
        {
            "told.mp4#0": text("told.mp4", [5, 6], start=0.0, end=4.5),
            "told.mp4#1": text("told.mp4", [7], start=3.0, end=7.5),
            "told.mp4#2": text("told.mp4", [8], start=100.0, end=101.0),
            "shown.mp4#0": text("shown.mp4", [9]),
        },
    )
    return DatasetStores(text=texts, tokens=tokens)


def test_videos(videos) -> None:
    corpus = Corpus(videos, CorpusSettings())
    samples = [corpus.sample(number) for number in range(len(corpus))]
    seen = [(None if s.text_ids is None else s.text_ids.tolist(), s.visual_tokens.tolist()) for s in samples]
    assert seen == [
        ([9], [0, 1, 2]),  # a caption is about the whole video
        (None, list(range(16))),  # no narration: segments of 16
        (None, list(range(16, 20))),
        ([5, 6], [0, 1, 2]),  # clips whose middle lies in the segment
        ([7], [2, 3, 4]),
    ]
    assert corpus.lengths().tolist() == [1 + 3 + 3, 16 + 3, 4 + 3, 2 + 3 + 3, 1 + 3 + 3]
    assert corpus.left_out["segments without a clip"] == 1
    assert corpus.left_out["videos without a clip"] == 1


def test_neighbouring_segments_are_joined(videos) -> None:
    corpus = Corpus(videos, CorpusSettings(join_neighbours=1.0))
    joined = corpus.sample(3)
    assert joined.text_ids.tolist() == [5, 6, 7]
    assert joined.visual_tokens.tolist() == [0, 1, 2, 3, 4]
    assert corpus.lengths()[3] == 3 + 5 + 3


def test_a_mixture_numbers_through_and_knows_what_serves(images, videos) -> None:
    settings = CorpusSettings()
    mixture = Mixture([Corpus(images, settings), Corpus(videos, settings)])
    assert len(mixture) == 8
    assert mixture.usable_for(frozenset({"text", "regions", "class_probs"})).tolist() == [0, 1, 2]
    assert mixture.usable_for(frozenset({"visual_tokens"})).tolist() == [3, 4, 5, 6, 7]
    assert mixture.usable_for(frozenset({"text", "visual_tokens"})).tolist() == [3, 6, 7]
    assert mixture.usable_for(frozenset({"text"})).tolist() == [0, 1, 2, 3, 6, 7]
    assert mixture.sample(6).visual_tokens.tolist() == [0, 1, 2]
    assert mixture.sample(6).key == 6
    usable = mixture.usable_for(frozenset({"text", "regions"}))
    for seed in range(20):
        other = mixture.other(0, usable, np.random.default_rng(seed))
        assert other.key == 2  # 1 is another text of the same image
    with pytest.raises(SettingsError, match="two images"):
        mixture.other(0, np.array([0, 1]), np.random.default_rng(0))


def test_the_most_probable_classes_alone_are_no_distribution(images, tmp_path) -> None:
    row = image(5, 5) | {"class_ids": np.zeros((5, 2), int), "class_probs": np.full((5, 2), 0.2)}
    row["remainder_prob"] = np.full(5, 0.1)
    top2 = write(tmp_path / "top2", regions_schema(8, 4, soft_labels=2), "regions", {"a.jpg": row})
    corpus = Corpus(DatasetStores(text=images.text, regions=top2), CorpusSettings())
    assert Mixture([corpus]).usable_for(frozenset({"text", "regions"})).tolist() == [0, 1]
    assert Mixture([corpus]).usable_for(frozenset({"text", "regions", "class_probs"})).tolist() == []
    assert corpus.sample(0).regions.class_probs_RK is None


@pytest.mark.parametrize("soft_labels", ["full", 2, "none"])
def test_a_regions_confidence_is_the_probability_of_its_label(images, tmp_path, soft_labels) -> None:
    row = image(3, 3) | {"object_ids": [2, 0, 3], "max_conf": [0.5, 0.25, 0.0]}  # of what survived the NMS
    columns = {
        "full": {"class_probs": [[0, 0, 0.75, 0], [0.25, 0, 0, 0], [0.125, 0, 0, 0.5]]},
        2: {"class_ids": [[2, 0], [0, 1], [3, 0]], "class_probs": [[0.75, 0], [0.25, 0], [0.5, 0.125]]},
        "none": {},
    }
    row = {name: column for name, column in row.items() if name != "class_probs"} | columns[soft_labels]
    row |= {"remainder_prob": np.zeros(3)} if soft_labels == 2 else {}
    regions = write(tmp_path / "some", regions_schema(8, 4, soft_labels=soft_labels), "regions", {"a.jpg": row})
    corpus = Corpus(DatasetStores(text=images.text, regions=regions), CorpusSettings())
    told = [0.5, 0.25, 0.0] if soft_labels == "none" else [0.75, 0.25, 0.5]
    assert corpus.sample(0).regions.confidences().tolist() == told


def test_missing_stores_are_named(images) -> None:
    with pytest.raises(SettingsError, match="vlprep tokenize"):
        Corpus(DatasetStores(regions=images.regions), CorpusSettings())
    with pytest.raises(SettingsError, match="regions or a tokens"):
        Corpus(DatasetStores(text=images.text), CorpusSettings())


def test_samples_of_a_mixture_are_asked_for_from_their_own_stores(tmp_path, monkeypatch) -> None:
    corpora = [Corpus(learnable_images(tmp_path / name), CorpusSettings()) for name in ("a", "b")]
    asked: dict[int, list[int]] = {}
    for number, corpus in enumerate(corpora):
        monkeypatch.setattr(corpus.visual, "read_ahead", lambda rows, number=number: asked.update({number: rows}))
    first = len(corpora[0])
    Mixture(corpora).read_ahead(np.array([first + 4, 3, first]))
    assert asked == {0: [corpora[0].items()[3]], 1: corpora[1].items()[[4, 0]].tolist()}


def test_another_item_is_found_where_nearly_all_are_of_one(images) -> None:
    mixture = Mixture([Corpus(images, CorpusSettings(max_regions=30))])
    usable = np.array([0] * 1000 + [2])  # two images
    for seed in range(20):
        assert mixture.other(0, usable, np.random.default_rng(seed)).key == 2
    with pytest.raises(SettingsError, match="at least two images"):
        mixture.other(0, np.array([0, 1]), np.random.default_rng(0))
