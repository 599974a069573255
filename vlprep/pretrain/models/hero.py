"""HERO's two levels (Li et al. 2020; linjieli222/HERO model/model.py:129-250): a cross-modal transformer over each
narrated segment with its clips, then a temporal one over all clips of the video.

    frames = transform(features) + states of the same clips in the cross-modal transformer, summed over segments
    video  = temporal transformer(LN(frames + position))

This is the network of the frame-order task alone, with names of our own: HERO's checkpoints are not read.

Shape suffixes: T packed tokens of segments, F clips of whole videos, C clips in segments, M targets, D feature size, H
hidden size, P places.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor, nn

from vlprep.errors import SettingsError
from vlprep.pretrain.attention import Backend, Layout
from vlprep.pretrain.base import ClipInput, Inputs, StoreFacts
from vlprep.pretrain.embeddings import TextEmbeddings
from vlprep.pretrain.encoder import Encoder, EncoderConfig
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.clip_parts import ClipEmbeddings
from vlprep.pretrain.models.parts import initialise, interleave
from vlprep.pretrain.settings import TransformerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class HeroSettings(TransformerSettings):
    kind: Literal["hero"] = "hero"
    layers: int = 6
    """Of segments."""
    video_layers: int = 3
    """Of the temporal transformer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeroConfig:
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Of segments."""
    video_layers: int = 3
    """Of the temporal transformer."""
    vocabulary: int
    positions: int = 100
    """Of pieces, and of clips: the most that a video has."""
    clip_dim: int
    attention: Backend = "padded"


def hero_config(settings: HeroSettings, words: TextVocabulary, facts: StoreFacts) -> HeroConfig:
    """The network for a recipe and its stores."""
    if len(facts.clip_dims) != 1:
        raise SettingsError('model.kind hero reads one store of features: data.features = ["hero"], for example')
    return HeroConfig(
        encoder=settings.encoder(norm_eps=1e-5),
        video_layers=settings.video_layers,
        vocabulary=words.size,
        positions=settings.positions,
        clip_dim=facts.clip_dims[0],
        attention=settings.attention,
    )


@dataclass(frozen=True, slots=True)
class Told:
    """The narrated segments of some videos, text and clips."""

    segments: Inputs
    rows_C: Tensor
    """Which clip of the videos each clip of the segments is."""


class Hero(nn.Module):
    """Both transformers and the head that says where a clip belongs."""

    def __init__(self, config: HeroConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.encoder
        temporal = replace(sizes, layers=config.video_layers)
        self.words = TextEmbeddings(
            config.vocabulary,
            sizes.hidden,
            positions=config.positions,
            types=1,
            dropout=sizes.dropout,
            norm_eps=sizes.norm_eps,
        )
        self.clips = ClipEmbeddings(config.clip_dim, config.positions, sizes)
        self.cross_modal = Encoder(sizes)
        self.transform = nn.Sequential(
            nn.LayerNorm(config.clip_dim, eps=sizes.norm_eps),
            nn.Dropout(sizes.dropout),
            nn.Linear(config.clip_dim, sizes.hidden),
            nn.ReLU(),
        )
        self.places = nn.Embedding(config.positions, sizes.hidden)
        self.norm = nn.Sequential(nn.LayerNorm(sizes.hidden, eps=sizes.norm_eps), nn.Dropout(sizes.dropout))
        self.temporal = Encoder(temporal)
        self.order = nn.Sequential(
            nn.Linear(sizes.hidden, 2 * sizes.hidden),
            nn.GELU(),
            nn.LayerNorm(2 * sizes.hidden, eps=sizes.norm_eps),
            nn.Linear(2 * sizes.hidden, config.positions),
        )
        initialise(self, sizes.hidden)

    def encode(self, videos: Inputs, told: Told, order_F: Tensor) -> Tensor:
        """(F, H) states of the places of all videos; `order_F` says which clip stands there."""
        assert videos.clips is not None
        frames_FH = self._frames(videos.clips, told)[order_F]
        embedded_FH = self.norm(frames_FH + self.places(videos.clips.positions_C))
        states_FH: Tensor = self.temporal(embedded_FH, self._layout(videos.lengths_B))
        return states_FH

    def order_logits(self, states_MH: Tensor) -> Tensor:
        """(M, P) where a clip belongs."""
        logits_MP: Tensor = self.order(states_MH)
        return logits_MP

    def _frames(self, clips: ClipInput, told: Told) -> Tensor:
        """(F, H) clips in their own order, each with what is said."""
        segments = told.segments
        assert segments.text is not None
        assert segments.clips is not None
        dtype = self.places.weight.dtype
        embedded_CH = self.clips(segments.clips.features_CD.to(dtype), segments.clips.positions_C)
        packed_TH = interleave(
            [(self.words(segments.text), segments.text.slots_P), (embedded_CH, segments.clips.slots_C)]
        )
        states_TH = self.cross_modal(packed_TH, self._layout(segments.lengths_B))
        alone_FH: Tensor = self.transform(clips.features_CD.to(dtype))
        return alone_FH.index_add(0, told.rows_C, states_TH[segments.clips.slots_C].to(alone_FH.dtype))

    def _layout(self, lengths: Tensor) -> Layout:
        return Layout(lengths, self.places.weight.device, self.config.attention)
