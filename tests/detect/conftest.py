"""The reference outputs of the full-size networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detect.networks import FAMILIES, GOLDEN_FOLDERS, GoldenCase
from PIL import Image
from torch import Tensor


@pytest.fixture(scope="session")
def golden_case(golden: Path, samples: Path) -> Callable[[str, str], GoldenCase]:
    """`golden_case("butd", "quick_000000132417.npz")`; the 65 million weights of a family are made once."""
    weights: dict[str, dict[str, Tensor]] = {}

    def case(family: str, file: str) -> GoldenCase:
        import golden_weights

        folder = golden / GOLDEN_FOLDERS[family]
        if family not in weights:
            made = golden_weights.load(folder)
            weights.clear()  # one family in memory at a time
            weights[family] = {name: torch.from_numpy(np.asarray(array)) for name, array in made.items()}
        told = json.loads((folder / "spec.json").read_text())
        run = next(run for run in told["runs"] if run["file"] == file)
        sizes = told["settings"][run["setting"]]
        spec = replace(FAMILIES[family], short_side=sizes["short"], long_side=sizes["long"], post_nms=sizes["post_nms"])
        image = np.asarray(Image.open(samples / "coco/train2014" / run["image"]).convert("RGB"))
        with np.load(folder / file) as arrays:
            return GoldenCase(spec, weights[family], image, dict(arrays))

    return case
