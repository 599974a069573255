"""The vectors of a video store, as many as there are on disk: counted, sampled and walked through without holding them.

Vectors are numbered in the order of the store's rows and, in a row, of its clips. Lengths come from the commit marks,
so only the pages of the vectors that are asked for are read.

Shape suffixes: N vectors, D feature size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlprep.cluster.vocabulary import Array
from vlprep.errors import SettingsError
from vlprep.shards import StoreReader

_DRAWN_AT_ONCE = 1 << 16
"""Vectors that one step of the drawing looks at; its memory, whatever the size of the store."""


class VectorSource:
    """The feature vectors of a store of kind `video`. Raises `SettingsError` for any other."""

    def __init__(self, store: Path) -> None:
        self.reader = StoreReader(store)
        if self.reader.manifest.kind != "video":
            raise SettingsError(
                f"{store}: a store of kind {self.reader.manifest.kind}; clusters are made of video stores"
            )
        self._ends = np.cumsum(self.reader.lengths())

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def dim(self) -> int | None:
        """D; None for a store without vectors."""
        return int(self.reader[0]["features"].shape[1]) if len(self) else None

    def sample(self, count: int, seed: int) -> Array:
        """(N, D) vectors in the store's precision and order, drawn without replacement; all, if there are no more.

        The same store, `count` and `seed` give the same vectors. Memory is the sample itself.
        """
        numbers = draw(len(self), count, seed)
        if not len(numbers):
            raise SettingsError(f"{self.reader.folder} has no vectors: extract features first")
        rows = np.searchsorted(self._ends, numbers, side="right")
        present, starts = np.unique(rows, return_index=True)
        clips = numbers - (self._ends - self.reader.lengths())[rows]
        first = self.reader[int(present[0])]["features"]
        sample_ND: Array = np.empty((len(numbers), first.shape[1]), first.dtype)
        for row, start, end in zip(present, starts, [*starts[1:], len(numbers)], strict=True):
            sample_ND[start:end] = self.reader[int(row)]["features"][clips[start:end]]
        return sample_ND


def draw(population: int, count: int, seed: int) -> NDArray[np.int64]:
    """`count` of the numbers below `population`, ascending, each set of them equally likely; all, if there are no more.

    Block after block: how many fall into it is hypergeometric, which ones is uniform. (NumPy's own `choice` makes a
    list of the whole population.)
    """
    if count >= population:
        return np.arange(population)
    rng = np.random.default_rng(seed)
    return np.concatenate(list(_drawn_by_block(population, count, rng)) or [np.arange(0)])


def _drawn_by_block(population: int, count: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    for start in range(0, population, _DRAWN_AT_ONCE):
        block = min(_DRAWN_AT_ONCE, population - start)
        rest = population - start - block
        here = int(rng.hypergeometric(block, rest, count)) if count else 0
        yield start + np.sort(rng.choice(block, here, replace=False))
        count -= here
