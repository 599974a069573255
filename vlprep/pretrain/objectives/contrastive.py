"""Losses in which the true partner has to be told from others: of videos and texts, and of masked frames.

All return one loss a row, in float32, for the objective to add up; without rows they add up to 0 and keep the path of
the gradient, where the published UniVL gives NaN.

Shape suffixes: N clips with their texts, ordered video by video; V videos; M masked frames; S candidates; D feature
size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def middle_milnce(similarity_NN: Tensor, pairs: int) -> Tensor:
    """(V,) UniVL's MIL-NCE (until_module.py:193-221) of texts (rows) and clips (columns), `pairs` of each video.

    With m the middle pair of video b:

        L_b = -log [ sum_{k in b} e^S[k, m] / ( sum_j e^S[j, m] + sum_{j not in b} e^S[m, j] ) ]

    Positives count once. The other rows of a video serve as positives and negatives only, as published.
    """
    similarity_NN = similarity_NN.float()
    videos = len(similarity_NN) // pairs
    video_N = torch.arange(videos, device=similarity_NN.device).repeat_interleave(pairs)
    own_VN = video_N[None, :] == torch.arange(videos, device=similarity_NN.device)[:, None]
    texts_VN, clips_VN = similarity_NN.t()[pairs // 2 :: pairs], similarity_NN[pairs // 2 :: pairs]
    positives_V = texts_VN.masked_fill(~own_VN, -torch.inf).logsumexp(1)
    everything_V2N = torch.cat([texts_VN, clips_VN.masked_fill(own_VN, -torch.inf)], dim=1)
    return everything_V2N.logsumexp(1) - positives_V


def diagonal_nce(similarity_NN: Tensor) -> Tensor:
    """(N,) -log softmax(row)[diagonal], one direction only (UniVL until_module.py CrossEn, CBT's L_cross)."""
    similarity_NN = similarity_NN.float()
    return F.cross_entropy(
        similarity_NN, torch.arange(len(similarity_NN), device=similarity_NN.device), reduction="none"
    )


def feature_nce(predicted_MD: Tensor, candidates_SD: Tensor, positives_M: Tensor, temperature: float = 1.0) -> Tensor:
    """(M,) -log softmax(prediction . candidates / temperature)[positive], the positive given as a row.

    What the candidates are is the system's: all frames of the batch, normalised and unmasked, in UniVL (modeling.py
    :278-297); the true features of the masked frames and then the *predictions* at the unmasked ones in HERO (model/
    model.py:239-289); what stands at the masked places in CBT. Gradients reach the candidates.
    """
    logits_MS = predicted_MD.float() @ candidates_SD.float().t() / temperature
    return F.cross_entropy(logits_MS, positives_M, reduction="none")
