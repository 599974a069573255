from __future__ import annotations

import numpy as np
import pytest

from vlprep.pretrain.retrieval import measure, ranks


def test_ranks_by_hand() -> None:
    scores = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert ranks(scores, np.eye(3, dtype=bool)).tolist() == [1, 2, 3]


def test_the_best_of_several_right_candidates_counts() -> None:
    scores = np.array([[1.0, 4.0, 3.0, 2.0]])
    assert ranks(scores, np.array([[True, False, True, False]])).tolist() == [2]


def test_equal_scores_are_no_hit() -> None:
    found = measure(np.zeros((20, 20)), np.eye(20, dtype=bool))
    assert found.recall[10].value == 0
    assert found.median_rank.value == 20


def test_chance_is_what_random_scores_reach() -> None:
    draw = np.random.default_rng(1)
    right = np.eye(40, dtype=bool) | np.eye(40, k=1, dtype=bool)
    found = [measure(draw.normal(size=(40, 40)), right) for _ in range(60)]
    for cut in (1, 5, 10):
        assert np.mean([one.recall[cut].value for one in found]) == pytest.approx(found[0].chance[cut], abs=0.02)


def test_intervals_hold_the_value_and_shrink_with_queries() -> None:
    draw = np.random.default_rng(2)
    found = []
    for queries in (30, 480):
        right = np.arange(40) == draw.integers(40, size=queries)[:, None]
        found.append(measure(draw.normal(size=right.shape) + 2.0 * right, right))
    for one in found:
        assert one.recall[5].low <= one.recall[5].value <= one.recall[5].high
    width = [one.recall[10].high - one.recall[10].low for one in found]
    assert width[1] < width[0] / 2


def test_scores_that_are_no_numbers_find_nothing() -> None:
    right = np.eye(5, dtype=bool)
    assert ranks(np.full((5, 5), np.nan), right).tolist() == [5] * 5
    assert ranks(np.where(right, 1.0, np.nan), right).tolist() == [5] * 5
