"""The fast forms of layers and networks give what the plain ones give."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import resnet18

from vlprep.clips import s3d
from vlprep.clips.resnets import make_resnext101
from vlprep.networks.planar import PlanarConv3d, PlanarMaxPool3d, speed_up


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def clips(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "groups"),
    [
        ((1, 1, 1), 1, 0, 1),
        ((1, 3, 3), 1, (0, 1, 1), 1),
        ((1, 7, 5), (1, 2, 2), (0, 3, 2), 1),
        ((3, 1, 1), 1, (1, 0, 0), 2),
        ((7, 1, 1), (2, 1, 1), (3, 0, 0), 1),
        ((3, 3, 3), 2, 1, 4),
        ((1, 1, 1), 2, 0, 1),
        ((1, 3, 3), 1, (1, 1, 1), 1),
        ((3, 1, 1), 1, (1, 1, 0), 1),
    ],
)
def test_convolution_is_the_same(kernel: tuple[int, ...], stride: int, padding: int, groups: int) -> None:
    conv = nn.Conv3d(8, 12, kernel, stride, padding, groups=groups).requires_grad_(False)
    x = clips(2, 8, 9, 7, 11)
    torch.testing.assert_close(PlanarConv3d(conv)(x), conv(x))
    torch.testing.assert_close(PlanarConv3d(conv)(x.contiguous()), conv(x))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(3, 1, 1), ((1, 3, 3), (1, 2, 2), (0, 1, 1)), (3, 2, 1), (2, 2, 0), ((3, 1, 1), (2, 1, 1), (1, 0, 0))],
)
def test_maximum_is_the_same(kernel: int, stride: int, padding: int) -> None:
    x = clips(2, 5, 9, 8, 11)
    assert torch.equal(PlanarMaxPool3d(kernel, stride, padding)(x), F.max_pool3d(x, kernel, stride, padding))


@pytest.mark.parametrize("size", [(8, 14, 14), (7, 25, 14), (1, 1, 3), (2, 13, 1)])
@pytest.mark.parametrize(("kernel", "stride"), [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2))])
def test_same_pads_the_end_with_zeros_and_rounds_up(
    size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    x = clips(2, 4, *size).relu()
    t, h, w = (max(0, k - s) for k, s in zip(kernel, stride, strict=True))
    peer = F.max_pool3d(F.pad(x, (0, w, 0, h, 0, t)), kernel, stride, ceil_mode=True)
    assert torch.equal(PlanarMaxPool3d(kernel, stride, same=True)(x), peer)


def with_statistics(network: nn.Module) -> nn.Module:
    """As after training: batch norms that do something."""
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            for value, low, high in [
                (module.weight, 0.5, 1.5), (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 2.0),
            ]:  # fmt: skip
                nn.init.uniform_(value, low, high)
        elif isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: s3d.make_s3d().trunk, (2, 3, 16, 32, 48)),
        (lambda: s3d.make_s3d_howto100m().trunk, (2, 3, 9, 50, 34)),
        (lambda: make_resnext101().trunk, (1, 3, 4, 32, 32)),
        (resnet18, (2, 3, 64, 48)),
    ],
)
def test_a_network_sped_up_gives_the_same_map(make: Callable[[], nn.Module], size: tuple[int, ...]) -> None:
    plain = with_statistics(make())
    fast = deepcopy(plain)
    speed_up(fast)
    assert not [module for module in fast.modules() if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d))]
    x = torch.rand(size)
    wanted, found = plain(x), fast(x)
    assert (wanted - found).abs().max() <= 1e-5 * wanted.abs().max()


def test_nothing_is_copied_on_the_way_of_channels_last_clips() -> None:
    conv = PlanarConv3d(nn.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0)).requires_grad_(False))
    assert conv(clips(2, 8, 4, 6, 6)).is_contiguous(memory_format=torch.channels_last_3d)
    pool = PlanarMaxPool3d(3, 1, 1)
    assert pool(clips(2, 8, 4, 6, 6)).is_contiguous(memory_format=torch.channels_last_3d)


def test_space_to_depth_is_folded_into_the_stem() -> None:
    kernel, x = torch.randn(64, 24, 2, 4, 4), torch.rand(1, 3, 6, 12, 8)
    blocks = x.view(1, 3, 3, 2, 6, 2, 4, 2).permute(0, 3, 5, 7, 1, 2, 4, 6).reshape(1, 24, 3, 6, 4)
    peer = F.conv3d(blocks, kernel, padding=(1, 2, 2))[:, :, 1:, 1:, 1:]
    (folded,) = s3d.rename_s3d_howto100m({"conv1.conv1.weight": kernel}).values()
    torch.testing.assert_close(F.conv3d(F.pad(x, (2, 4, 2, 4, 0, 2)), folded, stride=2), peer, atol=1e-4, rtol=1e-4)
