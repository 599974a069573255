"""AdamW with UNITER's parameter groups (without weight decay it is Adam), and schedules."""

from __future__ import annotations

import math

import torch
from torch import nn

from vlprep.pretrain.settings import OptimiserSettings

NOT_DECAYED = ("bias", "LayerNorm.bias", "LayerNorm.weight")
"""Substrings of names (UNITER optim/misc.py:15). `img_layer_norm` and the norms inside heads do not match: they
decay.
"""


def make_optimiser(model: nn.Module, settings: OptimiserSettings) -> torch.optim.AdamW:
    """Fused AdamW. Parameters without a gradient in a step are skipped whole, as in UNITER: call
    `zero_grad(set_to_none=True)`."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            share = settings.text_lr if name.startswith("bert.") else 1.0
            decay = 0.0 if any(part in name for part in NOT_DECAYED) else settings.weight_decay
            groups.setdefault((share, decay), []).append(parameter)
    by_share = [
        {"params": parameters, "weight_decay": decay, "lr_share": share}
        for (share, decay), parameters in sorted(groups.items(), key=lambda entry: entry[0], reverse=True)
    ]
    return torch.optim.AdamW(by_share, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)


def learning_rate(step: int, steps: int, settings: OptimiserSettings) -> float:
    """Linear warm-up to `lr`, then by the schedule until after the last step (UNITER optim/sched.py, without its
    division by zero where warm-up takes the whole run; MIL-NCE's cosine). HowTo100M's decay, a factor an epoch, is
    spread over the steps, since an epoch has as many as the dataset has videos."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = min(1.0, (step - settings.warmup) / max(1, steps - settings.warmup))
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1 + math.cos(math.pi * done))
    if settings.schedule == "exponential":
        return float(settings.lr * settings.final_lr**done)
    return settings.lr * (1 - done)
