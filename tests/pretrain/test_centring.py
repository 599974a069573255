"""`model.centre_regions`: what all region features share neither drowns their differences nor has to be learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pretrain.learning import WORDS, named_images, tiny_recipe

from vlprep.pretrain.encoder import EncoderConfig
from vlprep.pretrain.models.single_stream import SingleStream, SingleStreamConfig
from vlprep.pretrain.setup import mean_region, open_corpora, prepare, store_facts


def network() -> SingleStream:
    torch.manual_seed(0)
    sizes = EncoderConfig(layers=1, hidden=32, heads=2, intermediate=64, dropout=0.0)
    return SingleStream(SingleStreamConfig(encoder=sizes, vocabulary=20, region_dim=8, region_classes=3)).eval()


def test_the_mean_comes_in_as_nothing_and_goes_out_as_the_first_guess() -> None:
    model, mean_D = network(), torch.linspace(1, 9, 8)
    states_MH = torch.randn(5, 32)
    before_MD = model.region_features(states_MH)
    model.centre_regions(mean_D)
    projection = model.bert["img_embeddings"].img_linear
    torch.testing.assert_close(projection(mean_D), torch.zeros(32), atol=1e-6, rtol=0)
    torch.testing.assert_close(model.region_features(states_MH), before_MD + mean_D)


def test_the_mean_is_that_of_the_regions_that_train(tmp_path: Path) -> None:
    recipe = tiny_recipe(["mrfr"])
    corpora = open_corpora([named_images(tmp_path, count=40)], recipe)
    made = prepare(recipe, corpora, WORDS, store_facts(corpora), processes=1)
    trained = made.train["mrfr"].samples.tolist()
    assert len(trained) < 40
    rows = [made.corpus.sample(number).regions for number in trained]
    expected_D = np.concatenate([regions.features_RD for regions in rows if regions is not None]).mean(0, np.float32)
    assert mean_region(made) == pytest.approx(expected_D, rel=1e-5)
