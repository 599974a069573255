"""Embedding texts and clips apart, batch by batch; every text with every clip is then one matrix product.

Shape suffixes: N texts or clips, D size of the joint space, Q texts, C clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlprep.pretrain.base import NarratedVideo, to_device
from vlprep.pretrain.dual import DualEncoder, DualObjective
from vlprep.pretrain.narration import Span

_AT_ONCE = 256


@torch.inference_mode()
def embed_texts(
    model: DualEncoder, objective: DualObjective, texts: Sequence[NDArray[np.int32]], device: torch.device
) -> NDArray[np.float32]:
    """(N, D) of ids without special tokens."""
    found = [
        model.embed_text(to_device(objective.collate_texts([objective.text(ids) for ids in batch]), device))
        for batch in _batches(texts)
    ]
    return torch.cat(found).float().cpu().numpy()


@torch.inference_mode()
def embed_clips(
    model: DualEncoder, objective: DualObjective, clips: Sequence[tuple[NarratedVideo, Span]], device: torch.device
) -> NDArray[np.float32]:
    """(N, D) of what is seen of these videos in these spans."""
    found = [
        model.embed_video(
            to_device(objective.collate_clips([objective.clip(video, span) for video, span in batch]), device)
        )
        for batch in _batches(clips)
    ]
    return torch.cat(found).float().cpu().numpy()


def _batches(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))
