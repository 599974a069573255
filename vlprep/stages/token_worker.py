"""The worker of `cluster-video`: features are read by memory map and become tokens, block after block.

Shape suffixes: N vectors of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vlprep.cluster.assign import Assigner, AssignRule
from vlprep.cluster.vocabulary import Vocabulary
from vlprep.engines.base import Beat, Job, PartDone
from vlprep.errors import ItemError
from vlprep.shards import Row, Store, StoreReader
from vlprep.stages.flow import Stopwatch
from vlprep.stages.sink import OneStore, Sink, do_part

_STORE = "tokens"
_BLOCK = 8192
"""Vectors assigned together, about; 32 MB of 1024 numbers each."""


class TokenWorker:
    """Loads the vocabulary once, then does part after part."""

    def __init__(
        self, *, device: str, threads: int, store: Store, source: Path, vocabulary: Path, rule: AssignRule
    ) -> None:
        """`source`: the video store with the features."""
        self._assigner = Assigner(Vocabulary.load(vocabulary), rule, device)
        self._reader = StoreReader(source)
        self._store = store

    def run(self, job: Job, beat: Beat) -> PartDone:
        """Do the videos of the part and commit it."""

        def work(items: Sequence[str], sink: Sink) -> None:
            for block in self._blocks(items, sink):
                self._assign(block, sink, beat, sink.watch)

        return do_part(OneStore(_STORE, self._store), job, beat, work)

    def _blocks(self, items: Sequence[str], sink: Sink) -> Iterator[list[Row]]:
        block: list[Row] = []
        vectors = 0
        for item, place in zip(items, self._reader.locate(items), strict=True):
            if place < 0:
                sink.fail(item, ItemError(f"{item}: its features are no longer in {self._reader.folder}"))
                continue
            row = self._reader[int(place)]
            block.append(row)
            vectors += len(row["features"])
            if vectors >= _BLOCK:
                yield block
                block, vectors = [], 0
        if block:
            yield block

    def _assign(self, block: Sequence[Row], sink: Sink, beat: Beat, watch: Stopwatch) -> None:
        for row in block:
            beat.begin(row["id"])
        with watch.time("assign"):
            tokens_N, _ = self._assigner(np.concatenate([row["features"] for row in block]))
        start = 0
        for row in block:
            end = start + len(row["features"])
            names = ("path", "source_id", "times")
            sink.add(row["id"], {_STORE: {**{name: row[name] for name in names}, "tokens": tokens_N[start:end]}})
            start = end
