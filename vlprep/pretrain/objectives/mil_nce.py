"""The loss of MIL-NCE (Miech et al. 2020, MIL-NCE_HowTo100M@b282b15 loss.py): a clip against several candidate texts.

With x_ijk = v_i . t_jk, the dot product of clip i and candidate k of clip j, neither normalised:

    L = mean_i  log( sum_jk e^x_ijk + sum_jk e^x_jik  -  sum_k e^x_iik )  -  log sum_k e^x_iik

This is the paper's. The published code does not subtract the positives that the two sums share: they count twice, and
the loss cannot fall below log 2. Sums over j are over the clips of all processes.

Shape suffixes: B clips of this process, A clips of all processes, K candidates a clip, J joint size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vlprep.pretrain.distributed import gathered

Positives = Literal["once", "twice"]


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two (B,) tensors."""

    loss_B: Tensor
    correct_B: Tensor
    """bool: the likeliest text of all is one of the clip's own."""


def mil_nce(clips_BJ: Tensor, texts_BKJ: Tensor, *, positives: Positives, gather: bool) -> Contrast:
    """Each clip's loss, in float32. With `gather` the clips of all processes, which must all call this, are its
    negatives.
    """
    with torch.autocast(clips_BJ.device.type, enabled=False):
        return _contrast(clips_BJ.float(), texts_BKJ.float(), positives, gather)


def _contrast(clips_BJ: Tensor, texts_BKJ: Tensor, positives: Positives, gather: bool) -> Contrast:
    clips_AJ, own = gathered(clips_BJ) if gather else (clips_BJ, slice(0, len(clips_BJ)))
    texts_AKJ = gathered(texts_BKJ)[0] if gather else texts_BKJ
    to_texts_BAK = torch.einsum("bj,akj->bak", clips_BJ, texts_AKJ)
    to_clips_BAK = torch.einsum("aj,bkj->bak", clips_AJ, texts_BKJ)
    each = torch.arange(len(clips_BJ), device=clips_BJ.device)
    positive_B = to_texts_BAK[each, each + own.start].logsumexp(1)
    if positives == "once":
        is_own_BA = torch.zeros(to_clips_BAK.shape[:2], dtype=torch.bool, device=clips_BJ.device)
        is_own_BA[each, each + own.start] = True
        to_clips_BAK = to_clips_BAK.masked_fill(is_own_BA[:, :, None], -torch.inf)
    every_B = torch.cat([to_texts_BAK, to_clips_BAK], dim=1).flatten(1).logsumexp(1)
    correct_B = to_texts_BAK.amax(2).argmax(1) == each + own.start
    return Contrast(every_B - positive_B, correct_B)
