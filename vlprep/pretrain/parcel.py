"""A micro-batch on its way from a loader process, as one block of memory.

torch hands each tensor over by a file descriptor and a connection of its own: some twenty a batch, which cost the
process that trains nearly as much time as making the batch costs the loader.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlprep.pretrain.base import MicroBatch

_THROUGH_PIPE = 1 << 20
"""Bytes of a block that is copied through the loader's pipe. To map shared memory takes as long as to copy a
megabyte.
"""
_ALIGNED = 64
"""Tensors begin at multiples of this many bytes."""


class Parcel:
    """Made of a micro-batch by `Parcel(batch)`; `open` gives it back, its tensors views of the block."""

    def __init__(self, batch: MicroBatch) -> None:
        sink = io.BytesIO()
        packer = _Packer(sink)
        packer.dump(batch)
        self._pickled = sink.getvalue()
        self._block = torch.empty(packer.num_bytes, dtype=torch.uint8)
        for begin, tensor in packer.tensors:
            _place(self._block, begin, tensor.nbytes, tensor.dtype, tensor.shape).copy_(tensor)

    def __getstate__(self) -> tuple[bytes, NDArray[np.uint8] | Tensor]:
        return self._pickled, self._block.numpy() if self._block.nbytes <= _THROUGH_PIPE else self._block

    def __setstate__(self, state: tuple[bytes, NDArray[np.uint8] | Tensor]) -> None:
        self._pickled, block = state
        self._block = torch.as_tensor(block)

    def open(self) -> MicroBatch:
        batch: MicroBatch = _Unpacker(self._pickled, self._block).load()
        return batch

    def pin_memory(self) -> Parcel:
        """For `DataLoader`."""
        self._block = self._block.pin_memory()
        return self


class _Packer(pickle.Pickler):
    def __init__(self, sink: io.BytesIO) -> None:
        super().__init__(sink, pickle.HIGHEST_PROTOCOL)
        self.tensors: list[tuple[int, Tensor]] = []
        self.num_bytes = 0

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return None
        begin = self.num_bytes
        self.tensors.append((begin, value))
        self.num_bytes += -(-value.nbytes // _ALIGNED) * _ALIGNED
        return begin, value.nbytes, value.dtype, tuple(value.shape)


class _Unpacker(pickle.Unpickler):
    """Of this process's own children's bytes only."""

    def __init__(self, pickled: bytes, block: Tensor) -> None:
        super().__init__(io.BytesIO(pickled))
        self._block = block

    def persistent_load(self, place: Any) -> Tensor:
        begin, num_bytes, dtype, shape = place
        return _place(self._block, begin, num_bytes, dtype, shape)


def _place(block: Tensor, begin: int, num_bytes: int, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    return block[begin : begin + num_bytes].view(dtype).view(shape)
