"""From clips to features: a network with its recipe on a device.

Shape suffixes: N clips, T frames, H, W pixels, 3 colours (RGB); C channels, t, h, w of the last map; D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vlprep.clips import resnets, s3d
from vlprep.clips.network import ClipNetwork, Make, Rename, load, make_up
from vlprep.clips.pixels import network_input
from vlprep.clips.presets import preset
from vlprep.clips.spec import ClipSpec, Pooling, override
from vlprep.errors import SettingsError
from vlprep.networks.exact import exact
from vlprep.weights import WeightsRecord, describe, is_random, resolve

Precision = Literal["fp32", "bf16", "fp16"]
_CPU_FRAMES = 32
"""Frames that go through a network on a CPU at a time: more take memory and leave its caches, and gain nothing."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_NETWORKS: Mapping[str, tuple[Make, Rename]] = {
    "resnet152": (resnets.make_resnet152, resnets.rename_resnet152),
    "resnext101": (resnets.make_resnext101, resnets.rename_resnext101),
    "s3d": (s3d.make_s3d, s3d.rename_s3d),
    "s3d-howto100m": (s3d.make_s3d_howto100m, s3d.rename_s3d_howto100m),
}


class ClipEncoder(Protocol):
    """A loaded network on its device, and how its clips are made."""

    spec: ClipSpec
    feature_dim: int
    weights: WeightsRecord

    def settings(self) -> dict[str, Any]:
        """All that changes the numbers but the weights, JSON-ready; it becomes part of the store's fingerprint."""

    def encode(self, clips_NTHW3: NDArray[np.uint8] | Tensor) -> Tensor:
        """(N, D) float32 on the encoder's device, of clips as `windows.cut` makes them. But for rounding,
        a clip's feature does not depend on the others in its batch."""


def build_encoder(
    name: str,
    *,
    weights: str | Path | None = None,
    device: str = "cpu",
    precision: Precision = "fp32",
    overrides: Mapping[str, Any] | None = None,
) -> ClipEncoder:
    """Load a clip encoder.

    Args:
        name: A preset of `vlprep.clips.presets`: a network's own name, or a published system's.
        weights: A file, `hf://owner/repo/file`, `random:SEED`, or None for the preset's public place.
        device: As torch names it.
        precision: Of the network; pixels are scaled, maps averaged and heads applied in float32. bf16 pays where the
            CPU has AMX or the GPU tensor cores; a CPU with AVX-512 alone is faster at fp32.
        overrides: Settings of the recipe to change, see `vlprep.clips.spec.override`.

    Raises:
        SettingsError: An unknown name or setting, weights that cannot be had or are another network's.
    """
    if precision not in get_args(Precision):
        raise SettingsError(f"--precision {precision}: one of {', '.join(get_args(Precision))}")
    chosen = preset(name)
    spec = override(chosen.spec, overrides or {})
    make, rename = _NETWORKS[spec.network]
    if is_random(weights):
        network, record = make_up(make, str(weights))
    else:
        path = resolve(weights, default=chosen.place)
        network, record = load(make, rename, path, describe(weights, default=chosen.place))
    return TorchEncoder(spec, network, record, torch.device(device), precision)


class TorchEncoder:
    """The one `ClipEncoder`."""

    def __init__(
        self, spec: ClipSpec, network: ClipNetwork, weights: WeightsRecord, device: torch.device, precision: Precision
    ) -> None:
        self.spec = spec
        self.feature_dim = spec.feature_dim
        self.weights = weights
        self._device = device
        self._precision = precision
        self._dtype = _DTYPES[precision]
        self.trunk = network.trunk.to(device, self._dtype)
        self.head = network.head.to(device)

    def settings(self) -> dict[str, Any]:
        return {**self.spec.settings(), "precision": self._precision}

    def encode(self, clips_NTHW3: NDArray[np.uint8] | Tensor) -> Tensor:
        clips = torch.as_tensor(clips_NTHW3)
        at_once = max(1, _CPU_FRAMES // clips.shape[1]) if self._device.type == "cpu" else len(clips)
        return torch.cat([self._encode(part) for part in torch.split(clips, at_once)])

    @exact()
    def _encode(self, clips_NTHW3: Tensor) -> Tensor:
        x_NCTHW = network_input(clips_NTHW3.to(self._device, non_blocking=True), self.spec)
        features_ND = pooled(self.trunk(x_NCTHW.to(self._dtype)), self.spec.pooling)
        if self.spec.through_head:
            features_ND = self.head(features_ND)
        return F.normalize(features_ND, dim=1) if self.spec.l2 else features_ND


def pooled(map_NCthw: Tensor, pooling: Pooling) -> Tensor:
    """(N, C) float32: the mean over time and space, or over time the mean of the means of neighbouring steps."""
    if pooling == "mean":
        return map_NCthw.mean((2, 3, 4), dtype=torch.float32)
    steps_NCt = map_NCthw.mean((3, 4), dtype=torch.float32)
    return (steps_NCt[:, :, :-1] + steps_NCt[:, :, 1:]).mean(2) / 2
