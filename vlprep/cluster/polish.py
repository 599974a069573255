"""Lloyd iterations over the leaves, with candidates found through the tree.

Hierarchical k-means never moves a vector back across a branch. Polishing does: each vector goes to the nearest leaf
that a beam reaches, leaves move to the mean of their vectors, and every node above moves to the mean of its leaves, so
that the tree goes on finding them. Empty leaves stay where they are. Codes do not change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vlprep.cluster.assign import Assigner, AssignRule
from vlprep.cluster.train import Array
from vlprep.cluster.vocabulary import Vocabulary

BLOCK = 16384


def polish(
    sample_ND: Array,
    vocabulary: Vocabulary,
    iterations: int,
    *,
    beam: int = 8,
    device: str = "cpu",
    on_iteration: Callable[[int, float], None] = lambda iteration, error: None,
) -> Vocabulary:
    """Return a vocabulary whose leaves fit `sample_ND` (N, D) better.

    `on_iteration(iteration, error)` hears the mean squared distance before each move.
    """
    for iteration in range(iterations):
        assigner = Assigner(vocabulary, AssignRule(beam), device)
        sums_LD = np.zeros((vocabulary.size, vocabulary.dim), np.float64)
        counts_L = np.zeros(vocabulary.size, np.int64)
        error = 0.0
        for start in range(0, len(sample_ND), BLOCK):
            block = sample_ND[start : start + BLOCK].astype(np.float32)
            tokens, distances = assigner(block)
            _add_rows(sums_LD, tokens, block)
            counts_L += np.bincount(tokens, minlength=vocabulary.size)
            error += float(distances.sum(dtype=np.float64))
        on_iteration(iteration, error / len(sample_ND))
        vocabulary = _move(vocabulary, sums_LD, counts_L)
    return replace(vocabulary, settings={**vocabulary.settings, "polish": iterations, "polish_beam": beam})


def _add_rows(sums_LD: NDArray[np.float64], tokens_N: NDArray[np.uint16], rows_ND: NDArray[np.float32]) -> None:
    """sums[tokens] += rows, one sum a token (np.add.at is many times slower)."""
    order = np.argsort(tokens_N, kind="stable")
    present, starts = np.unique(tokens_N[order], return_index=True)
    sums_LD[present] += np.add.reduceat(rows_ND[order], starts, axis=0, dtype=np.float64)


def _move(vocabulary: Vocabulary, sums_LD: NDArray[np.float64], counts_L: NDArray[np.int64]) -> Vocabulary:
    centroids: list[NDArray[np.float32]] = []
    counts: list[NDArray[np.int64]] = []
    for level in range(vocabulary.depth, 0, -1):
        moved = vocabulary.centroids[level - 1].copy()
        filled = counts_L > 0
        moved[filled] = sums_LD[filled] / counts_L[filled, None]
        centroids.insert(0, moved)
        counts.insert(0, counts_L)
        sums_LD = sums_LD.reshape(-1, vocabulary.branching, vocabulary.dim).sum(1)
        counts_L = counts_L.reshape(-1, vocabulary.branching).sum(1)
    return replace(vocabulary, centroids=tuple(centroids), counts=tuple(counts))
