"""What corpora of whole narrated videos share, wherever what is seen of them comes from: their narration.

Shape suffixes: S samples, N segments.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlprep.pretrain.masking import Ints
from vlprep.shards import StoreReader


class WholeVideos:
    """A sample is a video with all that is said in it, in order of time."""

    def __init__(self, text: StoreReader, rows: Ints, spans_2: NDArray[np.float32], starts: Ints) -> None:
        """`rows` of the text store and their times, video after video; `starts`, one more than videos, say from where.

        Rows may be fewer than the store has.
        """
        self.text = text
        self._texts, self._spans_2, self._starts = rows, spans_2, starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def lengths(self) -> Ints:
        """(S,) ones: videos are counted, not their tokens, of which each objective draws what it wants."""
        return np.ones(len(self), np.int64)

    def num_seen(self) -> Ints:
        return np.zeros(len(self), np.int64)

    def has_text(self) -> NDArray[np.bool_]:
        return np.ones(len(self), bool)

    def text_rows(self, number: int) -> Ints:
        """(N,) rows of the text store with the segments of a sample."""
        rows: Ints = self._texts[self._segments(number)]
        return rows

    def spans(self, number: int) -> NDArray[np.float32]:
        """(N, 2) seconds."""
        return self._spans_2[self._segments(number)]

    def texts(self, number: int) -> tuple[NDArray[np.int32], ...]:
        """The ids of each segment's text."""
        return tuple(self.text[row]["token_ids"] for row in self.text_rows(number).tolist())

    def _segments(self, number: int) -> slice:
        return slice(int(self._starts[number]), int(self._starts[number + 1]))
