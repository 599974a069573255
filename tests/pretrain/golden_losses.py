"""Losses of the published code, on stored tensors."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch


def published(golden: Path, name: str) -> SimpleNamespace:
    folder = golden / "pretraining"
    case = json.loads((folder / "losses.json").read_text())["cases"][name]
    arrays = np.load(folder / "losses.npz")

    def pick(kind: str) -> dict[str, torch.Tensor]:
        return {key: torch.from_numpy(arrays[entry["array"]]) for key, entry in case[kind].items()}

    return SimpleNamespace(
        settings=case["settings"], expected=case["expected"], given=pick("inputs"), out=pick("expected_arrays")
    )


def check(losses: torch.Tensor, case: SimpleNamespace, **inputs: torch.Tensor) -> None:
    """The mean of these losses and its gradients are the case's."""
    loss = losses.mean()
    assert loss.item() == pytest.approx(case.expected["loss"], rel=1e-5, abs=1e-6)
    loss.backward()
    for name, tensor in inputs.items():
        np.testing.assert_allclose(tensor.grad, case.out[f"grad_{name}"], rtol=1e-5, atol=2e-6, err_msg=name)
