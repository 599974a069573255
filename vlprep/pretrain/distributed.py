"""One process or several, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


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
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()


@contextmanager
def join_world(device: str = "auto") -> Iterator[World]:
    """Join the processes of a torchrun (gloo on CPUs, NCCL on GPUs), or be alone; leave at the end."""
    on_gpu = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = torch.device("cuda", local) if on_gpu and ":" not in device else torch.device(device if on_gpu else "cpu")
    if on_gpu:
        torch.cuda.set_device(chosen)
    if size == 1:
        yield World(0, 1, chosen)
        return
    dist.init_process_group("nccl" if on_gpu else "gloo")
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
