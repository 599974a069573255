"""The same command twice gives the same bytes: seeds, and on a GPU kernels that add in one order only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def seed_everything(device: torch.device, seed: int) -> None:
    """As `torch.manual_seed`, which on a CPU alone keeps a call and its stack for each kind of accelerator that might
    be used later: 0.2 ms.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


@contextmanager
def same_bits(device: torch.device, *, wanted: bool) -> Iterator[None]:
    """CUDA's kernels for scattered sums (gradients of embeddings, above all) add in whatever order their threads come;
    torch has slower ones that do not, and warns of the few operations that have none. The CPU's need nothing.
    """
    if device.type != "cuda" or not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic  # whose attribute type checkers do not see
    fills = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # nothing here reads what it has not written
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = fills
