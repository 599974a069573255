"""How good a vocabulary is: empty leaves, balance, quantisation error by level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlprep.cluster.vocabulary import Vocabulary, prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelQuality:
    """One level of a vocabulary, judged by how often each of its nodes was used."""

    level: int
    codes: int
    """k ** level."""
    absent: int
    """Codes that have no node, because too few vectors were there to split."""
    empty: int
    """Nodes that exist and that no vector reached."""
    perplexity: float
    """exp(entropy of the usage): the number of equally used codes that would be as diverse."""
    largest: float
    """Share of the vectors at the most used node."""


def level_quality(vocabulary: Vocabulary, level: int, counts_L: NDArray[np.int64] | None = None) -> LevelQuality:
    """Judge `level` by the training counts, or by `counts_L` (k ** level,) of another set of vectors."""
    counts_L = vocabulary.counts[level - 1] if counts_L is None else counts_L
    present_L = vocabulary.present(level)
    share = counts_L[counts_L > 0] / max(counts_L.sum(), 1)
    return LevelQuality(
        level=level,
        codes=len(counts_L),
        absent=int((~present_L).sum()),
        empty=int((present_L & (counts_L == 0)).sum()),
        perplexity=float(np.exp(-(share * np.log(share)).sum())) if len(share) else 0.0,
        largest=float(share.max(initial=0.0)),
    )


def quantisation_error(
    vectors_ND: NDArray[np.float32], tokens_N: NDArray[np.uint16], vocabulary: Vocabulary
) -> list[float]:
    """For each level, the mean squared distance to the token's node there, divided by the vectors' variance.

    1 says that the level explains nothing, 0 that each vector has a centroid of its own. NaN for constant vectors.
    """
    variance = float(vectors_ND.var(axis=0, dtype=np.float64).sum())
    errors = []
    for level in range(1, vocabulary.depth + 1):
        residual = vectors_ND - vocabulary.centroids[level - 1][prefix(tokens_N, vocabulary, level)]
        error = float(np.square(residual, dtype=np.float64).sum(1).mean())
        errors.append(error / variance if variance else float("nan"))
    return errors
