"""What `--precision` means on a device: the network's number type, and how exact its region head has to be."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vlprep.errors import SettingsError

_LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}
_TILE_ENGINES = {"bf16": "amx_bf16", "fp16": "amx_fp16"}


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a network computes."""

    dtype: torch.dtype
    """Of weights and activations in backbone and head; proposals, softmax and NMS are float32 always."""
    tile: int | None
    """Tile side of the matrix-product head (see `toom_cook`), None where it does not apply."""
    map_tile: int | None = None
    """Tile side of the 3×3 convolutions of whole maps (see `tiled_conv`), None for plain ones."""


def arithmetic_for(precision: str, device: torch.device) -> Arithmetic:
    """Return how to compute with `fp32`, `bf16` or `fp16` on a device.

    On a GPU the low precisions are number types. On a CPU they are only where it has tile engines for them (AMX):
    without those, bfloat16 runs at half the rate of float32 (measured on an Intel Xeon with AVX512-BF16). There they
    mean float32 with larger tiles, whose rounding is still a thirtieth of bfloat16's.
    """
    if precision == "fp32":
        return Arithmetic(torch.float32, tile=4)
    if precision not in _LOW:
        raise SettingsError(f"--precision {precision}: one of fp32, bf16, fp16")
    if device.type == "cuda" or torch.cpu.get_capabilities().get(_TILE_ENGINES[precision], False):
        return Arithmetic(_LOW[precision], tile=None)
    return Arithmetic(torch.float32, tile=7, map_tile=4)
