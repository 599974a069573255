"""Masks: their statistics within the published rules' bounds, and that they depend on nothing but their key."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vlprep.pretrain.masking import generator, mask_rows, mask_tokens

SEQUENCES = 20000


def inside(statistic: dict[str, float], observed: float, units: int) -> None:
    """The reference gives exact probabilities; the interval is 5 standard errors for as many units as were drawn
    here.
    """
    if "mean" in statistic:
        centre, spread = statistic["mean"], np.sqrt(statistic["variance"] / units)
    else:
        centre = statistic["p"]
        spread = np.sqrt(centre * (1 - centre) / units)
    assert abs(observed - centre) <= 5 * spread + 1e-9, (statistic, observed)


@pytest.fixture(scope="module")
def rules(golden: Path) -> dict:
    return json.loads((golden / "pretraining/masking_statistics.json").read_text())["rules"]


@pytest.mark.parametrize("length", [1, 3, 10, 30])
def test_word_masking_is_uniters(rules: dict, length: int) -> None:
    statistics = rules[f"uniter_mlm.length{length}"]["statistics"]
    draw = generator(0, 0, 0, "statistics")
    ids = np.arange(length)  # replacements are drawn from 0 ... 999, so that they may be the original, as in the rule
    hit = np.zeros((SEQUENCES, length), bool)
    became = np.zeros((SEQUENCES, length), np.int64)
    for row in range(SEQUENCES):
        became[row], targets = mask_tokens(ids, draw, mask=5000, replacements=range(1000))
        hit[row, targets] = True
    inside(statistics["first_is_target"], hit[:, 0].mean(), SEQUENCES)
    inside(statistics["no_target"], (~hit.any(1)).mean(), SEQUENCES)
    inside(statistics["exactly_one_target"], (hit.sum(1) == 1).mean(), SEQUENCES)
    inside(statistics["targets_per_sequence"], hit.sum(1).mean(), SEQUENCES)
    inside(statistics["first_becomes_mask"], (became[:, 0] == 5000).mean(), SEQUENCES)
    inside(statistics["first_replaced"], ((became[:, 0] != 5000) & (became[:, 0] != 0)).mean(), SEQUENCES)
    assert (became[~hit] == np.broadcast_to(ids, hit.shape)[~hit]).all()
    if length > 1:
        later, values = hit[:, 1:], became[:, 1:]
        targets = int(later.sum())
        inside(statistics["other_position_is_target"], later.mean(), later.size)
        inside(statistics["mask_given_target"], (values[later] == 5000).mean(), targets)
        kept = values == ids[None, 1:]
        inside(statistics["unchanged_given_target"], kept[later].mean(), targets)
        inside(statistics["other_token_given_target"], (~kept & (values != 5000))[later].mean(), targets)


@pytest.mark.parametrize("name", ["uniter_mrm.regions1", "uniter_mrm.regions10", "hero_mfm.regions20"])
def test_region_masking_is_uniters(rules: dict, name: str) -> None:
    rule = rules[name]
    draw = generator(1, 0, 0, "statistics")
    masked = np.stack([mask_rows(rule["settings"]["regions"], draw) for _ in range(SEQUENCES)])
    statistics = rule["statistics"]
    inside(statistics["region_is_masked"], masked.mean(), masked.size)
    inside(statistics["first_region_is_masked"], masked[:, 0].mean(), SEQUENCES)
    inside(statistics["no_region_masked"], (~masked.any(1)).mean(), SEQUENCES)
    inside(statistics["exactly_one_masked"], (masked.sum(1) == 1).mean(), SEQUENCES)
    inside(statistics["masked_per_image"], masked.sum(1).mean(), SEQUENCES)


def test_a_draw_depends_on_its_key_and_nothing_else() -> None:
    def drawn(*key: object) -> list[float]:
        return generator(*key).random(4).tolist()  # type: ignore[arg-type]

    assert drawn(1, 2, 3, "mlm") == drawn(1, 2, 3, "mlm")
    others = [drawn(0, 2, 3, "mlm"), drawn(1, 0, 3, "mlm"), drawn(1, 2, 0, "mlm"), drawn(1, 2, 3, "mrfr")]
    assert all(other != drawn(1, 2, 3, "mlm") for other in others)


def test_empty_text_has_no_target() -> None:
    masked, targets = mask_tokens(np.empty(0, np.int64), generator(0, 0, 0, ""), mask=1, replacements=range(5))
    assert len(masked) == len(targets) == 0
