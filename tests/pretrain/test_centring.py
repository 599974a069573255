"""`model.centre_regions`: what all region features share neither drowns their differences nor has to be learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pretrain.learning import WORDS, named_images, tiny_recipe
from torch import Tensor, nn

from vlprep.pretrain.base import Inputs, LooksAtRegions, RegionSample, StoreFacts
from vlprep.pretrain.models.kinds import build_model
from vlprep.pretrain.models.lxmert import Lxmert
from vlprep.pretrain.models.single_stream import SingleStream
from vlprep.pretrain.models.vilbert import Vilbert
from vlprep.pretrain.packing import Example, pack
from vlprep.pretrain.setup import mean_region, model_config, open_corpora, prepare, store_facts

MEAN_D = torch.linspace(1, 9, 8)
SIZES = {
    "lxmert": {"region_layers": 1, "cross_layers": 1},
    "vilbert": {"region_layers": 1, "cross_layers": 1, "region_hidden": 16, "region_heads": 2, "cross_hidden": 16},
}
KINDS = ["single-stream", "lxmert", "vilbert", "oscar", "vlp"]


def network(kind: str, **settings: str) -> nn.Module:
    torch.manual_seed(0)
    recipe = tiny_recipe(["mlm"], kind=kind, **SIZES.get(kind, {}), **settings)
    facts = StoreFacts(region_dim=8, num_classes=4)
    return build_model(model_config(recipe, WORDS, facts)).eval()


def inputs(features_RD: np.ndarray) -> Inputs:
    rng = np.random.default_rng(0)
    count = len(features_RD)
    probs = rng.dirichlet(np.ones(5), count).astype(np.float32)
    regions = RegionSample(
        features_RD=features_RD,
        boxes_R4=np.sort(rng.random((count, 4)).astype(np.float32), 1),
        object_ids_R=np.zeros(count, np.uint16),
        class_probs_RK=probs[:, 1:],
        background_R=probs[:, 0],
        confidence_R=probs.max(1),
    )
    return pack([Example(text_ids_P=np.array([1, 7, 8, 2]), regions=regions)], distributions=True)


def states(model: nn.Module, features_RD: np.ndarray) -> list[Tensor]:
    with torch.no_grad():
        found = model.encode(inputs(features_RD))
    return [found] if isinstance(found, Tensor) else [found.text_PH, found.regions_RH]


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_comes_in_as_nothing(kind: str) -> None:
    model = network(kind)
    features_RD = np.random.default_rng(1).random((3, 8)).astype(np.float32)
    expected = states(model, features_RD)
    assert isinstance(model, LooksAtRegions)
    model.centre_regions(MEAN_D)
    torch.testing.assert_close(states(model, features_RD + MEAN_D.numpy()), expected, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(states(model, features_RD)[0], expected[0], atol=1e-3)


def test_the_mean_goes_out_as_the_first_guess_of_features() -> None:
    uniter, lxmert, vilbert = network("single-stream"), network("lxmert"), network("vilbert", region_outputs="features")
    assert isinstance(uniter, SingleStream)
    assert isinstance(lxmert, Lxmert)
    assert isinstance(vilbert, Vilbert)
    narrow_M, wide_M = torch.randn(5, 16), torch.randn(5, 32)
    for model, predict in (
        (uniter, lambda: uniter.region_features(wide_M)),
        (lxmert, lambda: lxmert.region_scores(wide_M)["feat"]),
        (vilbert, lambda: vilbert.region_outputs(narrow_M)),
    ):
        before_MD = predict()
        model.centre_regions(MEAN_D)
        torch.testing.assert_close(predict(), before_MD + MEAN_D)


def test_the_mean_is_that_of_the_regions_that_train(tmp_path: Path) -> None:
    recipe = tiny_recipe(["mrfr"])
    corpora = open_corpora([named_images(tmp_path, count=40)], recipe)
    made = prepare(recipe, corpora, WORDS, store_facts(corpora), processes=1)
    trained = made.train["mrfr"].samples.tolist()
    assert len(trained) < 40
    rows = [made.corpus.sample(number).regions for number in trained]
    expected_D = np.concatenate([regions.features_RD for regions in rows if regions is not None]).mean(0, np.float32)
    assert mean_region(made) == pytest.approx(expected_D, rel=1e-5)
