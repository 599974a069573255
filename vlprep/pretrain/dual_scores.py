"""Embedding texts and clips apart, batch by batch; every text with every clip is then one matrix product.

Shape suffixes: N texts or clips, D size of the joint space, Q texts, C clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlprep.errors import ItemError, VlprepError
from vlprep.networks.exact import exact
from vlprep.pretrain.base import NarratedVideo, to_device
from vlprep.pretrain.dual import DualEncoder, DualObjective
from vlprep.pretrain.narration import Span

_AT_ONCE = 256
_DECODED_AT_ONCE = 8
"""Segments that go through a video network together: of MIL-NCE's four windows, 2 GB in its first convolution."""


@torch.inference_mode()
def embed_texts(
    model: DualEncoder, objective: DualObjective, texts: Sequence[NDArray[np.int32]], device: torch.device
) -> NDArray[np.float32]:
    """(N, D) of ids without special tokens."""
    found = [
        model.embed_text(to_device(objective.collate_texts([objective.text(ids) for ids in batch]), device))
        for batch in _batched(texts, _AT_ONCE)
    ]
    return torch.cat(found).float().cpu().numpy()


@exact()
def embed_clips(
    model: DualEncoder, objective: DualObjective, clips: Sequence[tuple[NarratedVideo, Span]], device: torch.device
) -> tuple[NDArray[np.float32], Mapping[int, ItemError]]:
    """(N, D) of what is seen of these videos in these spans; without those, told by their places, whose files turned
    out to be of no use.
    """
    left_out: dict[int, ItemError] = {}

    def examples() -> Iterator[Any]:
        for place, (video, span) in enumerate(clips):
            try:
                yield objective.clip(video, span)
            except ItemError as error:
                left_out[place] = error

    size = _DECODED_AT_ONCE if "frames" in objective.needs() else _AT_ONCE
    found = [
        model.embed_video(to_device(objective.collate_clips(batch), device)) for batch in _batched(examples(), size)
    ]
    if not found:
        raise VlprepError(f"not one of {len(clips)} clips is of use; the last: {left_out[len(clips) - 1]}")
    return torch.cat(found).float().cpu().numpy(), left_out


def _batched(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """As itertools has it from Python 3.12."""
    rest = iter(values)
    while batch := list(islice(rest, size)):
        yield batch
