"""What extraction computes under."""

from __future__ import annotations

import torch

from vlprep.networks.exact import exact


def test_cudnn_stays_on_deterministic_and_without_tf32() -> None:
    cudnn = torch.backends.cudnn
    before = (cudnn.enabled, cudnn.deterministic, cudnn.allow_tf32)
    with exact():
        assert (cudnn.enabled, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32) == (True, True, False, False)
        assert torch.is_inference_mode_enabled()
    assert (cudnn.enabled, cudnn.deterministic, cudnn.allow_tf32) == before
    assert not torch.is_inference_mode_enabled()
