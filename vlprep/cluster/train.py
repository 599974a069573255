"""Hierarchical k-means: FAISS's k-means at every node, on the vectors that its parent sent there.

Nodes are trained level by level. The sample stays where it is, in its own precision (float16 as stored is fine); each
node gathers the rows it needs into one reused float32 buffer, so memory beyond the sample is that buffer and the
centroids. FAISS iterates until nothing changes, `iterations` times at most.

Rules for thin nodes, so that a vocabulary is always usable: a node with n < k vectors gets n children, one a vector.
Codes of absent children stay unused (see `vocabulary`). FAISS itself splits a cluster that empties during training.

Shape suffixes: N sample vectors, D feature size, K children of a node.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlprep.cluster.assign import ROWS_AT_ONCE
from vlprep.cluster.vocabulary import Array, Vocabulary, sensible_shape
from vlprep.errors import SettingsError

log = logging.getLogger("vlprep.cluster")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How a vocabulary is trained."""

    branching: int = 12
    depth: int = 4
    iterations: int = 20
    seed: int = 0
    points_per_centroid: int = 256
    """A node trains on at most this many vectors a child, drawn from those that reached it; all are passed down. 256 is
    FAISS's own choice; with 4096 the error is the same to three digits, and the upper levels take ten times as long."""

    def __post_init__(self) -> None:
        if self.branching < 2 or self.depth < 1 or self.iterations < 1 or self.points_per_centroid < 1:
            raise SettingsError(f"--branching must be 2 or more, --depth, --iterations 1 or more; given {asdict(self)}")
        if self.branching**self.depth > 65536:
            raise SettingsError(
                f"--branching {self.branching} --depth {self.depth} makes {self.branching**self.depth} tokens; "
                "tokens are 16-bit, so at most 65 536: lower one of them"
            )


def train(
    sample_ND: Array, settings: TrainSettings, on_node: Callable[[int, int], None] = lambda level, node: None
) -> Vocabulary:
    """Train the tree on `sample_ND` (N, D) float16 or float32. `on_node(level, node)` is called after each node.

    The k-means of node p at level l equals `faiss.Kmeans(D, K, niter=iterations, seed=node_seed(...))` trained on
    `node_rows(...)` in that order.
    """
    check_size(len(sample_ND), settings)
    branching, dim = settings.branching, sample_ND.shape[1]
    buffer_RD = np.empty((min(len(sample_ND), branching * settings.points_per_centroid), dim), np.float32)
    centroids, children, counts = [], [], []
    sample = torch.from_numpy(sample_ND)  # whose conversions from half precision are several times NumPy's
    groups = [np.arange(len(sample_ND))]  # the rows of the sample at each node of the level, ascending
    for level in range(settings.depth):
        centroids_LD = np.zeros((branching ** (level + 1), dim), np.float32)
        children_L = np.zeros(branching**level, np.int64)
        below: list[NDArray[np.int64]] = []
        for node, rows_N in enumerate(groups):
            if len(rows_N):
                chosen = node_rows(rows_N, level, node, settings)
                centroids_KD = _kmeans(_gather(sample, chosen, buffer_RD), level, node, settings)
                children_L[node] = len(centroids_KD)
                centroids_LD[node * branching : node * branching + len(centroids_KD)] = centroids_KD
                below += _split(sample, rows_N, centroids_KD, branching)
            else:
                below += [rows_N] * branching
            on_node(level, node)
        groups = below
        centroids.append(centroids_LD)
        children.append(children_L)
        counts.append(np.array([len(rows_N) for rows_N in groups], np.int64))
    return Vocabulary(
        branching=branching,
        depth=settings.depth,
        centroids=tuple(centroids),
        children=tuple(children),
        counts=tuple(counts),
        settings={**asdict(settings), "sample": len(sample_ND), "faiss": faiss.__version__},
    )


def check_size(vectors: int, settings: TrainSettings) -> None:
    """Refuse an empty sample; warn where the vocabulary is too large for it, and say what would fit."""
    if not vectors:
        raise SettingsError("there is no feature vector to train a vocabulary on: extract features first")
    branching, depth = sensible_shape(vectors, settings.branching, settings.depth)
    if (branching, depth) == (settings.branching, settings.depth):
        return
    advice = f"with this much data, --branching {branching} --depth {depth} ({branching**depth} tokens) makes sense"
    log.warning(
        "%d vectors for %d clusters: most clusters would hold one vector or none; %s",
        vectors,
        settings.branching**settings.depth,
        advice if branching > 1 else "no vocabulary can be made of so few, and these tokens are good for trying only",
    )


def node_seed(level: int, node: int, seed: int) -> int:
    """The seed of one node's k-means: independent of the order in which nodes are trained."""
    return int(np.random.SeedSequence([seed, level, node]).generate_state(1)[0] % 2**31)


def node_rows(rows_N: NDArray[np.int64], level: int, node: int, settings: TrainSettings) -> NDArray[np.int64]:
    """Which of a node's rows its k-means sees, ascending: all, or a seeded draw when there are more than it needs."""
    most = settings.branching * settings.points_per_centroid
    if len(rows_N) <= most:
        return rows_N
    drawn = np.random.default_rng(node_seed(level, node, settings.seed)).choice(len(rows_N), most, replace=False)
    return rows_N[np.sort(drawn)]


def _gather(sample: Tensor, rows_N: NDArray[np.int64], buffer_RD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Copy rows into the buffer, block by block so that the half-precision detour stays in the cache."""
    gathered = torch.from_numpy(buffer_RD[: len(rows_N)])
    for start in range(0, len(rows_N), ROWS_AT_ONCE):
        rows = torch.from_numpy(rows_N[start : start + ROWS_AT_ONCE])
        gathered[start : start + ROWS_AT_ONCE] = sample.index_select(0, rows)
    return buffer_RD[: len(rows_N)]


def _kmeans(points_ND: NDArray[np.float32], level: int, node: int, settings: TrainSettings) -> NDArray[np.float32]:
    if len(points_ND) <= settings.branching:
        return points_ND.copy()
    kmeans = faiss.Kmeans(
        points_ND.shape[1],
        settings.branching,
        niter=settings.iterations,
        seed=node_seed(level, node, settings.seed),
        min_points_per_centroid=1,  # thin nodes are dealt with above, not warned about
        max_points_per_centroid=settings.points_per_centroid,
        gpu=faiss.get_num_gpus() > 0,
    )
    kmeans.train(points_ND)
    return np.asarray(kmeans.centroids, np.float32)


def _split(
    sample: Tensor, rows_N: NDArray[np.int64], centroids_KD: NDArray[np.float32], branching: int
) -> list[NDArray[np.int64]]:
    """Send each row to its nearest child: `branching` groups of rows, ascending within each."""
    centroids_DK = torch.from_numpy(centroids_KD).T
    offset_K = centroids_DK.square().sum(0)
    choice_N = np.empty(len(rows_N), np.int64)
    for start in range(0, len(rows_N), ROWS_AT_ONCE):
        rows = torch.from_numpy(rows_N[start : start + ROWS_AT_ONCE])
        scores_RK = torch.addmm(offset_K, sample.index_select(0, rows).float(), centroids_DK, alpha=-2)
        choice_N[start : start + ROWS_AT_ONCE] = scores_RK.argmin(1).numpy()
    return [rows_N[choice_N == child] for child in range(branching)]
