"""Recipes: the shipped ones are whole, a mistake names itself, options reach their place."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from vlprep.errors import SettingsError
from vlprep.pretrain.recipe import (
    Recipe,
    load_recipe,
    read_recipe,
    recipe_names,
    to_table,
    with_objectives,
    with_settings,
)


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load_and_survive_a_round_trip(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.objectives
    assert read_recipe(to_table(recipe), "recipe") == recipe


def test_the_published_hyperparameters() -> None:
    base, large = load_recipe("uniter-base"), load_recipe("uniter-large")
    assert (base.optimiser.lr, base.optimiser.betas, base.optimiser.clip) == (5e-5, (0.9, 0.98), 5.0)
    assert (base.batches.tokens, base.train.accumulate, base.train.steps) == (10240, 6, 200_000)
    assert {name: settings.weight for name, settings in base.objectives.items()} == {
        "itm": 6,
        "mlm": 8,
        "mrfr": 4,
        "mrc-kl": 4,
    }
    assert base.objectives["itm"].wra == 0.1
    assert (large.model.layers, large.batches.tokens, large.train.steps) == (24, 6144, 500_000)


@pytest.mark.parametrize(
    ("name", "optimiser", "warmup", "steps"),  # rate, betas, eps, decay, clip; the files say where from
    [
        ("lxmert", (1e-4, (0.9, 0.999), 1e-6, 0.01, 1.0), 35_850, 717_000),
        ("vilbert", (1e-4, (0.9, 0.98), 1e-8, 0.01, 0.0), 6_050, 60_500),
        ("vlp", (1e-4, (0.9, 0.999), 1e-6, 0.01, 1.0), 18_200, 182_000),
        ("oscar", (5e-5, (0.9, 0.999), 1e-8, 0.01, 10.0), 0, 1_000_000),
        ("oscar-plus", (5e-5, (0.9, 0.999), 1e-8, 0.01, 10.0), 0, 2_000_000),
        ("howto100m", (1e-4, (0.9, 0.999), 1e-8, 0.0, 0.0), 0, 580_000),
        ("milnce", (1e-3, (0.9, 0.999), 1e-8, 0.0, 0.0), 10_000, 726_000),
        ("univl-stage1", (1e-4, (0.9, 0.999), 1e-6, 0.01, 1.0), 3_125, 31_250),
        ("univl-stage2", (1e-4, (0.9, 0.999), 1e-6, 0.01, 1.0), 6_250, 62_500),
        ("hero-order", (3e-5, (0.9, 0.98), 1e-6, 0.01, 1.0), 10_000, 100_000),
    ],
)
def test_the_published_optimisers(name: str, optimiser: tuple[object, ...], warmup: int, steps: int) -> None:
    recipe = load_recipe(name)
    chosen = recipe.optimiser
    assert (chosen.lr, chosen.betas, chosen.eps, chosen.weight_decay, chosen.clip) == optimiser
    assert (chosen.warmup, recipe.train.steps) == (warmup, steps)


@pytest.mark.parametrize(
    ("name", "samples", "sample", "processes"),
    [
        ("lxmert", 256, 36 + 14, 1),
        ("vilbert", 512, 37 + 13, 1),
        ("vlp", 512, 100 + 3 + 11, 1),
        ("oscar", 768, 80, 8),  # 35 pieces and 10 to 50 regions
        ("oscar-plus", 1024, 80, 8),
    ],
)
def test_token_budgets_hold_the_published_batches(name: str, samples: int, sample: int, processes: int) -> None:
    recipe = load_recipe(name)
    held = recipe.batches.tokens * recipe.train.accumulate * processes / sample
    assert held == pytest.approx(samples, rel=0.01)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[model]\nlayer = 3", "recipe.model: no setting layer; there are kind, init, layers"),
        ("[model]\nlayers = 'three'", "recipe.model.layers: expected int"),
        ("[model]\nkind = 'bert'", "model.kind bert: there are cbt, single-stream"),
        ("[model]\nkind = 'howto100m'\nlayers = 3", "recipe.model: no setting layers; there are kind, init, joint"),
        ("[objectives.itm]\nvideo_only = 0.5", "objectives.itm: no setting video_only; there are weight, wra"),
        ("[objectives.mln]", "--objective mln: there are mlm"),
        ("[train]\nprecision = 'fp8'", "one of fp32, bf16, fp16"),
        ("[objectives.mlm]\nshare = 1", "recipe.objectives.mlm: no setting share"),
        ("model = 3", "expected a section"),
        ("[optimiser]\nbetas = 0.9", "recipe.optimiser.betas: expected a list"),
        ("[optimiser]\nbetas = [0.9]", "recipe.optimiser.betas: expected 2 values"),
        ("[optimiser]\nlr = -1.0", "optimiser.lr is a number from 0 on, not -1"),
        ("[optimiser]\neps = 0.0", "optimiser.eps is above 0"),
        ("[optimiser]\nbetas = [1, 2]", "optimiser.betas are from 0 to below 1"),
        ("[optimiser]\nclip = nan", "optimiser.clip is a number"),
        ("[model]\nlayers = 0", "model.layers is at least 1, not 0"),
        ("[model]\ndropout = 2.0", "model.dropout is from 0 to below 1"),
        ("[data]\nmax_regions = 0", "data.max_regions is at least 1, not 0"),
        ("[data]\nmin_regions = 20\nmax_regions = 10", "data.min_regions = 20 is above max_regions = 10"),
        ("[objectives.mlm]\nweight = 0", "weight is above 0"),
        ("[objectives.vlp]\nweight = 0", "weight is above 0"),
        ("[train]\nseed = -1", "train.seed is at least 0, not -1"),
        ("[train]\nvalidation_batches = 0", "train.validation_batches is at least 1, not 0"),
        ("[train]\nseed = 100000000000000000000", r"train.seed is below 2\^63"),
        ("[data]\nseed = -1", "data.seed is at least 0, not -1"),
        ("[model]\nkind = 'howto100m'\njoint = 0", "model.joint is at least 1, not 0"),
        ("[model]\nkind = 'univl'\nvideo_layers = 0", "model.video_layers is at least 1, not 0"),
        ("[model]\nkind = 'univl'\ncross_layers = -1", "model.cross_layers is at least 0, not -1"),
        ("[objectives.howto100m]\npairs = 0", "objectives.pairs is at least 1, not 0"),
        ("[objectives.howto100m]\nmargin = inf", "objectives.margin is a number from 0 on, not inf"),
        ("[objectives.mlm]\nweight = inf", "weight is above 0"),
        ("[objectives.cbt]\nmax_words = 2", "max_words = 2 leaves no room for a word"),
        ("[objectives.milnce-end-to-end.clips]\nshort_side = 200", "short_side = 200 is below side = 224"),
        ("[batches]\nmultiple = 0", "multiple are at least 1"),
    ],
)
def test_mistakes_name_themselves(text: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint.replace("[", r"\[")):
        read_recipe(tomllib.loads(text), "recipe")


def test_options_reach_their_place() -> None:
    recipe = with_objectives(load_recipe("uniter-small"), "mlm:2+itm+mfm")
    assert list(recipe.objectives) == ["mlm", "itm", "mfm"]
    assert recipe.objectives["itm"].wra == 0.1  # the recipe's own setting is kept
    recipe = with_settings(
        recipe,
        ["optimiser.lr=1e-3", "model.attention=jagged", "objectives.mfm.video_only=0", "optimiser.betas=[0.8, 0.9]"],
    )
    assert recipe.optimiser.lr == 1e-3
    assert recipe.model.attention == "jagged"
    assert recipe.objectives["mfm"].video_only == 0.0
    assert recipe.optimiser.betas == (0.8, 0.9)


@pytest.mark.parametrize(
    "assignment", ["lr=3", "optimiser.rate=3", "optimiser.lr", "objectives.mrc.weight=1", "train.steps=0.5"]
)
def test_wrong_assignments_are_refused(assignment: str) -> None:
    with pytest.raises(SettingsError, match="--set"):
        with_settings(load_recipe("uniter-small"), [assignment])


def test_unknown_recipes_and_objectives_text() -> None:
    with pytest.raises(SettingsError, match="uniter-base"):
        load_recipe("uniter")
    for text in ("", "mlm:0", "mlm:inf", "mlm:x", "mlm++itm", "mlm+mlm"):
        with pytest.raises(SettingsError, match="--objective"):
            with_objectives(Recipe(), text)


def test_a_recipe_in_another_encoding_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[train]\nsteps = 3\n", "utf-16")
    with pytest.raises(SettingsError, match=r"own\.toml: not UTF-8 text"):
        load_recipe(str(file))
