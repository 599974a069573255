"""UniVL (Luo et al. 2020): a text and a video encoder, a cross encoder over both, and a decoder that writes the text.

Parameter names are those of `univl.pretrained.bin` (microsoft/UniVL modules/modeling.py), less its five second names of
tied tensors. In its first stage the model is the two encoders alone. The features' LayerNorm is trained and stands
before everything, the targets of masked clips included; masked features are zero before it.

Shape suffixes: P text pieces or pieces of captions, C clips, T tokens of packed pairs, B sequences, M positions, D
feature size, H hidden size, W words.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from vlprep.errors import SettingsError
from vlprep.pretrain.attention import Backend, Layout
from vlprep.pretrain.base import ClipInput, Inputs, StoreFacts, TextInput
from vlprep.pretrain.decoder import TextDecoder
from vlprep.pretrain.embeddings import TextEmbeddings
from vlprep.pretrain.encoder import Encoder, EncoderConfig
from vlprep.pretrain.heads import Pooler, WordHead
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.clip_parts import (
    ClipEmbeddings,
    ClipStreams,
    CrossEncoder,
    PairStates,
    every_pair,
    means,
    standardise,
)
from vlprep.pretrain.models.parts import dot_products, initialise
from vlprep.pretrain.settings import ClipModelSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class UnivlSettings(ClipModelSettings):
    kind: Literal["univl"] = "univl"
    video_layers: int = 6
    """Of the clips."""
    cross_layers: int = 2
    """That look across text and clips; 0 in the first stage."""
    decoder_layers: int = 3
    """That write the text; 0 in the first stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnivlConfig:
    """Sizes of the network; without cross and decoder layers it is that of the first stage."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    video_layers: int = 6
    cross_layers: int = 2
    decoder_layers: int = 3
    vocabulary: int
    positions: int = 512
    """Of texts and of clips; the cross encoder has twice as many."""
    text_places: int = 48
    """That the cross encoder keeps for a text, special pieces included."""
    clip_dim: int = 1024
    attention: Backend = "padded"

    def __post_init__(self) -> None:
        if bool(self.cross_layers) != bool(self.decoder_layers):
            raise SettingsError("model.cross_layers and model.decoder_layers are both 0 (stage one) or neither is")


def univl_config(settings: UnivlSettings, words: TextVocabulary, facts: StoreFacts) -> UnivlConfig:
    """The network for a recipe and its stores."""
    if len(facts.clip_dims) != 1:
        raise SettingsError('model.kind univl reads one store of features: data.features = ["s3d"], for example')
    return UnivlConfig(
        encoder=settings.encoder(),
        video_layers=settings.video_layers,
        cross_layers=settings.cross_layers,
        decoder_layers=settings.decoder_layers,
        vocabulary=words.size,
        positions=settings.positions,
        text_places=settings.text_places,
        clip_dim=facts.clip_dims[0],
        attention=settings.attention,
    )


class Univl(nn.Module):
    """The network with the heads of its five pretraining tasks."""

    def __init__(self, config: UnivlConfig) -> None:
        super().__init__()
        self.config = config
        text = config.encoder
        hidden, eps = text.hidden, text.norm_eps
        video = replace(text, layers=config.video_layers)
        self.bert = nn.ModuleDict(
            {
                "embeddings": TextEmbeddings(
                    config.vocabulary, hidden, positions=config.positions, types=2, dropout=text.dropout, norm_eps=eps
                ),
                "encoder": Encoder(text),
                "pooler": Pooler(hidden),
            }
        )
        self.visual = nn.ModuleDict(
            {
                "embeddings": ClipEmbeddings(config.clip_dim, config.positions, video),
                "encoder": Encoder(video),
                "pooler": Pooler(hidden),
            }
        )
        self.normalize_video = nn.ModuleDict({"visual_norm2d": nn.LayerNorm(config.clip_dim, eps=eps)})
        if config.cross_layers:
            self.cross = CrossEncoder(
                replace(text, layers=config.cross_layers),
                positions=2 * config.positions,
                text_places=config.text_places,
                backend=config.attention,
            )
            self.decoder = TextDecoder(config.vocabulary, replace(text, layers=config.decoder_layers))
            self.cls = nn.ModuleDict({"predictions": WordHead(config.vocabulary, hidden, eps)})
            self.cls_visual = nn.ModuleDict({"predictions": WordHead(config.clip_dim, hidden, eps)})
            self.similarity_dense = nn.Linear(hidden, 1)
        initialise(self, hidden)

    def standardise_clips(self, features_CD: Tensor, spread: float) -> None:
        """Begin with clips centred and of this spread, given features as they are stored."""
        standardise(self._norm, features_CD, spread)

    def clip_features(self, clips: ClipInput, *, hide: bool = False) -> Tensor:
        """(C, D) normalised features; with `hide`, what is masked is zero before that."""
        dtype = self._norm.weight.dtype
        features_CD: Tensor = self._norm(clips.visible_features(dtype) if hide else clips.features_CD.to(dtype))
        return features_CD

    def encode(self, inputs: Inputs, features_CD: Tensor) -> ClipStreams:
        """Texts and videos, each alone; `features_CD` from `clip_features`."""
        assert inputs.text is not None
        assert inputs.clips is not None
        return ClipStreams(self.encode_texts(inputs.text), self.encode_clips(inputs.clips, features_CD))

    def encode_texts(self, text: TextInput) -> Tensor:
        """(P, H)."""
        embedded_PH = self.bert["embeddings"](text)
        states_PH: Tensor = self.bert["encoder"](embedded_PH, self._layout(text.lengths_B, embedded_PH))
        return states_PH

    def encode_clips(self, clips: ClipInput, features_CD: Tensor) -> Tensor:
        """(C, H)."""
        embedded_CH = self.visual["embeddings"](features_CD, clips.positions_C)
        states_CH: Tensor = self.visual["encoder"](embedded_CH, self._layout(clips.lengths_B, embedded_CH))
        return states_CH

    def similarity(self, streams: ClipStreams, inputs: Inputs) -> Tensor:
        """(B, B) dot products of mean states, text by video; [CLS] is left out, [SEP] is not (modeling.py:327-339)."""
        assert inputs.text is not None
        assert inputs.clips is not None
        texts_BH = means(streams.text_PH, inputs.text.lengths_B, skip=1)
        return dot_products(texts_BH, means(streams.clips_CH, inputs.clips.lengths_B))

    def embed_text(self, inputs: Inputs) -> Tensor:
        """(B, H) the mean states that `similarity` multiplies."""
        assert inputs.text is not None
        return means(self.encode_texts(inputs.text), inputs.text.lengths_B, skip=1)

    def embed_video(self, inputs: Inputs) -> Tensor:
        """(B, H)."""
        assert inputs.clips is not None
        return means(self.encode_clips(inputs.clips, self.clip_features(inputs.clips)), inputs.clips.lengths_B)

    def pairs(self, streams: ClipStreams, inputs: Inputs) -> PairStates:
        """Each text with its own video, packed as the inputs are."""
        own = torch.arange(len(inputs.lengths_B))
        states: PairStates = self.cross(streams, inputs, own, own)
        return states

    def alignment(self, streams: ClipStreams, inputs: Inputs) -> Tensor:
        """(B, B) how well each text fits each video, by the cross encoder (341-375)."""
        count = len(inputs.lengths_B)
        pooled_NH = self.cross.pooled(self.cross(streams, inputs, *every_pair(count)))
        logits_BB: Tensor = self.similarity_dense(pooled_NH).view(count, count)
        return logits_BB

    def word_logits(self, states_MH: Tensor) -> Tensor:
        """(M, W) over text pieces."""
        logits_MW: Tensor = self.cls["predictions"](states_MH, self._words)
        return logits_MW

    def predicted_features(self, states_MH: Tensor) -> Tensor:
        """(M, D) what a masked clip's normalised feature points to."""
        predicted_MD: Tensor = self.cls_visual["predictions"](states_MH, self._clips.word_embeddings.weight.t())
        return predicted_MD

    def caption_logits(self, captions: TextInput, real_B: Tensor, pairs: PairStates) -> Tensor:
        """(P, W) of the piece that follows each of the captions'; see `TextDecoder`."""
        positions = self._text.position_embeddings.weight
        logits_PW: Tensor = self.decoder(captions, real_B, pairs.states_TH, pairs.layout, self._words, positions)
        return logits_PW

    def _layout(self, lengths_B: Tensor, states: Tensor) -> Layout:
        return Layout(lengths_B, states.device, self.config.attention)

    @property
    def _text(self) -> TextEmbeddings:
        embeddings = self.bert["embeddings"]
        assert isinstance(embeddings, TextEmbeddings)
        return embeddings

    @property
    def _norm(self) -> nn.LayerNorm:
        norm = self.normalize_video["visual_norm2d"]
        assert isinstance(norm, nn.LayerNorm)
        return norm

    @property
    def _clips(self) -> ClipEmbeddings:
        embeddings = self.visual["embeddings"]
        assert isinstance(embeddings, ClipEmbeddings)
        return embeddings

    @property
    def _words(self) -> Tensor:
        return self._text.word_embeddings.weight
