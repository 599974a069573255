"""What the models that read continuous clips share: their embeddings, the encoder across text and clips, the means.

Parameter names are UniVL's (microsoft/UniVL modules/module_visual.py, module_cross.py).

Shape suffixes: P text pieces, C clips, T tokens of packed pairs, B sequences, N pairs, D feature size, H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlprep.pretrain.attention import Backend, Layout
from vlprep.pretrain.base import Inputs
from vlprep.pretrain.embeddings import TEXT_TYPE, VISUAL_TYPE
from vlprep.pretrain.encoder import Encoder, EncoderConfig
from vlprep.pretrain.heads import Pooler
from vlprep.pretrain.models.parts import first_states


@dataclass(frozen=True, slots=True)
class ClipStreams:
    """States of texts and clips, each encoded alone."""

    text_PH: Tensor
    clips_CH: Tensor


@dataclass(frozen=True, slots=True)
class PairStates:
    """States of pairs, a text's pieces and then a video's clips."""

    states_TH: Tensor
    layout: Layout


class ClipEmbeddings(nn.Module):
    """LN(W feature + position), dropout; the published name of W is `word_embeddings`."""

    def __init__(self, feature_dim: int, positions: int, sizes: EncoderConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Linear(feature_dim, sizes.hidden)
        self.position_embeddings = nn.Embedding(positions, sizes.hidden)
        self.LayerNorm = nn.LayerNorm(sizes.hidden, eps=sizes.norm_eps)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, features_CD: Tensor, positions_C: Tensor) -> Tensor:
        """(C, H)."""
        summed_CH = self.word_embeddings(features_CD) + self.position_embeddings(positions_C)
        embedded_CH: Tensor = self.dropout(self.LayerNorm(summed_CH))
        return embedded_CH


def standardise(norm: nn.LayerNorm, features_CD: Tensor, spread: float) -> None:
    """Let what the layer makes of these features begin centred and of this standard deviation. Pooled features share
    most of their length, and what tells one from another would be a small part of what comes in.
    """
    with torch.no_grad():
        normalised_CD = norm(features_CD)
        mean_D = normalised_CD.mean(0)
        factor = spread / (normalised_CD - mean_D).std().clamp(min=1e-6)
        norm.weight.mul_(factor)
        norm.bias.copy_((norm.bias - mean_D) * factor)


class CrossEncoder(nn.Module):
    """A transformer over the states of a text and of clips: LN(state + position + type), layers, tanh pooler.

    Clips stand from place `text_places` on, however short their text is, as behind the published padding.
    """

    def __init__(self, sizes: EncoderConfig, *, positions: int, text_places: int, backend: Backend) -> None:
        super().__init__()
        self.text_places, self.backend = text_places, backend
        self.embeddings = _CrossEmbeddings(sizes, positions)
        self.encoder = Encoder(sizes)
        self.pooler = Pooler(sizes.hidden)

    def forward(self, streams: ClipStreams, inputs: Inputs, texts_N: Tensor, videos_N: Tensor) -> PairStates:
        """States of pairs of a text and a video, given by their places in the batch (on the CPU)."""
        assert inputs.text is not None
        assert inputs.clips is not None
        positions = torch.cat([inputs.text.positions_P, self.text_places + inputs.clips.positions_C])
        types = torch.full_like(positions, TEXT_TYPE)
        types[len(streams.text_PH) :] = VISUAL_TYPE
        rows_T, lengths_N = pair_rows(inputs.text.lengths_B, inputs.clips.lengths_B, texts_N, videos_N)
        rows_T = rows_T.to(positions.device, non_blocking=True)
        together = torch.cat([streams.text_PH, streams.clips_CH])
        embedded_TH = self.embeddings(together[rows_T], positions[rows_T], types[rows_T])
        layout = Layout(lengths_N, embedded_TH.device, self.backend)
        return PairStates(self.encoder(embedded_TH, layout), layout)

    def pooled(self, pairs: PairStates) -> Tensor:
        """(N, H) tanh-pooled state of each pair's first piece."""
        pooled_NH: Tensor = self.pooler(first_states(pairs.states_TH, pairs.layout.lengths_B))
        return pooled_NH


class _CrossEmbeddings(nn.Module):
    def __init__(self, sizes: EncoderConfig, positions: int) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(positions, sizes.hidden)
        self.token_type_embeddings = nn.Embedding(2, sizes.hidden)
        self.LayerNorm = nn.LayerNorm(sizes.hidden, eps=sizes.norm_eps)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, states_TH: Tensor, positions_T: Tensor, types_T: Tensor) -> Tensor:
        place_TH = self.position_embeddings(positions_T) + self.token_type_embeddings(types_T)
        embedded_TH: Tensor = self.dropout(self.LayerNorm(states_TH + place_TH))
        return embedded_TH


def pair_rows(text_B: Tensor, clips_B: Tensor, texts_N: Tensor, videos_N: Tensor) -> tuple[Tensor, Tensor]:
    """(T,) rows of all texts and then all clips, pair after pair, and the pairs' lengths (N,); all on the CPU.

    `text_B` and `clips_B` are how many rows each text and each video has.
    """
    lengths_S = torch.cat([text_B, clips_B])
    starts_S = lengths_S.cumsum(0) - lengths_S
    chosen = torch.stack([texts_N, len(text_B) + videos_N], dim=1).flatten()
    counts = lengths_S[chosen]
    offsets = starts_S[chosen] - (counts.cumsum(0) - counts)
    rows_T = offsets.repeat_interleave(counts) + torch.arange(int(counts.sum()))
    return rows_T, counts.view(-1, 2).sum(1)


def every_pair(count: int) -> tuple[Tensor, Tensor]:
    """All texts with all videos: places of the texts and of the videos, a text's pairs in a row."""
    places = torch.arange(count)
    return places.repeat_interleave(count), places.repeat(count)


def means(states_TH: Tensor, lengths_B: Tensor, *, skip: int = 0) -> Tensor:
    """(B, H) mean state of each sequence without its first `skip`; zeros where none is left. `lengths_B` on the CPU."""
    starts_B = lengths_B.cumsum(0) - lengths_B
    counts_B = (lengths_B - skip).clamp(min=0)
    sequence = torch.arange(len(lengths_B)).repeat_interleave(counts_B)
    rows = torch.arange(int(counts_B.sum())) + (starts_B + skip - (counts_B.cumsum(0) - counts_B))[sequence]
    device = states_TH.device
    sums_BH = states_TH.new_zeros(len(lengths_B), states_TH.shape[1])
    sums_BH = sums_BH.index_add(0, sequence.to(device), states_TH[rows.to(device)])
    return sums_BH / counts_B.clamp(min=1)[:, None].to(device)
