"""A micro-batch arrives as it was sent."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretrain.stores import learnable_images
from pretrain.test_trainer import make_trainer
from torch import Tensor

from vlprep.pretrain.parcel import Parcel


@dataclass(frozen=True, slots=True)
class Tensors:
    a: Tensor
    nested: tuple[Any, ...]
    name: str


def test_tensors_of_every_kind_arrive() -> None:
    sent = Tensors(
        torch.arange(6).view(2, 3).T,  # not contiguous
        (
            torch.arange(1).expand(1),
            torch.tensor(2.5),
            torch.zeros(0, 4),
            torch.tensor([True, False]),
            None,
            torch.ones(3, dtype=torch.float16),
        ),
        "mlm",
    )
    found = pickle.loads(pickle.dumps(Parcel(sent))).open()  # type: ignore[arg-type]
    assert found.name == "mlm"
    assert found.nested[4] is None
    for ours, theirs in zip((found.a, *found.nested), (sent.a, *sent.nested), strict=True):
        if theirs is not None:
            assert ours.dtype == theirs.dtype
            assert ours.shape == theirs.shape
            assert torch.equal(ours, theirs)


def test_a_large_block_goes_by_shared_memory() -> None:
    small, large = (Parcel(Tensors(torch.arange(count), (), "mlm")) for count in (10, 200_000))  # type: ignore[arg-type]
    assert isinstance(small.__getstate__()[1], np.ndarray)
    assert isinstance(large.__getstate__()[1], Tensor)
    for parcel in (small, large):
        assert torch.equal(pickle.loads(pickle.dumps(parcel)).open().a, parcel.open().a)  # type: ignore[attr-defined]


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_a_micro_batch_is_one_block(tmp_path: Path, step: int) -> None:
    batch = make_trainer(learnable_images(tmp_path), tmp_path).batches[step, 0]
    found = Parcel(batch).open()
    assert found.objective == batch.objective
    assert found.counts == batch.counts
    text, theirs = found.inputs.text, batch.inputs.text
    assert text is not None
    assert theirs is not None
    assert torch.equal(text.ids_P, theirs.ids_P)
    assert text.ids_P.untyped_storage().data_ptr() == found.inputs.lengths_B.untyped_storage().data_ptr()
