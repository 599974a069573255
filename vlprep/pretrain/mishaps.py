"""What ends a run from outside, in words: memory that is full, a loader that was killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vlprep.errors import VlprepError


@contextmanager
def in_words() -> Iterator[None]:
    """Raises `VlprepError` in place of what torch says of these two; other errors pass."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise VlprepError(_full(error)) from error
    except RuntimeError as error:
        if is_lost_loader(error):
            raise VlprepError(
                f"a process that makes batches was lost ({str(error).strip()}), for want of memory as a rule: fewer of"
                " them (--set train.loaders=1) or smaller batches take less; the same command goes on from the last"
                " checkpoint"
            ) from error
        if "can't allocate memory" in str(error):  # the CPU's
            raise VlprepError(_full(error)) from error
        raise


def is_lost_loader(error: BaseException) -> bool:
    """torch watches its loaders by a signal: their end may show anywhere, with this as its only mark."""
    return isinstance(error, RuntimeError) and "DataLoader worker" in str(error)


def _full(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or ["no more is said"])[0]
    return (
        f"memory is full ({first}): take smaller batches (--tokens-per-batch, or --set batches.samples), and as much"
        " more --accumulate where the loss does not compare the samples of a batch; begin with --resume never, since a"
        " run keeps its batches"
    )
