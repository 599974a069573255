"""One transformer over text and what is seen: UNITER (regions) and VideoBERT (visual tokens).

Parameter names are BERT's (`bert.embeddings`, `bert.encoder`, `bert.pooler`, `cls.predictions`) and UNITER's for the
rest, so that `bert.` <-> `uniter.` is the whole difference to `uniter-base.pt`, less its doubled tied weights.

Shape suffixes: T packed tokens, B sequences, M positions, H hidden size, D feature size, W words or classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from vlprep.errors import SettingsError
from vlprep.pretrain.attention import Backend, Layout
from vlprep.pretrain.base import Inputs, StoreFacts
from vlprep.pretrain.embeddings import (
    VISUAL_TYPE,
    RegionEmbeddings,
    TextEmbeddings,
    VisualTokenEmbeddings,
)
from vlprep.pretrain.encoder import Encoder, EncoderConfig
from vlprep.pretrain.heads import ClassHead, FeatureHead, Pooler, WordHead
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.parts import centre, first_states, initialise, interleave
from vlprep.pretrain.settings import RegionModelSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleStreamSettings(RegionModelSettings):
    """UNITER, VideoBERT."""

    kind: Literal["single-stream"] = "single-stream"
    freeze_centroids: bool = False
    """Visual token embeddings stay the vocabulary's centroids (VideoBERT)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleStreamConfig:
    """Which inputs and outputs the network has; 0 leaves a part out."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    vocabulary: int
    """Text pieces."""
    positions: int = 512
    types: int = 2
    region_dim: int = 0
    """Size of a region feature."""
    region_classes: int = 0
    """Foreground classes and background, which comes first."""
    visual_vocabulary: int = 0
    """Visual tokens (20 736)."""
    centroid_dim: int = 0
    """Size of the visual vocabulary's centroids, where they are the (projected) embeddings of visual tokens."""
    freeze_centroids: bool = False
    attention: Backend = "padded"


def single_stream_config(
    settings: SingleStreamSettings, words: TextVocabulary, facts: StoreFacts
) -> SingleStreamConfig:
    """The network for a recipe and its stores."""
    return SingleStreamConfig(
        encoder=settings.encoder(),
        vocabulary=words.size,
        positions=settings.positions,
        region_dim=facts.region_dim,
        region_classes=facts.num_classes + 1 if facts.num_classes else 0,
        visual_vocabulary=facts.visual_vocabulary,
        centroid_dim=facts.centroid_dim,
        freeze_centroids=settings.freeze_centroids,
        attention=settings.attention,
    )


class SingleStream(nn.Module):
    """Embeddings, encoder and every head that the objectives of these systems use."""

    def __init__(self, config: SingleStreamConfig) -> None:
        super().__init__()
        self.config = config
        sizes, hidden, eps = config.encoder, config.encoder.hidden, config.encoder.norm_eps
        self.bert = nn.ModuleDict(
            {
                "embeddings": TextEmbeddings(
                    config.vocabulary,
                    hidden,
                    positions=config.positions,
                    types=config.types,
                    dropout=sizes.dropout,
                    norm_eps=eps,
                ),
                "encoder": Encoder(sizes),
                "pooler": Pooler(hidden),
            }
        )
        self.cls = nn.ModuleDict({"predictions": WordHead(config.vocabulary, hidden, eps)})
        self.itm_output = nn.Linear(hidden, 2)
        if config.region_dim:
            self.bert["img_embeddings"] = RegionEmbeddings(
                config.region_dim, hidden, dropout=sizes.dropout, norm_eps=eps
            )
            self.feat_regress = FeatureHead(config.region_dim, hidden, eps)
            if config.region_classes:
                self.region_classifier = ClassHead(config.region_classes, hidden, eps)
        if config.visual_vocabulary:
            self.bert["visual_embeddings"] = VisualTokenEmbeddings(
                config.visual_vocabulary,
                hidden,
                centroid_dim=config.centroid_dim or None,
                frozen=config.freeze_centroids,
            )
            self.cls["visual_predictions"] = ClassHead(config.visual_vocabulary, hidden, eps)
        initialise(self, hidden)

    def centre_regions(self, mean_D: Tensor) -> None:
        """Begin with the mean feature as zero on the way in, and as the prediction on the way out.

        Without it the regression of features first spends its weights, which are those of the input, on the mean.
        """
        embeddings = self._part("img_embeddings", "regions")
        assert isinstance(embeddings, RegionEmbeddings)
        centre(embeddings.img_linear, mean_D)
        with torch.no_grad():
            self.feat_regress.bias.copy_(mean_D)

    def encode(self, inputs: Inputs) -> Tensor:
        """The last layer's states of the packed sequences, (T, H)."""
        parts = []
        types: Tensor = self._text.token_type_embeddings.weight
        if inputs.text is not None:
            parts.append((self._text(inputs.text), inputs.text.slots_P))
        if inputs.regions is not None:
            regions_RH = self._part("img_embeddings", "regions")(inputs.regions, types[VISUAL_TYPE])
            parts.append((regions_RH, inputs.regions.slots_R))
        if inputs.visual_tokens is not None:
            visual = inputs.visual_tokens
            words_VH = self._part("visual_embeddings", "visual tokens")(visual.ids_V)
            place_VH = self._text.position_embeddings(visual.positions_V)
            parts.append((self._text.finish(words_VH + place_VH + types[VISUAL_TYPE]), visual.slots_V))
        packed_TH = interleave(parts)
        layout = Layout(inputs.lengths_B, packed_TH.device, self.config.attention)
        states_TH: Tensor = self.bert["encoder"](packed_TH, layout)
        return states_TH

    def pooled(self, states_TH: Tensor, inputs: Inputs) -> Tensor:
        """tanh-pooled state of each sequence's first token, (B, H)."""
        pooled_BH: Tensor = self.bert["pooler"](first_states(states_TH, inputs.lengths_B))
        return pooled_BH

    def word_logits(self, states_MH: Tensor) -> Tensor:
        """(M, W) over text pieces."""
        logits_MW: Tensor = self.cls["predictions"](states_MH, self._text.word_embeddings.weight)
        return logits_MW

    def visual_logits(self, states_MH: Tensor) -> Tensor:
        """(M, W) over visual tokens."""
        logits_MW: Tensor = self.cls["visual_predictions"](states_MH)
        return logits_MW

    def region_features(self, states_MH: Tensor) -> Tensor:
        """(M, D) predicted features."""
        embeddings = self._part("img_embeddings", "regions")
        assert isinstance(embeddings, RegionEmbeddings)
        predicted_MD: Tensor = self.feat_regress(states_MH, embeddings.img_linear.weight)
        return predicted_MD

    def region_logits(self, states_MH: Tensor) -> Tensor:
        """(M, W) over background and classes."""
        logits_MW: Tensor = self.region_classifier(states_MH)
        return logits_MW

    def match_logits(self, pooled_BH: Tensor) -> Tensor:
        """(B, 2): column 1 is a match."""
        logits_B2: Tensor = self.itm_output(pooled_BH)
        return logits_B2

    @property
    def _text(self) -> TextEmbeddings:
        embeddings = self.bert["embeddings"]
        assert isinstance(embeddings, TextEmbeddings)
        return embeddings

    def _part(self, name: str, what: str) -> nn.Module:
        if name not in self.bert:
            raise SettingsError(f"this model was built without {what}, but the batch holds some")
        return self.bert[name]
