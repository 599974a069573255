"""Losses in which the true partner has to be told from others: of texts and clips in a batch, and of masked clips.

All are in float32, one loss a row, for the objective to add up; without rows they add up to 0 and keep the path of the
gradient, where the published UniVL gives NaN.

Shape suffixes: N texts and clips, ordered video by video; B rows (videos in `middle_mil_nce`, clips of this process in
`mil_nce`); A clips of all processes; K candidate texts a clip; S candidates; D feature size; J joint size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vlprep.pretrain.distributed import gathered
from vlprep.pretrain.models.parts import dot_products

Positives = Literal["once", "twice"]


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two (B,) tensors."""

    loss_B: Tensor
    correct_B: Tensor
    """bool: the likeliest text of all is one of the clip's own."""


def nce(scores_BS: Tensor, positives_B: Tensor) -> Contrast:
    """-log softmax(scores)[positive], the positive given as a column."""
    scores_BS = scores_BS.float()
    return Contrast(F.cross_entropy(scores_BS, positives_B, reduction="none"), scores_BS.argmax(1) == positives_B)


def diagonal_nce(similarity_NN: Tensor) -> Contrast:
    """The text of each row against all videos; one direction only (UniVL until_module.py CrossEn, CBT's L_cross)."""
    return nce(similarity_NN, torch.arange(len(similarity_NN), device=similarity_NN.device))


def feature_scores(predicted_BD: Tensor, candidates_SD: Tensor, *, temperature: float = 1.0) -> Tensor:
    """(B, S) products of what was predicted at masked places with continuous features, for `nce`.

    The systems differ in their candidates: in UniVL all unmasked, normalised clips of the batch (modeling.py:278-297),
    in CBT all embedded ones; in HERO the true features of the masked frames and then the *predictions* at the unmasked
    ones (model/model.py:239-289). Gradients reach the candidates.
    """
    return dot_products(predicted_BD, candidates_SD) / temperature


def middle_mil_nce(similarity_NN: Tensor, *, pairs: int) -> Contrast:
    """UniVL's MIL-NCE (until_module.py:193-221) of texts (rows) and clips (columns), `pairs` of each video.

    With m the middle pair of video b:

        L_b = -log [ sum_{k in b} e^S[k, m] / ( sum_j e^S[j, m] + sum_{j not in b} e^S[m, j] ) ]

    Positives count once. The other rows of a video serve as positives and negatives only, as published. Correct is the
    middle text whose likeliest clip is one of its video's.
    """
    similarity_NN = similarity_NN.float()
    videos = torch.arange(len(similarity_NN) // pairs, device=similarity_NN.device)
    own_BN = videos[:, None] == videos.repeat_interleave(pairs)[None]
    texts_BN, clips_BN = similarity_NN.t()[pairs // 2 :: pairs], similarity_NN[pairs // 2 :: pairs]
    positives_B = texts_BN.masked_fill(~own_BN, -torch.inf).logsumexp(1)
    every_B = torch.cat([texts_BN, clips_BN.masked_fill(own_BN, -torch.inf)], dim=1).logsumexp(1)
    return Contrast(every_B - positives_B, clips_BN.argmax(1) // pairs == videos)


def mil_nce(clips_BJ: Tensor, texts_BKJ: Tensor, *, positives: Positives, gather: bool) -> Contrast:
    """MIL-NCE's loss of each clip (Miech et al. 2020, MIL-NCE_HowTo100M@b282b15 loss.py) against candidate texts.

    With x_ijk = v_i . t_jk, the dot product of clip i and candidate k of clip j, neither normalised:

        L_i = log( sum_jk e^x_ijk + sum_jk e^x_jik  -  sum_k e^x_iik )  -  log sum_k e^x_iik

    This is the paper's. The published code does not subtract the positives that the two sums share: they count twice,
    and the loss cannot fall below log 2. With `gather` sums over j are over the clips of all processes, which must all
    call this.
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
