"""The pretended GPU refuses what CUDA refuses, and casts as its autocast does."""

from __future__ import annotations

import pytest
import torch
from pretend_gpu import GPU, PretendGpu
from torch import nn


def test_what_cuda_refuses_is_refused() -> None:
    with PretendGpu() as gpu:
        layer = nn.Linear(4, 2).to(GPU)
        there = layer(torch.ones(3, 4, device=GPU))
        assert there.device == layer.weight.device == GPU
        with pytest.raises(RuntimeError, match=r"on cuda:0, of .* on the CPU"):
            layer(torch.ones(3, 4))
        with pytest.raises(RuntimeError, match=r"on cuda:0, of .* on the CPU"):
            there + there.detach().cpu()
        with pytest.raises(TypeError, match="to numpy"):
            there.detach().numpy()
        assert not gpu.waits
        there.sum().item()
        assert gpu.waits == {"_local_scalar_dense": 1}
        there.sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.device == GPU


def test_autocast_casts_as_cudas() -> None:
    """Its layer norm and softmax are in float32, which those of the CPU are not."""
    with PretendGpu():
        layer, norm = nn.Linear(4, 4).to(GPU), nn.LayerNorm(4).to(GPU)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            half = layer(torch.ones(3, 4, device=GPU))
            assert half.dtype == torch.bfloat16
            assert norm(half).dtype == half.softmax(1).dtype == torch.float32
            assert torch.cat([half, norm(half)]).dtype == torch.float32
            with torch.autocast("cuda", enabled=False):
                assert layer(norm(half.float())).dtype == torch.float32
        assert layer(torch.ones(3, 4, device=GPU)).dtype == torch.float32
