"""How features and embeddings are computed, whatever the device: without gradients, the same numbers in every run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact() -> Iterator[None]:
    """No gradients, no TF32 (cuDNN's default in float32, and 1e-3 off what that promises), and cuDNN's deterministic
    algorithms, chosen without trying which is fastest.
    """
    # `enabled` is said because `flags` turns cuDNN off where it is left out
    cudnn = torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False, allow_tf32=False)
    with torch.inference_mode(), cudnn:
        yield
