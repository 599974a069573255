"""Word-region alignment by optimal transport (UNITER model/ot.py: IPOT, Xie et al. 2018).

Shape suffixes: B sequences, P text states, R region states, H hidden size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def transport_distance(
    text_BPH: Tensor, text_real_BP: Tensor, regions_BRH: Tensor, regions_real_BR: Tensor, *, beta: float, steps: int
) -> Tensor:
    """(B,) cost of moving the text states onto the region states; cost of a pair is 1 - cosine.

    The plan is computed in float32 without gradient; the gradient flows through the costs alone. Padding costs nothing.
    """
    with torch.autocast(text_BPH.device.type, enabled=False):
        cost_BPR = 1 - torch.einsum("bph,brh->bpr", _unit(text_BPH), _unit(regions_BRH))
        real_BPR = text_real_BP[:, :, None] & regions_real_BR[:, None, :]
        cost_BPR = cost_BPR.masked_fill(~real_BPR, 0)
        plan_BRP = _ipot(cost_BPR.detach(), text_real_BP, regions_real_BR, beta, steps)
        return (cost_BPR * plan_BRP.transpose(1, 2)).sum((1, 2))


def _unit(states: Tensor) -> Tensor:
    return F.normalize(states.float() if states.dtype != torch.float64 else states, dim=-1, eps=1e-5)


def _ipot(cost_BPR: Tensor, text_real_BP: Tensor, regions_real_BR: Tensor, beta: float, steps: int) -> Tensor:
    """The transport plan (B, R, P): uniform marginals over the real entries, mass 1."""
    real_BRP = regions_real_BR[:, :, None] & text_real_BP[:, None, :]
    num_text_B1 = text_real_BP.sum(1, keepdim=True).to(cost_BPR.dtype)
    num_regions_B1 = regions_real_BR.sum(1, keepdim=True).to(cost_BPR.dtype)
    kernel_BRP = torch.exp(-cost_BPR.transpose(1, 2) / beta).masked_fill(~real_BRP, 0)
    plan_BRP = real_BRP.to(cost_BPR.dtype)
    sigma_BP = text_real_BP / num_text_B1
    for _ in range(steps):
        scaled_BRP = kernel_BRP * plan_BRP
        delta_BR = _inverse(num_regions_B1 * torch.einsum("brp,bp->br", scaled_BRP, sigma_BP), regions_real_BR)
        sigma_BP = _inverse(num_text_B1 * torch.einsum("brp,br->bp", scaled_BRP, delta_BR), text_real_BP)
        plan_BRP = delta_BR[:, :, None] * scaled_BRP * sigma_BP[:, None, :]
    return plan_BRP


def _inverse(values: Tensor, real: Tensor) -> Tensor:
    """1 / values, and 0 at padding."""
    return torch.where(real, 1 / values.masked_fill(~real, 1), torch.zeros_like(values))
