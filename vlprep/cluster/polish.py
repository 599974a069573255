"""Lloyd iterations over the leaves, with candidates found through the tree.

Hierarchical k-means never moves a vector back across a branch. Polishing does: each vector goes to the nearest leaf
that a beam reaches, leaves move to the mean of their vectors, and every node above moves to the mean of its leaves, so
that the tree goes on finding them. Empty leaves stay where they are. Codes do not change.

Shape suffixes: N vectors, D feature size, L nodes of a level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from vlprep.cluster.assign import ROWS_AT_ONCE, Assigner, AssignRule
from vlprep.cluster.vocabulary import Array, Vocabulary

BLOCK = 16384


def polish(
    sample_ND: Array,
    vocabulary: Vocabulary,
    iterations: int,
    *,
    beam: int = 8,
    on_iteration: Callable[[int, float], None] = lambda iteration, error: None,
) -> Vocabulary:
    """Return a vocabulary whose leaves fit `sample_ND` (N, D) better.

    `on_iteration(iteration, error)` hears the mean squared distance before each move.
    """
    sample = torch.from_numpy(sample_ND)
    for iteration in range(iterations):
        assigner = Assigner(vocabulary, AssignRule(beam))
        sums_LD = torch.zeros(vocabulary.size, vocabulary.dim, dtype=torch.float64)
        counts_L = np.zeros(vocabulary.size, np.int64)
        error = 0.0
        for start in range(0, len(sample_ND), BLOCK):
            tokens_N, distances_N = assigner(sample_ND[start : start + BLOCK])
            for begin in range(0, len(tokens_N), ROWS_AT_ONCE):
                tokens = torch.from_numpy(tokens_N[begin : begin + ROWS_AT_ONCE].astype(np.int64))
                sums_LD.index_add_(0, tokens, sample[start + begin : start + begin + len(tokens)].double())
            counts_L += np.bincount(tokens_N, minlength=vocabulary.size)
            error += float(distances_N.sum(dtype=np.float64))
        on_iteration(iteration, error / len(sample_ND))
        vocabulary = _move(vocabulary, sums_LD.numpy(), counts_L)
    return replace(vocabulary, settings={**vocabulary.settings, "polish": iterations, "polish_beam": beam})


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
