"""Reference outputs of the four encoders: checkpoints as published, inputs, and what they must give."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips.golden_case import GoldenFolder, load_golden_weights
from torch import Tensor


@pytest.fixture(scope="session")
def golden_folder(golden: Path) -> Callable[[str], GoldenFolder]:
    """`../shared/golden/video/<encoder>`."""

    def open_folder(name: str) -> GoldenFolder:
        folder = golden / "video" / name
        return GoldenFolder(
            name, json.loads((folder / "spec.json").read_text()), *(np.load(folder / f"{part}.npz") for part in PARTS)
        )

    return open_folder


PARTS = ("frames", "outputs")


@pytest.fixture(scope="session")
def checkpoint(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A file of the reference weights in the envelope and under the names of the published file; made once each."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def write(name: str) -> Path:
        path = folder / f"{name}.pth"
        if not path.is_file():
            torch.save(ENVELOPES[name](load_golden_weights(golden, name)), path)
        return path

    return write


def _of_2018(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in arrays.items() if not name.endswith("num_batches_tracked")}


def _data_parallel(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": value for name, value in arrays.items()}


ENVELOPES: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "resnet152": _of_2018,
    "resnext101": lambda arrays: {
        "epoch": 150,
        "arch": "resnext-101",
        "state_dict": _data_parallel(_of_2018(arrays)),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    },
    "s3d": _data_parallel,
    "s3d_howto100m": lambda arrays: arrays,
}
