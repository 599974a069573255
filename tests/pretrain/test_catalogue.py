"""The list of objectives: whole, true to the documentation, and matched with the models."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlprep.errors import SettingsError
from vlprep.pretrain.models.cbt import CbtSettings
from vlprep.pretrain.models.hero import HeroSettings
from vlprep.pretrain.models.kinds import KINDS
from vlprep.pretrain.models.lxmert import LxmertSettings
from vlprep.pretrain.models.oscar import OscarSettings
from vlprep.pretrain.models.vilbert import VilbertSettings
from vlprep.pretrain.objectives.catalogue import OBJECTIVES, list_objectives, require_fit
from vlprep.pretrain.objectives.mlm import MaskedLanguageSettings
from vlprep.pretrain.objectives.oscar import OscarTaskSettings
from vlprep.pretrain.objectives.told_clips import SegmentSettings
from vlprep.pretrain.objectives.vilbert import VilbertTaskSettings
from vlprep.pretrain.recipe import load_recipe, recipe_names
from vlprep.pretrain.settings import ModelSettings, ObjectiveSettings

PAGE = Path(__file__).parents[2] / "docs" / "objectives.md"


def test_the_page_lists_every_objective() -> None:
    page = PAGE.read_text()
    for entry in list_objectives():
        formula = entry.formula.replace("|", "\\|")
        reads = ", ".join(entry.inputs).replace("_", " ")
        assert f"| `{entry.name}` | {entry.systems} | {reads} | {formula} | {entry.source} |" in page
    assert page.count("\n| `") == len(OBJECTIVES)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_trains_objectives_of_its_model(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.model.kind in KINDS
    require_fit(recipe.objectives, recipe.model)


def test_every_kind_has_an_objective_and_every_system_a_twin() -> None:
    assert {entry.kind for entry in OBJECTIVES.values()} == KINDS.keys()
    assert {load_recipe(name).model.kind for name in recipe_names() if name.endswith("-small")} == KINDS.keys()


@pytest.mark.parametrize(
    ("chosen", "model", "complaint"),
    [
        (OscarTaskSettings(wrong_text=0.5), OscarSettings(contrast_classes=2), "contrast_classes = 3"),
        (VilbertTaskSettings(target="nce"), VilbertSettings(), 'region_outputs = "features"'),
        (VilbertTaskSettings(), VilbertSettings(region_outputs="features"), 'region_outputs = "classes"'),
        (SegmentSettings(max_words=60), CbtSettings(), "text_places"),
        (SegmentSettings(max_clips=100), HeroSettings(positions=64), "as many model.positions, not 64"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    chosen: ObjectiveSettings, model: ModelSettings, complaint: str
) -> None:
    with pytest.raises(SettingsError, match=complaint):
        chosen.require_fit(model)


def test_an_objective_of_another_model_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"mlm trains a single-stream model, and model\.kind is lxmert.*has lxmert"):
        require_fit({"mlm": MaskedLanguageSettings()}, LxmertSettings())
