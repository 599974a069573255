"""The small twins of the systems that look at regions learn on rendered scenes what they are for, and from captions
that belong to other scenes they do not. Of each, scenes that were held out of its own data are asked about.

Slow: two trainings a test, up to five minutes each.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from stages.rendered import train_twin, with_others_captions, write_scenes

from vlprep.stages.evaluate import evaluate_retrieval

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "own", 1200)


@pytest.fixture(scope="module")
def exchanged(scenes: Path) -> Path:
    return with_others_captions(scenes, scenes.with_name("exchanged"))


@pytest.mark.parametrize(
    ("recipe", "steps", "least"), [("lxmert-small", 3000, 3), ("vilbert-small", 1500, 3), ("oscar-plus-small", 1500, 2)]
)
def test_images_are_found_by_their_captions(
    recipe: str, steps: int, least: float, scenes: Path, exchanged: Path
) -> None:
    """Among the first ten `least` times as often as by chance; from exchanged captions not one and a half times."""
    recall, chance = recall_at_10(recipe, scenes, steps)
    assert recall >= least * chance
    recall, chance = recall_at_10(recipe, exchanged, steps)
    assert recall <= 1.5 * chance


def test_oscar_tells_words_from_what_is_seen(scenes: Path, exchanged: Path) -> None:
    """And wrong tags from right ones. It meets no wrong caption beside right tags, so that it cannot find images by
    captions; tags and regions belong together whatever the captions are, so that words are what exchanged ones spoil.
    """
    own, others = (train_twin("oscar-small", folder, "train.steps=1500").figures for folder in (scenes, exchanged))
    assert own["oscar/auc"] >= 0.9
    assert own["oscar/mlm accuracy"] >= others["oscar/mlm accuracy"] + 0.03


def test_captions_are_written_from_what_is_seen(scenes: Path, exchanged: Path) -> None:
    """VLP tells masked words better from their own image than from another, by a tenth of all; a caption that belongs
    to another scene is told as well from any.
    """
    gain = {folder: gain_by_own_image("vlp-small", "vlp", folder) for folder in (scenes, exchanged)}
    assert gain[scenes] >= 0.1
    assert abs(gain[exchanged]) <= 0.03


def test_uniter_tells_words_by_what_is_seen(scenes: Path, exchanged: Path) -> None:
    """In two minutes, with all four tasks; how far it comes in more is in docs/learning.md."""
    assert gain_by_own_image("uniter-demo", "mlm", scenes) >= 0.03
    assert abs(gain_by_own_image("uniter-demo", "mlm", exchanged)) <= 0.02


def recall_at_10(recipe: str, dataset: Path, steps: int) -> tuple[float, float]:
    """Of held-out images by their captions, and of a guess."""
    found = evaluate_retrieval(train_twin(recipe, dataset, f"train.steps={steps}").checkpoint, dataset).text_to_seen
    return found.recall[10].value, found.chance[10]


def gain_by_own_image(recipe: str, objective: str, dataset: Path) -> float:
    """In masked words told, over another image."""
    figures = train_twin(recipe, dataset).figures
    return figures[f"{objective}/accuracy"] - figures[f"{objective}/accuracy without"]
