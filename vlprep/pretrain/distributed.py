"""One process or several, as torchrun starts them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vlprep.errors import SettingsError

_PATIENCE = timedelta(hours=2)
"""How long processes wait for one that validates or writes a checkpoint; NCCL's own ten minutes end the run. A process
that is lost is noticed by torchrun, not by this.
"""


@dataclass(frozen=True, slots=True)
class World:
    """This process among all."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def add(self, value: Tensor) -> Tensor:
        """The sum over all processes; alone the value itself, wherever it lies, so that nothing waits for a device."""
        if self.size == 1:
            return value
        value = value.to(self.device)
        dist.all_reduce(value)
        return value

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()


def find_device(text: str, *, local: int = 0, processes: int = 1) -> torch.device:
    """What `auto`, `cpu`, `cuda` or `cuda:N` means for the process of this number on its machine.

    `auto` is a GPU where there is one; of several processes each takes its own. Raises `SettingsError` for anything
    else, and for a GPU that is not there.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise SettingsError(f"--device {text}: write auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "cpu" or (text == "auto" and not count):
        return torch.device("cpu")
    if not count:
        raise SettingsError(f"--device {text}: torch finds no CUDA device here; check nvidia-smi, or use --device cpu")
    if ":" in text and processes > 1:
        raise SettingsError(f"--device {text}: of several processes each takes its own GPU, by --device cuda")
    number = int(text.partition(":")[2] or local)
    if number >= count:
        raise SettingsError(f"--device {text}: there is no cuda:{number}; torch sees {count}, counted from 0")
    return torch.device("cuda", number)


@contextmanager
def join_world(device: str = "auto") -> Iterator[World]:
    """Join the processes of a torchrun (gloo on CPUs, NCCL on GPUs), or be alone; leave at the end."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = find_device(device, local=int(os.environ.get("LOCAL_RANK", "0")), processes=size)
    on_gpu = chosen.type == "cuda"
    if on_gpu:
        # read when cuBLAS starts; without it its products need not be the same twice
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.cuda.set_device(chosen)
    if size == 1:
        yield World(0, 1, chosen)
        return
    # with its device told, a process need not guess one for NCCL's first barrier
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE, device_id=chosen if on_gpu else None)
    try:
        yield World(dist.get_rank(), size, chosen)
    finally:
        dist.destroy_process_group()


def gathered(rows_NX: Tensor) -> tuple[Tensor, slice]:
    """The rows of all processes in the order of their ranks, and which of them are this process's own.

    Differentiable: each process makes its own share of a loss from them, and the gradient of the sum of all shares
    reaches the rows' owners, which is what `Trainer` adds up. (MIL-NCE's AllGather, utils.py:8-24, hands back the own
    share's gradient only, and DistributedDataParallel then averages: 1 / world of the true one.) All processes must
    call this alike; they may have different numbers of rows. Alone, the rows themselves.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows_NX, slice(0, len(rows_NX))
    count = torch.tensor([len(rows_NX)], device=rows_NX.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    sizes = torch.cat(counts).tolist()
    begin = sum(sizes[: dist.get_rank()])
    all_rows: Tensor = _Gather.apply(rows_NX, sizes, begin)
    return all_rows, slice(begin, begin + len(rows_NX))


class _Gather(torch.autograd.Function):
    """Forward: rows of all. Backward: the sum over processes of what each has for the own rows."""

    @staticmethod
    def forward(ctx: Any, rows_NX: Tensor, sizes: list[int], begin: int) -> Tensor:
        ctx.own = slice(begin, begin + len(rows_NX))
        padded = rows_NX.new_zeros(max(sizes), *rows_NX.shape[1:])
        padded[: len(rows_NX)] = rows_NX
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed[ctx.own], None, None
