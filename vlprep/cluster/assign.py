"""From vectors to tokens, by one of three rules.

- `tree`: walk down, nearest child at each level; depth * k distances a vector. Greedy, as k-means was trained.
- `beam:W`: the same with the W best nodes kept at each level; the nearest of the leaves reached. `tree` is `beam:1`.
- `flat`: the nearest of all leaves (what ammesatyajit/VideoBERT's label_data.py does); k ** depth distances a vector.

Tree and flat disagree on about a quarter of the vectors, so a store records its rule. Level by level, the vectors at
one node are multiplied with its children's centroids together, gathered in blocks of rows that stay in the cache.

Shape suffixes: N vectors, D feature size, W beam width, K branching, P pairs of a vector and a node (N * W).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlprep.cluster.vocabulary import Array, Vocabulary
from vlprep.errors import SettingsError

ROWS_AT_ONCE = 512
"""Rows gathered for one product: 2 MB at D = 1024, about a core's second-level cache."""


@dataclass(frozen=True, slots=True)
class AssignRule:
    """`beam` nodes kept a level; 0 means flat."""

    beam: int = 1

    def __str__(self) -> str:
        return {0: "flat", 1: "tree"}.get(self.beam, f"beam:{self.beam}")

    @classmethod
    def parse(cls, text: str) -> AssignRule:
        """`tree`, `flat` or `beam:W`."""
        if match := re.fullmatch(r"beam:([1-9]\d*)", text):
            return cls(int(match[1]))
        if text not in ("tree", "flat"):
            raise SettingsError(f"--assign {text}: expected tree, flat or beam:W (as beam:8)")
        return cls(0 if text == "flat" else 1)


class Assigner:
    """A vocabulary on a device, ready to turn blocks of vectors into tokens."""

    def __init__(self, vocabulary: Vocabulary, rule: AssignRule, device: str = "cpu") -> None:
        self.rule = rule
        self.branching = vocabulary.branching
        self.device = torch.device(device)
        self.levels = [_Level.of(vocabulary, level, self.device) for level in range(1, vocabulary.depth + 1)]
        self.flat = _FlatLeaves(vocabulary) if rule.beam == 0 else None

    def __call__(self, vectors_ND: Array) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        """Tokens (N,) and squared distances (N,) to their leaves."""
        if self.flat is not None:
            return self.flat(vectors_ND.astype(np.float32))
        vectors = torch.from_numpy(vectors_ND).to(self.device)
        tokens_N, distances_N = self._walk(vectors)
        # distances were taken without |x|^2, which no comparison needs
        norms_N = torch.cat([rows.float().square().sum(1) for rows in torch.split(vectors, ROWS_AT_ONCE)])
        distances_N = (distances_N + norms_N).clamp(min=0)
        return tokens_N.cpu().numpy().astype(np.uint16), distances_N.cpu().numpy()

    def _walk(self, vectors_ND: Tensor) -> tuple[Tensor, Tensor]:
        nodes_NW = torch.zeros(len(vectors_ND), 1, dtype=torch.int64, device=self.device)
        best_NW = torch.zeros(len(vectors_ND), 1, device=self.device)
        for number, level in enumerate(self.levels, start=1):
            scores_NC = self._score_children(vectors_ND, nodes_NW, level).flatten(1)
            last = number == len(self.levels)
            width = 1 if last else min(self.rule.beam, scores_NC.shape[1])
            best_NW, picked_NW = scores_NC.topk(width, dim=1, largest=False)
            parents_NW = nodes_NW.gather(1, picked_NW // self.branching)
            nodes_NW = parents_NW * self.branching + picked_NW % self.branching
            # a candidate without a node (the beam is wider than the tree) points at a real one, at infinite distance
            nodes_NW = torch.where(best_NW.isinf(), nodes_NW[:, :1], nodes_NW)
        return nodes_NW[:, 0], best_NW[:, 0]

    def _score_children(self, vectors_ND: Tensor, nodes_NW: Tensor, level: _Level) -> Tensor:
        """(N, W, K) squared distances, less |x|^2, to the children of the nodes that each vector is at."""
        nodes_P = nodes_NW.flatten()
        order_P = nodes_P.argsort(stable=True)
        vector_P = order_P // nodes_NW.shape[1]
        scores_PK = torch.empty(len(nodes_P), self.branching, device=self.device)
        nodes, sizes = torch.unique_consecutive(nodes_P[order_P], return_counts=True)
        start = 0
        for node, size in zip(nodes.tolist(), sizes.tolist(), strict=True):
            for begin in range(start, start + size, ROWS_AT_ONCE):
                end = min(begin + ROWS_AT_ONCE, start + size)
                rows_RD = vectors_ND.index_select(0, vector_P[begin:end]).float()
                torch.addmm(
                    level.offset_NK[node], rows_RD, level.centroids_NDK[node], alpha=-2, out=scores_PK[begin:end]
                )
            start += size
        unsorted = torch.empty_like(scores_PK)
        unsorted[order_P] = scores_PK
        scores_NWK = unsorted.view(*nodes_NW.shape, self.branching)
        # the same node twice in a beam (see _walk) must not be chosen twice
        repeated_NW = (nodes_NW[:, :, None] == nodes_NW[:, None, :]).tril(-1).any(2)
        return scores_NWK.masked_fill(repeated_NW[:, :, None], torch.inf)


@dataclass(frozen=True, slots=True)
class _Level:
    """The children of every node of the level above, ready to be multiplied."""

    centroids_NDK: Tensor
    offset_NK: Tensor
    """|c|^2, infinite for absent children."""

    @classmethod
    def of(cls, vocabulary: Vocabulary, level: int, device: torch.device) -> _Level:
        centroids = torch.from_numpy(vocabulary.centroids[level - 1]).to(device)
        offset = centroids.square().sum(1)
        offset[~torch.from_numpy(vocabulary.present(level)).to(device)] = torch.inf
        centroids_NKD = centroids.view(-1, vocabulary.branching, vocabulary.dim)
        return cls(centroids_NKD.transpose(1, 2), offset.view(-1, vocabulary.branching))


class _FlatLeaves:
    """FAISS's exhaustive search over the leaves that exist."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.codes_L = np.flatnonzero(vocabulary.present(vocabulary.depth))
        index: faiss.Index = faiss.IndexFlatL2(vocabulary.dim)
        if faiss.get_num_gpus() > 0:
            index = faiss.index_cpu_to_all_gpus(index)
        index.add(vocabulary.centroids[-1][self.codes_L])
        self.index = index

    def __call__(self, vectors_ND: NDArray[np.float32]) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        distances, leaves = self.index.search(vectors_ND, 1)
        return self.codes_L[leaves[:, 0]].astype(np.uint16), np.maximum(distances[:, 0], 0)
