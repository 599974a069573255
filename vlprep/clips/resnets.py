"""ResNet-152 on single frames and ResNeXt-101 on clips, both with torchvision's wiring and names.

He et al., Deep Residual Learning, 2015; Hara et al., Can Spatiotemporal 3D CNNs Retrace ..., 2018.
Shape suffixes: N clips, C channels, T frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet, resnet152

from vlprep.clips.network import Arrays, ClipNetwork
from vlprep.networks.planar import as_frames, from_frames

_TRUNK = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


class _Framewise(nn.Module):
    """A network of images over each frame of each clip."""

    def __init__(self, images: nn.Module) -> None:
        super().__init__()
        self.images = images

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        return from_frames(self.images(as_frames(x_NCTHW)), clips=len(x_NCTHW))


def make_resnet152(_: Mapping[str, Tensor] | None = None) -> ClipNetwork:
    """torchvision's ResNet-152; a map of 2048 channels for each frame."""
    network = resnet152(weights=None)
    return ClipNetwork(_Framewise(_trunk(network)), network.fc)


def rename_resnet152(arrays: Arrays) -> Arrays:
    """From torchvision's names, which INRIA's extractor uses too."""
    return _renamed(arrays, "trunk.images.")


def make_resnext101(_: Mapping[str, Tensor] | None = None) -> ClipNetwork:
    """3D ResNeXt-101 32x4d, shortcut B: torchvision's 2D network with one more axis, time.

    The stem (7, 7, 7) keeps the frames, its pool and each of layers 2 to 4 halve them; kenshohara/3D-ResNets-PyTorch,
    branch CVPR2018, models/resnext.py:30-111.
    """
    network = ResNet(Bottleneck, [3, 4, 23, 3], groups=32, width_per_group=4, num_classes=400)
    _add_time(network)
    network.conv1.stride = (1, 2, 2)
    return ClipNetwork(_trunk(network), network.fc)


def rename_resnext101(arrays: Arrays) -> Arrays:
    """From the names of `resnext-101-kinetics.pth` and INRIA's `resnext101.pth`."""
    return _renamed(arrays, "trunk.")


def _trunk(network: ResNet) -> nn.Sequential:
    trunk = nn.Sequential()
    for name in _TRUNK:
        trunk.add_module(name, getattr(network, name))
    return trunk


def _renamed(arrays: Arrays, prefix: str) -> Arrays:
    return {
        f"head.{name.removeprefix('fc.')}" if name.startswith("fc.") else prefix + name: value
        for name, value in arrays.items()
    }


def _add_time(module: nn.Module) -> None:
    """Exchange 2D layers for 3D ones of the same extent in time as in space."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d):
            sizes = (child.kernel_size[0], child.stride[0], cast("int", child.padding[0]))
            setattr(module, name, _conv3d(child, *sizes))
        elif isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.BatchNorm3d(child.num_features))
        elif isinstance(child, nn.MaxPool2d):
            setattr(module, name, nn.MaxPool3d(child.kernel_size, child.stride, child.padding))
        else:
            _add_time(child)


def _conv3d(conv: nn.Conv2d, kernel: int, stride: int, padding: int) -> nn.Conv3d:
    return nn.Conv3d(
        conv.in_channels, conv.out_channels, kernel, stride, padding, groups=conv.groups, bias=conv.bias is not None
    )
