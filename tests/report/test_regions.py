"""Rows of a regions store in words."""

from __future__ import annotations

import numpy as np
import pytest

from vlprep.report.regions import region_views

NAMES = ["cat", "dog", "table,desk", "sky"]
ROW = {
    "boxes": np.array([[1, 2, 30, 40], [5, 6, 7, 8]], np.float32),
    "object_ids": np.array([2, 0], np.uint16),
    "max_conf": np.array([0.5, 0.25], np.float16),
    "background_prob": np.array([0.25, 0.5], np.float16),
}
PROBS_RK = np.array([[0.125, 0, 0.5, 0.25], [0.25, 0.125, 0, 0.0625]], np.float16)


def test_full_distributions():
    first, second = region_views({**ROW, "class_probs": PROBS_RK}, NAMES, likely=3)
    assert first.box == (1, 2, 30, 40)
    assert (first.name, first.confidence, first.background) == ("table", 0.5, 0.25)
    assert first.likely == (("table", 0.5), ("sky", 0.25), ("cat", 0.125))
    assert second.likely[0] == ("cat", 0.25)


def test_top_k_distributions_keep_their_ids():
    row = {
        **ROW,
        "class_ids": np.array([[2, 3], [0, 1]], np.uint16),
        "class_probs": np.array([[0.5, 0.25], [0.25, 0.125]]),
    }
    first, second = region_views(row, NAMES)
    assert first.likely == (("table", 0.5), ("sky", 0.25))
    assert second.likely == (("cat", 0.25), ("dog", 0.125))


def test_imported_features_may_not_know_the_background():
    row = {name: column for name, column in ROW.items() if name != "background_prob"}
    assert [view.background for view in region_views(row, NAMES)] == [None, None]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_without_soft_labels_there_are_names_but_no_distribution(count):
    views = region_views({name: column[:count] for name, column in ROW.items()}, NAMES)
    assert [view.name for view in views] == ["table", "cat"][:count]
    assert all(view.likely == () for view in views)
