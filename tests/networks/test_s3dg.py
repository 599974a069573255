"""S3D-G can be trained: gradients pass its gates, and both stems take the sizes of the published code."""

from __future__ import annotations

import pytest
import torch

from vlprep.networks.s3dg import CHANNELS, Stem, make_trunk


@pytest.mark.parametrize("stem", ["plain", "space-to-depth"])
def test_every_parameter_has_a_gradient(stem: Stem) -> None:
    torch.manual_seed(0)
    trunk = make_trunk(stem)
    mixed_5c = trunk(torch.rand(2, 3, 8, 64, 64))
    assert mixed_5c.shape == (2, CHANNELS, 1, 2, 2)
    mixed_5c.square().mean().backward()
    without = [name for name, value in trunk.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


def test_a_gate_gives_the_same_with_and_without_gradient() -> None:
    torch.manual_seed(0)
    gate = make_trunk("plain")[3][-1]  # type: ignore[index]
    x = torch.rand(2, 192, 2, 3, 3)
    trained = gate(x)
    with torch.no_grad():
        torch.testing.assert_close(gate(x.clone()), trained)
