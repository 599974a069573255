"""Every text with everything that is seen: the scores that a model with one stream, or with streams that look at each
other, ranks by. Each pair is a forward pass of its own; `vlprep.pretrain.dual` is the cheap way of the others.

Shape suffixes: Q texts, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vlprep.pretrain.base import Matcher, Sample, to_device
from vlprep.pretrain.packing import Example, pack


@torch.inference_mode()
def pair_scores(
    model: nn.Module,
    matcher: Matcher,
    texts: Sequence[Sample],
    seen: Sequence[Sample],
    device: torch.device,
    *,
    tokens: int = 8192,
    on_text: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float32]:
    """(Q, C) how much more a match than not. `tokens` is the budget of a forward pass."""
    scores_QC = np.empty((len(texts), len(seen)), np.float32)
    for row, text in enumerate(texts):
        found = [
            matcher.scores(model, to_device(pack(examples), device)).float().cpu().numpy()
            for examples in _batches([matcher.pair(text, candidate) for candidate in seen], tokens)
        ]
        scores_QC[row] = np.concatenate(found)
        on_text(row + 1)
    return scores_QC


def _batches(examples: Sequence[Example], tokens: int) -> Iterator[list[Example]]:
    batch: list[Example] = []
    held = 0
    for example in examples:
        if batch and held + example.length > tokens:
            yield batch
            batch, held = [], 0
        batch.append(example)
        held += example.length
    yield batch
