"""Encoders with arithmetic in the network's place, given by name as a user's own would be."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlprep.clips.spec import ClipSpec, override
from vlprep.weights import WeightsRecord

FRAMES = ClipSpec(network="resnet152", fps=Fraction(5), clip_frames=1, resize=32)
CLIPS = ClipSpec(network="s3d", fps=Fraction(10), clip_frames=8, resize=36, crop=32, tail="repeat")
DIM = 6


def frames(*, weights: str | None, device: str, precision: str, overrides: Mapping[str, Any]) -> DummyEncoder:
    return DummyEncoder(override(FRAMES, overrides), weights)


def clips(*, weights: str | None, device: str, precision: str, overrides: Mapping[str, Any]) -> DummyEncoder:
    return DummyEncoder(override(CLIPS, overrides), weights)


class DummyEncoder:
    """Features are means over parts of the clip, plus the size of its batch, so that batches show in the bytes.

    `weights`: `seconds:S` sleeps for each clip; `red:kill`, `red:hang` and `red:overflow` do so at clips that are red.
    """

    feature_dim = DIM

    def __init__(self, spec: ClipSpec, weights: str | None) -> None:
        self.spec = spec
        self.weights = WeightsRecord(source="none", sha256="0" * 64)
        self._what, _, self._value = (weights or "").partition(":")

    def settings(self) -> dict[str, Any]:
        return self.spec.settings()

    def encode(self, clips_NTHW3: NDArray[np.uint8] | Tensor) -> Tensor:
        clips = torch.as_tensor(clips_NTHW3).double()
        if self._what == "seconds":
            time.sleep(float(self._value) * len(clips))
        features_ND = torch.cat(
            [clips.mean((2, 3, 4))[:, :1], clips.mean((1, 2, 3)), clips[:, -1, :8].mean((1, 2, 3))[:, None]], dim=1
        )
        features_ND = torch.cat([features_ND, torch.full((len(clips), 1), len(clips))], dim=1)
        if self._what == "red":
            self._act(features_ND)
        return features_ND.float()

    def _act(self, features_ND: Tensor) -> None:
        is_red_N = (features_ND[:, 1] > 200) & (features_ND[:, 2] < 60)
        if not is_red_N.any():
            return
        match self._value:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(1000)
            case "overflow":
                features_ND[is_red_N] = 1e6
