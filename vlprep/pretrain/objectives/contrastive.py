"""Losses in which the true partner has to be told from others: of texts and clips in a batch, and of masked clips.

All are in float32, one loss a row, for the objective to add up; without rows they add up to 0 and keep the path of the
gradient, where the published UniVL gives NaN. MIL-NCE's own loss is in `mil_nce`.

Shape suffixes: N texts and clips, ordered video by video; B rows (videos in `middle_mil_nce`); S candidates; D feature
size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vlprep.pretrain.objectives.mil_nce import Contrast


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
    return predicted_BD.float() @ candidates_SD.float().t() / temperature


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
