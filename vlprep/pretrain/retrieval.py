"""Retrieval as the field reports it: recall at 1, 5 and 10, and the median rank, with confidence intervals.

The rank of a query is one more than the number of wrong candidates that score at least as high as its best right one:
a model that gives all pairs one score is last, where counting only higher ones would make it perfect.

Shape suffixes: Q queries, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 1000
_CUTS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """One direction."""

    queries: int
    candidates: int
    recall: dict[int, Interval]
    """By cut; shares from 0 to 1."""
    median_rank: Interval
    chance: dict[int, float]
    """Recall of a model that ranks at random."""


def ranks(scores_QC: NDArray[np.floating], right_QC: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(Q,) rank of each query's best right candidate, from 1. Every query has a right one."""
    best_Q1 = np.where(right_QC, scores_QC, -np.inf).max(1, keepdims=True)
    # not `>=`: what is not a number counts as higher, too
    ranks_Q: NDArray[np.int64] = 1 + (~(scores_QC < best_Q1) & ~right_QC).sum(1)
    return ranks_Q


def measure(scores_QC: NDArray[np.floating], right_QC: NDArray[np.bool_]) -> Retrieval:
    """The figures of one direction; intervals by a seeded bootstrap over queries."""
    ranks_Q = ranks(scores_QC, right_QC)
    queries, candidates = scores_QC.shape
    draws = np.random.default_rng(0).integers(queries, size=(_RESAMPLES, queries))
    resampled = ranks_Q[draws]
    return Retrieval(
        queries=queries,
        candidates=candidates,
        recall={cut: _interval((ranks_Q <= cut).mean(), (resampled <= cut).mean(1)) for cut in _CUTS},
        median_rank=_interval(np.median(ranks_Q), np.median(resampled, axis=1)),
        chance={cut: _chance(right_QC.sum(1), candidates, cut) for cut in _CUTS},
    )


def _interval(value: np.floating, resampled: NDArray[np.floating]) -> Interval:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))


def _chance(right_Q: NDArray[np.int64], candidates: int, cut: int) -> float:
    """That none of the first `cut` of a random order is right: C(c - r, k) / C(c, k)."""
    missed_Q = np.ones(len(right_Q))
    for place in range(min(cut, candidates)):
        missed_Q *= np.clip(candidates - right_Q - place, 0, None) / (candidates - place)
    return float(1 - missed_Q.mean())
