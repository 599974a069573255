"""The list of objectives: whole, true to the documentation, and matched with the models."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlprep.errors import SettingsError
from vlprep.pretrain.models.kinds import KINDS
from vlprep.pretrain.objectives.catalogue import OBJECTIVES, list_objectives, require_kind
from vlprep.pretrain.recipe import load_recipe, recipe_names

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
    require_kind(recipe.objectives, recipe.model.kind)


def test_every_kind_has_an_objective_and_every_system_a_twin() -> None:
    assert {entry.kind for entry in OBJECTIVES.values()} == KINDS.keys()
    assert {load_recipe(name).model.kind for name in recipe_names() if name.endswith("-small")} == KINDS.keys()


def test_an_objective_of_another_model_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"mlm trains a single-stream model, and model\.kind is lxmert.*has lxmert"):
        require_kind(["mlm"], "lxmert")
