"""S3D and S3D-G: one network, torchvision's, for every published checkpoint.

Xie et al., Rethinking Spatiotemporal Feature Learning, 2018. What differs between the files:

| file | stem | pools | gates | batch norm's eps |
| --- | --- | --- | --- | --- |
| kylemin `S3D_kinetics400.pt`, torchvision's `s3d-*.pth` | separable 7 | symmetric | none | 1e-3 |
| MIL-NCE `s3d_howto100m.pth` | 2x2x2 space to depth, then (2, 4, 4) | SAME | all | 1e-5 |
| trained with the MIL-NCE repository | (3, 7, 7), stride 2 | SAME | all | 1e-5 |

Space to depth followed by its convolution is one (4, 8, 8) convolution of stride 2, so nothing is rearranged, and odd
sizes work. Trunks are `torchvision.models.video.S3D.features`, whose positions name the layers here.
Shape suffixes: N clips, C channels, T frames, H, W pixels.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.video.s3d import S3D
from torchvision.ops.misc import Conv3dNormActivation

from vlprep.clips.network import Arrays, ClipNetwork
from vlprep.clips.planar import PlanarMaxPool3d

_POOLS = (1, 4, 7, 13)
_STEM_KERNEL = "trunk.0.0.weight"
_BLOCKS = {
    "3b": 5, "3c": 6, "4b": 8, "4c": 9, "4d": 10, "4e": 11, "4f": 12, "5b": 14, "5c": 15,
}  # fmt: skip


def make_s3d(_: Mapping[str, Tensor] | None = None) -> ClipNetwork:
    """S3D of Kinetics-400: 1024 channels, 400 classes."""
    network = S3D(num_classes=400)
    classifier = network.classifier[1]
    return ClipNetwork(network.features, nn.Linear(classifier.in_channels, classifier.out_channels))


def rename_s3d(arrays: Arrays) -> Arrays:
    """From kylemin's names or torchvision's."""
    renamed = {}
    for name, value in arrays.items():
        for pattern, by in _KYLEMIN:
            name = re.sub(pattern, by, name)
        is_classifier = name.startswith("head.weight")
        renamed[name] = value.flatten(1) if is_classifier else value
    return renamed


_KYLEMIN = (
    (r"^(base|features)\.", "trunk."),
    (r"^(fc\.0|classifier\.1)\.", "head."),
    (r"\.branch0\.0\.conv\.", ".branch0.0."),
    (r"\.branch0\.0\.bn\.", ".branch0.1."),
    (r"\.conv_s\.", ".0.0."),
    (r"\.bn_s\.", ".0.1."),
    (r"\.conv_t\.", ".1.0."),
    (r"\.bn_t\.", ".1.1."),
    (r"\.conv\.", ".0."),
    (r"\.bn\.", ".1."),
)


class _Gate(nn.Module):
    """Each channel times the sigmoid of a linear map of all channels' means (self-gating)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        gate_NC = torch.sigmoid(self.fc(x_NCTHW.mean((2, 3, 4))))
        return x_NCTHW.mul_(gate_NC[:, :, None, None, None])


class _Pad(nn.Module):
    """Zeros around a clip: (left, right, top, bottom, before, after)."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self._sizes = sizes

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        return F.pad(x_NCTHW, self._sizes)


def make_s3d_howto100m(arrays: Mapping[str, Tensor] | None = None) -> ClipNetwork:
    """S3D-G of MIL-NCE: 1024 channels (`mixed_5c`) and their projection to the 512 of the joint space."""
    norm = partial(nn.BatchNorm3d, eps=1e-5)
    trunk = S3D(norm_layer=norm).features
    if arrays is not None and _STEM_KERNEL in arrays and arrays[_STEM_KERNEL].shape[2:] == (3, 7, 7):
        trunk[0] = Conv3dNormActivation(3, 64, (3, 7, 7), 2, (1, 3, 3), norm_layer=norm)
    else:
        same = _Pad(2, 4, 2, 4, 0, 2)  # what SAME padding of the blocks of 2, and the crop after it, come to
        stem = Conv3dNormActivation(3, 64, (4, 8, 8), 2, 0, norm_layer=norm)
        trunk[0] = nn.Sequential(OrderedDict([("same", same), *stem.named_children()]))
    for position in _POOLS:
        trunk[position] = PlanarMaxPool3d(trunk[position].kernel_size, trunk[position].stride, same=True)
    trunk[3].append(_Gate(192))
    for position in _BLOCKS.values():
        block = trunk[position]
        for branch in (block.branch0, block.branch1, block.branch2, block.branch3):
            branch.append(_Gate(_channels(branch)))
    return ClipNetwork(trunk, nn.Linear(1024, 512))


def _channels(branch: nn.Module) -> int:
    return [module.out_channels for module in branch.modules() if isinstance(module, nn.Conv3d)][-1]


def rename_s3d_howto100m(arrays: Arrays) -> Arrays:
    """From MIL-NCE's names; the text tower's are left out."""
    renamed = {}
    for name, value in arrays.items():
        if name.startswith("text_module."):
            continue
        for pattern, by in _MIL_NCE:
            name = re.sub(pattern, by, name)
        name = re.sub(r"^mixed_(\w\w)\.", lambda found: f"trunk.{_BLOCKS.get(found[1], found[0])}.", name)
        renamed[name] = _without_space_to_depth(value) if name == _STEM_KERNEL else value
    return renamed


_MIL_NCE = (
    (r"^conv1\.conv1\.", "trunk.0.0."),
    (r"^conv1\.bn1\.", "trunk.0.1."),
    (r"^conv_2b\.conv1\.", "trunk.2.0."),
    (r"^conv_2b\.bn1\.", "trunk.2.1."),
    (r"^conv_2c\.", "trunk.3."),
    (r"^gating\.", "trunk.3.2."),
    (r"^fc\.", "head."),
    (r"\.conv_b0\.conv1\.", ".branch0.0."),
    (r"\.conv_b0\.bn1\.", ".branch0.1."),
    (r"\.conv_b(\d)_a\.conv1\.", r".branch\1.0.0."),
    (r"\.conv_b(\d)_a\.bn1\.", r".branch\1.0.1."),
    (r"\.conv_b3_b\.conv1\.", ".branch3.1.0."),
    (r"\.conv_b3_b\.bn1\.", ".branch3.1.1."),
    (r"\.conv_b(\d)_b\.", r".branch\1.1."),
    (r"\.gating_b0\.", ".branch0.3."),
    (r"\.gating_b(\d)\.", r".branch\1.2."),
    (r"\.conv1\.", ".0.0."),
    (r"\.bn1\.", ".0.1."),
    (r"\.conv2\.", ".1.0."),
    (r"\.bn2\.", ".1.1."),
)


def _without_space_to_depth(kernel: Tensor) -> Tensor:
    """(64, 24, 2, 4, 4) on blocks of 2x2x2 as (64, 3, 4, 8, 8) on pixels; other stems as they are.

    A block's channel is ((dt * 2 + dh) * 2 + dw) * 3 + colour (MIL-NCE s3dg.py:298-305).
    """
    if kernel.shape[1:] != (24, 2, 4, 4):
        return kernel
    blocks = kernel.view(-1, 2, 2, 2, 3, 2, 4, 4)
    return blocks.permute(0, 4, 5, 1, 6, 2, 7, 3).reshape(-1, 3, 4, 8, 8)
