"""S3D-G, MIL-NCE's video network: torchvision's S3D with gates and SAME pools, and the published names of its tensors.

Miech et al. 2020; S3D_HowTo100M@b8cd0bb and MIL-NCE_HowTo100M@b282b15 s3dg.py. Two stems were published: the file
`s3d_howto100m.pth` has 2x2x2 space to depth before a (2, 4, 4) convolution, the training repository's default is
(3, 7, 7) with stride 2. Space to depth followed by its convolution is one (4, 8, 8) convolution of stride 2 with the
same weights in another order, so nothing is rearranged, odd sizes work, and training changes the same numbers.

Shape suffixes: N clips, C channels, T frames, H, W pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.video.s3d import S3D
from torchvision.ops.misc import Conv3dNormActivation

from vlprep.networks.planar import PlanarMaxPool3d

Stem = Literal["space-to-depth", "plain"]

CHANNELS = 1024
"""Of the last map, `mixed_5c`."""
STEM_KERNEL = "0.0.weight"
_POOLS = (1, 4, 7, 13)
_BLOCKS = {
    "3b": 5, "3c": 6, "4b": 8, "4c": 9, "4d": 10, "4e": 11, "4f": 12, "5b": 14, "5c": 15,
}  # fmt: skip


def make_trunk(stem: Stem) -> nn.Sequential:
    """From (N, 3, T, H, W) in [0, 1] to `mixed_5c`, (N, 1024, T / 8, H / 32, W / 32)."""
    norm = partial(nn.BatchNorm3d, eps=1e-5)
    trunk: nn.Sequential = S3D(norm_layer=norm).features
    if stem == "plain":
        trunk[0] = Conv3dNormActivation(3, 64, (3, 7, 7), 2, (1, 3, 3), norm_layer=norm)
    else:
        same = _Pad(2, 4, 2, 4, 0, 2)  # what SAME padding of the blocks of 2, and the crop after it, come to
        convolution = Conv3dNormActivation(3, 64, (4, 8, 8), 2, 0, norm_layer=norm)
        trunk[0] = nn.Sequential(OrderedDict([("same", same), *convolution.named_children()]))
    for position in _POOLS:
        pool = trunk[position]
        assert isinstance(pool, nn.MaxPool3d)
        trunk[position] = PlanarMaxPool3d(pool.kernel_size, pool.stride, same=True)
    gated = [trunk[3], *(branch for position in _BLOCKS.values() for branch in trunk[position].children())]
    for layers in gated:
        assert isinstance(layers, nn.Sequential)
        layers.append(_Gate(_channels(layers)))
    return trunk


def stem_of(kernel: Tensor) -> Stem:
    """Which stem a convolution kernel belongs to, ours or a published one."""
    return "plain" if kernel.shape[2:] == (3, 7, 7) else "space-to-depth"


def from_published(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of MIL-NCE's state dict what is the trunk's, under the trunk's names; `fc` and `text_module` are left out."""
    mine = {_renamed(name, _OURS): value for name, value in arrays.items() if not name.startswith(_NOT_TRUNK)}
    return {name: _fold(value) if name == STEM_KERNEL else value for name, value in mine.items()}


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back: a trunk's state dict under MIL-NCE's names and in its shapes."""
    return {_renamed(name, _THEIRS): _unfold(value) if name == STEM_KERNEL else value for name, value in state.items()}


_NOT_TRUNK = ("fc.", "text_module.")
_BEFORE_BLOCKS = {
    "conv1.conv1": "0.0",
    "conv1.bn1": "0.1",
    "conv_2b.conv1": "2.0",
    "conv_2b.bn1": "2.1",
    "conv_2c.conv1": "3.0.0",
    "conv_2c.bn1": "3.0.1",
    "conv_2c.conv2": "3.1.0",
    "conv_2c.bn2": "3.1.1",
    "gating.fc": "3.2.fc",
}
_IN_BLOCK = {
    "conv_b0.conv1": "branch0.0",
    "conv_b0.bn1": "branch0.1",
    "gating_b0.fc": "branch0.3.fc",
    "conv_b3_b.conv1": "branch3.1.0",
    "conv_b3_b.bn1": "branch3.1.1",
    "gating_b3.fc": "branch3.2.fc",
}
_IN_BLOCK |= {
    theirs.format(branch): ours.format(branch)
    for branch in (1, 2)
    for theirs, ours in {
        "conv_b{}_a.conv1": "branch{}.0.0",
        "conv_b{}_a.bn1": "branch{}.0.1",
        "conv_b{}_b.conv1": "branch{}.1.0.0",
        "conv_b{}_b.bn1": "branch{}.1.0.1",
        "conv_b{}_b.conv2": "branch{}.1.1.0",
        "conv_b{}_b.bn2": "branch{}.1.1.1",
        "gating_b{}.fc": "branch{}.2.fc",
    }.items()
}
_OURS = _BEFORE_BLOCKS | {
    f"mixed_{block}.{theirs}": f"{position}.{ours}"
    for block, position in _BLOCKS.items()
    for theirs, ours in _IN_BLOCK.items()
}
"""Published names of the layers that have tensors, and the trunk's."""
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


def _renamed(name: str, layers: Mapping[str, str]) -> str:
    """Names that are not known stay as they are, for whoever loads them to complain of."""
    layer, _, tensor = name.rpartition(".")
    return f"{layers.get(layer, layer)}.{tensor}"


def _fold(kernel: Tensor) -> Tensor:
    """(64, 24, 2, 4, 4) on blocks of 2x2x2 as (64, 3, 4, 8, 8) on pixels; other stems as they are.

    A block's channel is ((dt * 2 + dh) * 2 + dw) * 3 + colour (MIL-NCE s3dg.py:298-305).
    """
    if kernel.shape[1:] != (24, 2, 4, 4):
        return kernel
    blocks = kernel.view(-1, 2, 2, 2, 3, 2, 4, 4)
    return blocks.permute(0, 4, 5, 1, 6, 2, 7, 3).reshape(-1, 3, 4, 8, 8)


def _unfold(kernel: Tensor) -> Tensor:
    """The way back of `_fold`."""
    if kernel.shape[1:] != (3, 4, 8, 8):
        return kernel
    pixels = kernel.view(-1, 3, 2, 2, 4, 2, 4, 2)
    return pixels.permute(0, 3, 5, 7, 1, 2, 4, 6).reshape(-1, 24, 2, 4, 4)


class _Gate(nn.Module):
    """Each channel times the sigmoid of a linear map of all channels' means (self-gating)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        gate_NC11 = torch.sigmoid(self.fc(x_NCTHW.mean((2, 3, 4))))[:, :, None, None, None]
        if torch.is_grad_enabled():  # whose backward pass needs what went in
            return x_NCTHW * gate_NC11
        return x_NCTHW.mul_(gate_NC11)


class _Pad(nn.Module):
    """Zeros around a clip: (left, right, top, bottom, before, after)."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self._sizes = sizes

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        return F.pad(x_NCTHW, self._sizes)


def _channels(branch: nn.Module) -> int:
    return [module.out_channels for module in branch.modules() if isinstance(module, nn.Conv3d)][-1]
