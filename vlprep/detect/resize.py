"""The three ways in which published extractors shrink or enlarge a photograph, each to the pixel.

All give (3, h, w) float32 in BGR order with the mean subtracted, and the factors from original to network pixels.

- `hf_float`: float bilinear without antialiasing, the sampling step fitted to the rounded size (Hugging Face's frcnn).
- `caffe_cv2`: OpenCV's INTER_LINEAR on float32 with fx = fy = s: the step is 1/s whatever the rounded size (Caffe,
  MILVLG). Written here with NumPy's rounding rules, so that OpenCV is not needed.
- `pb_pil`: Pillow's bilinear on uint8, which antialiases when shrinking and rounds (py-bottom-up-attention).

Shape suffixes: H, W original, h, w resized sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vlprep.detect.spec import RegionSpec


@dataclass(frozen=True, slots=True)
class Resized:
    """A photograph as the network takes it."""

    pixels_3hw: Tensor
    scale_xy: tuple[float, float]
    """Original pixels times this are network pixels."""


def resize(image_HW3: NDArray[np.uint8], spec: RegionSpec) -> Resized:
    """Return the network's input for an RGB photograph, by the family's own rule."""
    match spec.resizer:
        case "hf_float":
            return _hf_float(image_HW3, spec)
        case "caffe_cv2":
            return _caffe_cv2(image_HW3, spec)
        case "pb_pil":
            return _pb_pil(image_HW3, spec)


def _detectron_size(image_HW3: NDArray[np.uint8], spec: RegionSpec) -> tuple[int, int]:
    """The short side to `short_side` unless the long one would pass `long_side`; rounded by int(x + 0.5)."""
    height, width = image_HW3.shape[:2]
    scale = spec.short_side / min(height, width)
    new_h, new_w = (spec.short_side, scale * width) if height < width else (scale * height, spec.short_side)
    if max(new_h, new_w) > spec.long_side:
        shrink = spec.long_side / max(new_h, new_w)
        new_h, new_w = new_h * shrink, new_w * shrink
    return int(new_h + 0.5), int(new_w + 0.5)


def _bgr_minus_mean(pixels_3hw: Tensor, spec: RegionSpec) -> Tensor:
    return pixels_3hw.flip(0) - torch.tensor(spec.pixel_mean)[:, None, None]


def _per_axis(image_HW3: NDArray[np.uint8], size_hw: tuple[int, int]) -> tuple[float, float]:
    return size_hw[1] / image_HW3.shape[1], size_hw[0] / image_HW3.shape[0]


def _hf_float(image_HW3: NDArray[np.uint8], spec: RegionSpec) -> Resized:
    size = _detectron_size(image_HW3, spec)
    pixels = torch.from_numpy(image_HW3.transpose(2, 0, 1).astype(np.float32))
    resized = F.interpolate(pixels[None], size, mode="bilinear", align_corners=False)[0]
    return Resized(_bgr_minus_mean(resized, spec), _per_axis(image_HW3, size))


def _pb_pil(image_HW3: NDArray[np.uint8], spec: RegionSpec) -> Resized:
    size = _detectron_size(image_HW3, spec)
    resized = Image.fromarray(image_HW3).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.asarray(resized, dtype=np.float32).transpose(2, 0, 1).copy())
    return Resized(_bgr_minus_mean(pixels, spec), _per_axis(image_HW3, size))


def _caffe_cv2(image_HW3: NDArray[np.uint8], spec: RegionSpec) -> Resized:
    height, width = image_HW3.shape[:2]
    scale = spec.short_side / min(height, width)
    if round(scale * max(height, width)) > spec.long_side:
        scale = spec.long_side / max(height, width)
    pixels = _bgr_minus_mean(torch.from_numpy(image_HW3.transpose(2, 0, 1).astype(np.float32)), spec)
    top, bottom, weight_y = _taps(height, scale)
    left, right, weight_x = _taps(width, scale)
    columns = torch.lerp(pixels.index_select(2, left), pixels.index_select(2, right), weight_x)
    resized = torch.lerp(columns.index_select(1, top), columns.index_select(1, bottom), weight_y[:, None])
    return Resized(resized, (scale, scale))


def _taps(side: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """For each output pixel along one axis: the two input pixels, and the second one's weight."""
    centre = (torch.arange(round(side * scale), dtype=torch.float64) + 0.5) / scale - 0.5
    centre = centre.clamp(0, side - 1)
    first = centre.floor().long()
    return first, (first + 1).clamp(max=side - 1), (centre - first).float()
