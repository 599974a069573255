"""From the decoder's bytes to a network's input, on the network's device.

Shape suffixes: N clips, T frames, H, W pixels, 3 colours (RGB).
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlprep.clips.spec import ClipSpec


def network_input(clips_NTHW3: Tensor, spec: ClipSpec) -> Tensor:
    """(N, 3, T, H, W) float32, scaled and normalised by the recipe; a view, channels last in memory.

    Args:
        clips_NTHW3: uint8 RGB on any device.
        spec: Gives the range, mean and std.
    """
    low, high = spec.pixel_range
    factors = [(high - low) / 255 / (std + spec.std_epsilon) for std in spec.std]
    shifts = [(low - mean) / (std + spec.std_epsilon) for mean, std in zip(spec.mean, spec.std, strict=True)]
    width = clips_NTHW3.shape[3]
    # Over rows of 3 W numbers instead of pixels of 3: four times faster on a CPU.
    factor, shift = (torch.tensor(values, device=clips_NTHW3.device).repeat(width) for values in (factors, shifts))
    rows = clips_NTHW3.flatten(3).float().mul_(factor).add_(shift)
    return rows.view(clips_NTHW3.shape).permute(0, 4, 1, 2, 3)
