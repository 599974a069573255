"""Full memory is told in words, and nothing else is touched."""

from __future__ import annotations

import pytest
import torch

from vlprep.errors import VlprepError
from vlprep.pretrain.mishaps import in_words


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore about it"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        MemoryError(),
    ],
)
def test_full_memory(error: Exception) -> None:
    with pytest.raises(VlprepError, match=r"^memory is full .*--tokens-per-batch"), in_words():
        raise error


def test_the_cpu_says_so_itself() -> None:
    with pytest.raises(VlprepError, match="memory is full"), in_words():
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), in_words():
        raise RuntimeError("shapes differ")
