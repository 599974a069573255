"""The small twins of the systems that look at regions learn on rendered scenes what they are for, and from captions
that belong to other scenes they do not. Of each, scenes that were held out of its own data are asked about.

Slow: two trainings a test, up to two minutes each.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from stages.rendered import train_twin, with_others_captions, write_scenes

from vlprep.stages.evaluate import evaluate_retrieval

pytestmark = pytest.mark.slow


STEPS = {"lxmert-small": 3000, "vilbert-small": 1500, "oscar-small": 3000, "oscar-plus-small": 3000}
"""More than the recipes', whose two minutes show the beginning: three of these losses learn from wrong pairs too."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "own", 1200)


@pytest.fixture(scope="module")
def exchanged(scenes: Path) -> Path:
    return with_others_captions(scenes, scenes.with_name("exchanged"))


@pytest.mark.parametrize(("recipe", "steps"), STEPS.items())
def test_images_are_found_by_their_captions(recipe: str, steps: int, scenes: Path, exchanged: Path) -> None:
    """Among the first ten at three times the chance; from exchanged captions not at one and a half times."""
    recall, chance = recall_at_10(recipe, scenes, steps)
    assert recall >= 3 * chance
    recall, chance = recall_at_10(recipe, exchanged, steps)
    assert recall <= 1.5 * chance


def test_captions_are_written_from_what_is_seen(scenes: Path, exchanged: Path) -> None:
    """VLP tells masked words better from their own image than from another, by a tenth of all; a caption that belongs
    to another scene is told as well from any.
    """
    gain = {folder: gain_by_own_image(folder) for folder in (scenes, exchanged)}
    assert gain[scenes] >= 0.1
    assert abs(gain[exchanged]) <= 0.03


def recall_at_10(recipe: str, dataset: Path, steps: int) -> tuple[float, float]:
    """Of held-out images by their captions, and of a guess."""
    found = evaluate_retrieval(train_twin(recipe, dataset, f"train.steps={steps}").checkpoint, dataset).text_to_seen
    return found.recall[10].value, found.chance[10]


def gain_by_own_image(dataset: Path) -> float:
    figures = train_twin("vlp-small", dataset).figures
    return figures["vlp/accuracy"] - figures["vlp/accuracy without"]
