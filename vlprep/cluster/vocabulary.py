"""The visual vocabulary: a tree of centroids whose leaves are tokens.

VideoBERT (§4.2) uses branching 12 and depth 4: 20 736 leaves. A token is its path in mixed radix,
`((p1 * k + p2) * k + p3) * k + p4`, so `token // k` is the token one level up and the 12-, 144- and
1728-way vocabularies come for free. Codes never shift: a node with fewer than k children leaves the codes of the absent
ones unused.

Shape suffixes: L nodes of a level (k ** level), D feature size, N vectors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vlprep.errors import SettingsError
from vlprep.shards.atomic import write_file
from vlprep.shards.manifest import VOCABULARY_NAME as VOCABULARY_NAME

Array = NDArray[np.float16] | NDArray[np.float32]

FORMAT = "vlprep-vocabulary-1"
_FEWEST_A_LEAF = 39
"""Vectors below which FAISS warns (Clustering.h, min_points_per_centroid)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Centroids of every level, how many children each node has, and how many training vectors reached each node."""

    branching: int
    depth: int
    centroids: tuple[NDArray[np.float32], ...]
    """Level 1 to `depth`: (k ** level, D). Rows of absent nodes are zero and are never chosen."""
    children: tuple[NDArray[np.int64], ...]
    """Level 0 to `depth - 1`: (k ** level,). The children of node p are p * k + 0 ... p * k + children[p] - 1."""
    counts: tuple[NDArray[np.int64], ...]
    """Level 1 to `depth`: (k ** level,) training vectors that went through each node."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained, JSON-ready."""

    @property
    def dim(self) -> int:
        return int(self.centroids[0].shape[1])

    @property
    def size(self) -> int:
        """Number of codes, absent leaves included."""
        return int(self.branching**self.depth)

    def present(self, level: int) -> NDArray[np.bool_]:
        """(k ** level,) which nodes of this level (1 to `depth`) exist."""
        return (np.arange(self.branching)[None, :] < self.children[level - 1][:, None]).ravel()

    def to_bytes(self) -> bytes:
        """The content of its safetensors file; the same vocabulary gives the same bytes."""
        arrays: dict[str, NDArray[Any]] = {}
        for level in range(1, self.depth + 1):
            arrays[f"centroids.{level}"] = self.centroids[level - 1]
            arrays[f"children.{level - 1}"] = self.children[level - 1]
            arrays[f"counts.{level}"] = self.counts[level - 1]
        header = {"branching": self.branching, "depth": self.depth, "settings": dict(self.settings)}
        # One entry only: safetensors writes several in random order.
        return save(arrays, {FORMAT: json.dumps(header, sort_keys=True)})

    def save(self, path: Path) -> None:
        """Write its file, whole or not at all."""
        write_file(path, self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote. `SettingsError` where the file is missing, damaged or something else."""
        if not path.is_file():
            raise SettingsError(f"{path}: no such vocabulary file; `vlprep cluster-video DATASET` makes one")
        try:
            with safe_open(path, "numpy") as file:
                metadata = file.metadata() or {}
                if FORMAT not in metadata:
                    raise SettingsError(f"{path}: a safetensors file, but not a vocabulary written by vlprep")
                header = json.loads(metadata[FORMAT])
                levels = range(1, header["depth"] + 1)
                return cls(
                    branching=header["branching"],
                    depth=header["depth"],
                    centroids=tuple(file.get_tensor(f"centroids.{level}") for level in levels),
                    children=tuple(file.get_tensor(f"children.{level - 1}") for level in levels),
                    counts=tuple(file.get_tensor(f"counts.{level}") for level in levels),
                    settings=header["settings"],
                )
        except (SafetensorError, json.JSONDecodeError, KeyError) as error:
            raise SettingsError(f"{path}: not a vocabulary file, or a damaged one ({error})") from error


def prefix(tokens: NDArray[np.integer[Any]], vocabulary: Vocabulary, level: int) -> NDArray[np.int64]:
    """The tokens' ancestors at `level`: 1 gives the 12-way token, `depth` the token itself."""
    ancestors: NDArray[np.int64] = tokens.astype(np.int64) // vocabulary.branching ** (vocabulary.depth - level)
    return ancestors


def path_of(token: int, vocabulary: Vocabulary) -> tuple[int, ...]:
    """The choice made at each level, root first."""
    return tuple(
        token // vocabulary.branching ** (vocabulary.depth - level) % vocabulary.branching
        for level in range(1, vocabulary.depth + 1)
    )


def sensible_shape(vectors: int, branching: int, depth: int) -> tuple[int, int]:
    """The branching and the greatest depth, up to those given, that leave about `_FEWEST_A_LEAF` vectors to a leaf.

    Branching gives way last, to 1 where there is no shape at all.
    """
    leaves = vectors // _FEWEST_A_LEAF
    deepest = max((d for d in range(1, depth + 1) if branching**d <= leaves), default=0)
    return (branching, deepest) if deepest else (max(1, leaves), 1)
