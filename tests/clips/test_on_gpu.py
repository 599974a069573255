"""On a pretended GPU every clip encoder gives the CPU's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pretend_gpu import PretendGpu

from vlprep.clips.encoder import build_encoder

SMALL = {"resize": 32, "crop": 32, "clip_frames": 5}


@pytest.mark.parametrize("name", ["resnet152", "resnext101", "s3d", "s3d-howto100m"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_clip_encoders(name: str, precision: str) -> None:
    overrides = SMALL | ({"clip_frames": 1} if name == "resnet152" else {})
    clips = np.random.default_rng(0).integers(0, 256, (2, overrides["clip_frames"], 32, 32, 3), np.uint8)
    options: dict[str, Any] = {"weights": "random:0", "overrides": overrides, "precision": precision}
    expected = build_encoder(name, **options).encode(clips)
    with PretendGpu():
        found = build_encoder(name, **options, device="cuda:0").encode(clips)
        assert torch.equal(found.cpu(), expected)
