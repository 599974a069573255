"""CBT (Sun et al. 2019): a frozen BERT, a transformer over clips, and a shallow one that estimates how much both tell
of each other.

No code or weights were published; reference/training.md §1.9 has the paper as it is remembered, unverified. From the
paper: the text encoder is a pretrained BERT and stays as it is; clips are continuous S3D features; the cross-modal
transformer has one layer over both encoders' states, with a linear output. Decided here: features are normalised as
UniVL's are, and zero before that where they are masked; a clip's target is its embedding without position, so that
predictions and targets are of one width and nothing is added on top of the visual transformer; the cross encoder is
UniVL's, whose pooled first state the output reads. Nothing here trains the text encoder: without `model.init` it is a
random projection that tells words apart but not what they mean.

Shape suffixes: P text pieces, C clips, N pairs, D feature size, H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from vlprep.errors import SettingsError
from vlprep.pretrain.attention import Backend, Layout
from vlprep.pretrain.base import ClipInput, Inputs, StoreFacts, TextInput
from vlprep.pretrain.embeddings import TextEmbeddings
from vlprep.pretrain.encoder import Encoder, EncoderConfig
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.clip_parts import ClipEmbeddings, ClipStreams, CrossEncoder, standardise
from vlprep.pretrain.models.parts import initialise
from vlprep.pretrain.settings import ClipModelSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class CbtSettings(ClipModelSettings):
    kind: Literal["cbt"] = "cbt"
    video_layers: int = 2
    """Of the clips."""
    cross_layers: int = 1
    """That look across text and clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CbtConfig:
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Of the text; clips and both together have its sizes."""
    video_layers: int = 2
    cross_layers: int = 1
    vocabulary: int
    positions: int = 512
    text_places: int = 48
    clip_dim: int = 1024
    attention: Backend = "padded"


def cbt_config(settings: CbtSettings, words: TextVocabulary, facts: StoreFacts) -> CbtConfig:
    """The network for a recipe and its stores."""
    if len(facts.clip_dims) != 1:
        raise SettingsError('model.kind cbt reads one store of features: data.features = ["s3d"], for example')
    return CbtConfig(
        encoder=settings.encoder(),
        video_layers=settings.video_layers,
        cross_layers=settings.cross_layers,
        vocabulary=words.size,
        positions=settings.positions,
        text_places=settings.text_places,
        clip_dim=facts.clip_dims[0],
        attention=settings.attention,
    )


class Cbt(nn.Module):
    """The three transformers and the estimate of mutual information."""

    def __init__(self, config: CbtConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.encoder
        frozen, video = replace(sizes, dropout=0.0, attention_dropout=0.0), replace(sizes, layers=config.video_layers)
        self.bert = nn.ModuleDict(
            {
                "embeddings": TextEmbeddings(
                    config.vocabulary,
                    sizes.hidden,
                    positions=config.positions,
                    types=2,
                    dropout=0.0,
                    norm_eps=sizes.norm_eps,
                ),
                "encoder": Encoder(frozen),
            }
        ).requires_grad_(False)
        self.visual = nn.ModuleDict(
            {
                "norm": nn.LayerNorm(config.clip_dim, eps=sizes.norm_eps),
                "embeddings": ClipEmbeddings(config.clip_dim, config.positions, video),
                "encoder": Encoder(video),
            }
        )
        self.cross = CrossEncoder(
            replace(sizes, layers=config.cross_layers),
            positions=2 * config.positions,
            text_places=config.text_places,
            backend=config.attention,
        )
        self.mutual_information = nn.Linear(sizes.hidden, 1)
        initialise(self, sizes.hidden)

    def encode_texts(self, text: TextInput) -> Tensor:
        """(P, H), without gradient."""
        with torch.no_grad():
            states_PH: Tensor = self.bert["encoder"](self.bert["embeddings"](text), self._layout(text.lengths_B))
        return states_PH

    def standardise_clips(self, features_CD: Tensor, spread: float) -> None:
        """Begin with clips centred and of this spread, given features as they are stored."""
        standardise(self._norm, features_CD, spread)

    def clip_targets(self, clips: ClipInput) -> Tensor:
        """(C, H) what masked clips are to be found by: their embeddings without place."""
        targets_CH: Tensor = self._clips.word_embeddings(self._norm(clips.features_CD.to(self._dtype)))
        return targets_CH

    def encode_clips(self, clips: ClipInput, *, hide: bool = False) -> Tensor:
        """(C, H); with `hide`, masked clips are zero."""
        features_CD = clips.visible_features(self._dtype) if hide else clips.features_CD.to(self._dtype)
        embedded_CH = self._clips(self._norm(features_CD), clips.positions_C)
        states_CH: Tensor = self.visual["encoder"](embedded_CH, self._layout(clips.lengths_B))
        return states_CH

    def information(self, streams: ClipStreams, inputs: Inputs, texts_N: Tensor, videos_N: Tensor) -> Tensor:
        """(N,) what a text and a video tell of each other, of pairs given by their places in the batch."""
        pooled_NH = self.cross.pooled(self.cross(streams, inputs, texts_N, videos_N))
        estimated_N: Tensor = self.mutual_information(pooled_NH)[:, 0]
        return estimated_N

    def _layout(self, lengths_B: Tensor) -> Layout:
        return Layout(lengths_B, self.mutual_information.weight.device, self.config.attention)

    @property
    def _dtype(self) -> torch.dtype:
        return self.mutual_information.weight.dtype

    @property
    def _norm(self) -> nn.LayerNorm:
        norm = self.visual["norm"]
        assert isinstance(norm, nn.LayerNorm)
        return norm

    @property
    def _clips(self) -> ClipEmbeddings:
        embeddings = self.visual["embeddings"]
        assert isinstance(embeddings, ClipEmbeddings)
        return embeddings
