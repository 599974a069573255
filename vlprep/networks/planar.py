"""Equal results, sooner: batch norm folded away, and separable 3D layers run as 2D ones without moving data.

A clip in channels-last order is N, T, H, W, C in memory. Seen as N*T images, a (1, k, k) layer is 2D; seen as N images
of T rows and H*W columns, so is a (k, 1, 1) layer. Both views are free, and PyTorch's 2D kernels are much better than
its 3D ones on a CPU: max_pool3d does one element at a time and was 40 % of S3D's time, and (3, 1, 1) convolutions miss
oneDNN on one thread. A maximum over a box is the maximum over time of the maxima over space, exactly.

Shape suffixes: N clips, C channels, T frames, H, W pixels, F = N*T frames as images, P = H*W.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}

_SMALL_FRAME = 14 * 14
"""Up to so many pixels a pointwise layer does better with a clip as one image: one larger matrix product (8 % of
ResNeXt-101's time)."""


def speed_up(network: nn.Module) -> None:
    """Fold batch norms, exchange 3D convolutions and maximum pools for planar ones, turn weights channels-last.

    For inference only: the network is changed in place and can no longer be trained as it was.
    """
    _exchange(network)
    network.requires_grad_(False).eval()
    for weights in network.parameters():
        if weights.dim() in _CHANNELS_LAST:
            weights.data = weights.data.contiguous(memory_format=_CHANNELS_LAST[weights.dim()])


def _exchange(module: nn.Module) -> None:
    """Torchvision's blocks name a convolution right before its batch norm, wherever they have one."""
    before: nn.Module | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, (nn.BatchNorm2d, nn.BatchNorm3d)) and isinstance(before, (nn.Conv2d, nn.Conv3d)):
            _fold(before, child)
            setattr(module, name, nn.Identity())
        elif isinstance(child, nn.Conv3d):
            setattr(module, name, PlanarConv3d(child))
        elif isinstance(child, nn.MaxPool3d):
            setattr(module, name, PlanarMaxPool3d(child.kernel_size, child.stride, child.padding))
        else:
            _exchange(child)
        before = child


def _fold(conv: nn.Conv2d | nn.Conv3d, norm: nn.BatchNorm2d | nn.BatchNorm3d) -> None:
    """Batch norm of inference is a factor and a shift per channel; in float64, since rounding twice would show."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    factor = norm.weight.double() * torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = norm.bias.double() - norm.running_mean.double() * factor
    if conv.bias is not None:
        shift += conv.bias.double() * factor
    per_output = factor.view(-1, *(1 for _ in conv.weight.shape[1:]))
    conv.weight = nn.Parameter((conv.weight.double() * per_output).float())
    conv.bias = nn.Parameter(shift.float())


class PlanarConv3d(nn.Module):
    """`nn.Conv3d`, as 2D wherever its kernel has extent in space only or in time only."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.conv = conv
        self._flat_in_time = conv.kernel_size[0] == conv.stride[0] == 1 and conv.padding[0] == 0
        self._flat_in_space = conv.kernel_size[1:] == conv.stride[1:] == (1, 1) and conv.padding[1:] == (0, 0)

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        conv = self.conv
        stride, padding = conv.stride, cast("tuple[int, ...]", conv.padding)
        is_small = x_NCTHW.shape[3] * x_NCTHW.shape[4] <= _SMALL_FRAME
        if self._flat_in_time and not (self._flat_in_space and is_small):
            kernel = conv.weight.squeeze(2)
            y_FCHW = F.conv2d(as_frames(x_NCTHW), kernel, conv.bias, stride[1:], padding[1:], groups=conv.groups)
            return from_frames(y_FCHW, clips=len(x_NCTHW))
        if self._flat_in_space:
            kernel = conv.weight.squeeze(4)
            y_NCTP = F.conv2d(_as_rows(x_NCTHW), kernel, conv.bias, (stride[0], 1), (padding[0], 0), groups=conv.groups)
            return _from_rows(y_NCTP, x_NCTHW.shape[3:])
        return cast("Tensor", conv(x_NCTHW))


class PlanarMaxPool3d(nn.Module):
    """`nn.MaxPool3d` as a maximum over space, then one over time."""

    def __init__(self, kernel: Any, stride: Any, padding: Any = 0, *, same: bool = False) -> None:
        """`same`: as TensorFlow's SAME with all padding at the end (MIL-NCE s3dg.py:153-183): each size is divided by
        its stride and rounded up. The peer pads with zeros, which is the same where inputs are never negative."""
        super().__init__()
        self._kernel, self._stride, self._padding = _triple(kernel), _triple(stride), _triple(padding)
        self._same = same

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        y_FCHW = self._pool(as_frames(x_NCTHW), (1, 2))
        y_NCTHW = from_frames(y_FCHW, clips=len(x_NCTHW))
        if self._kernel[0] == self._stride[0] == 1:
            return y_NCTHW
        return _from_rows(self._pool(_as_rows(y_NCTHW), (0, None)), y_NCTHW.shape[3:])

    def _pool(self, x: Tensor, axes: tuple[int, int | None]) -> Tensor:
        """Over the last two dimensions of `x`, which are these of (T, H, W); None is left alone."""
        kernel = [1 if axis is None else self._kernel[axis] for axis in axes]
        stride = [1 if axis is None else self._stride[axis] for axis in axes]
        padding = [0 if axis is None else self._padding[axis] for axis in axes]
        if self._same:
            # ceil_mode rounds up by itself, except where a last window would hold a single element.
            ends = [int(k > s and n % s != 0) for k, s, n in zip(kernel, stride, x.shape[2:], strict=True)]
            x = F.pad(x, (0, ends[1], 0, ends[0])) if any(ends) else x
        return F.max_pool2d(x, kernel, stride, padding, ceil_mode=self._same)


def as_frames(x_NCTHW: Tensor) -> Tensor:
    """(N*T, C, H, W) of a channels-last clip batch, without a copy."""
    n, c, t, h, w = x_NCTHW.shape
    return x_NCTHW.permute(0, 2, 3, 4, 1).reshape(n * t, h, w, c).permute(0, 3, 1, 2)


def from_frames(x_FCHW: Tensor, *, clips: int) -> Tensor:
    """The way back: (N, C, T, H, W)."""
    frames, c, h, w = x_FCHW.shape
    return x_FCHW.permute(0, 2, 3, 1).reshape(clips, frames // clips, h, w, c).permute(0, 4, 1, 2, 3)


def _as_rows(x_NCTHW: Tensor) -> Tensor:
    n, c, t, h, w = x_NCTHW.shape
    return x_NCTHW.permute(0, 2, 3, 4, 1).reshape(n, t, h * w, c).permute(0, 3, 1, 2)


def _from_rows(x_NCTP: Tensor, size: torch.Size) -> Tensor:
    n, c, t, _ = x_NCTP.shape
    return x_NCTP.permute(0, 2, 3, 1).reshape(n, t, *size, c).permute(0, 4, 1, 2, 3)


def _triple(value: Any) -> tuple[int, int, int]:
    return value if isinstance(value, tuple) else (value, value, value)
