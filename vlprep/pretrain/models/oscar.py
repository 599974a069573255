"""Oscar and Oscar+ (Li et al. 2020, Zhang et al. 2021): a BERT over caption, object tags and regions.

Parameter names are those of Oscar's checkpoint directories (microsoft/Oscar oscar/modeling/modeling_bert.py:177-269). A
region is one linear layer of its feature and its box (2048 + 6), with dropout and neither type nor position; Oscar+ can
normalise it (`--use_img_layernorm`).

Shape suffixes: T packed tokens, B sequences, R regions, M positions, H hidden size, D feature size, W words, C contrast
classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vlprep.errors import SettingsError
from vlprep.pretrain.attention import Backend, Layout
from vlprep.pretrain.base import Inputs, RegionInput, StoreFacts
from vlprep.pretrain.embeddings import TextEmbeddings
from vlprep.pretrain.encoder import Encoder, EncoderConfig
from vlprep.pretrain.heads import Pooler, WordHead
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.parts import centre, first_states, initialise, interleave
from vlprep.pretrain.settings import RegionModelSettings

_BOX = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class OscarSettings(RegionModelSettings):
    kind: Literal["oscar"] = "oscar"
    contrast_classes: Literal[2, 3] = 3
    """3 tell wrong tags from a wrong caption (Oscar+)."""
    normalise_regions: bool = False
    """LayerNorm on embedded regions (Oscar+)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OscarConfig:
    encoder: EncoderConfig
    vocabulary: int
    positions: int = 512
    region_dim: int
    contrast_classes: int = 3
    """2 in Oscar, 3 in Oscar+."""
    normalise_regions: bool = False
    attention: Backend = "padded"


def oscar_config(settings: OscarSettings, words: TextVocabulary, facts: StoreFacts) -> OscarConfig:
    """The network for a recipe and its stores."""
    if not facts.region_dim or not facts.num_classes:
        raise SettingsError("model.kind oscar reads regions and their names: vlprep extract-regions DATASET")
    return OscarConfig(
        encoder=settings.encoder(),
        vocabulary=words.size,
        positions=settings.positions,
        region_dim=facts.region_dim,
        contrast_classes=settings.contrast_classes,
        normalise_regions=settings.normalise_regions,
        attention=settings.attention,
    )


class Oscar(nn.Module):
    """The network with the heads of its two pretraining tasks."""

    def __init__(self, config: OscarConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.encoder
        hidden, eps, dropout = sizes.hidden, sizes.norm_eps, sizes.dropout
        self.bert = nn.ModuleDict(
            {
                "embeddings": TextEmbeddings(
                    config.vocabulary, hidden, positions=config.positions, types=2, dropout=dropout, norm_eps=eps
                ),
                "encoder": Encoder(sizes),
                "pooler": Pooler(hidden),
                "img_embedding": nn.Linear(config.region_dim + _BOX, hidden),
            }
        )
        if config.normalise_regions:
            self.bert["LayerNorm"] = nn.LayerNorm(hidden, eps=eps)
        self.cls = nn.ModuleDict(
            {
                "predictions": WordHead(config.vocabulary, hidden, eps),
                "seq_relationship": nn.Linear(hidden, config.contrast_classes),
            }
        )
        self.dropout = nn.Dropout(dropout)
        initialise(self, hidden)

    def centre_regions(self, mean_D: Tensor) -> None:
        """Begin with the mean feature as zero on the way in."""
        centre(self.bert["img_embedding"], mean_D)

    def encode(self, inputs: Inputs) -> Tensor:
        """The last layer's states of the packed sequences, (T, H)."""
        assert inputs.text is not None
        assert inputs.regions is not None
        regions_RH = self.bert["img_embedding"](_with_boxes(inputs.regions, self._words_WH.dtype))
        if "LayerNorm" in self.bert:
            regions_RH = self.bert["LayerNorm"](regions_RH)
        packed_TH = interleave(
            [
                (self.bert["embeddings"](inputs.text), inputs.text.slots_P),
                (self.dropout(regions_RH), inputs.regions.slots_R),
            ]
        )
        layout = Layout(inputs.lengths_B, packed_TH.device, self.config.attention)
        states_TH: Tensor = self.bert["encoder"](packed_TH, layout)
        return states_TH

    def word_logits(self, states_MH: Tensor) -> Tensor:
        """(M, W)."""
        logits_MW: Tensor = self.cls["predictions"](states_MH, self._words_WH)
        return logits_MW

    def contrast_logits(self, states_TH: Tensor, inputs: Inputs) -> Tensor:
        """(B, C): clean, wrong tags, wrong caption."""
        logits_BC: Tensor = self.cls["seq_relationship"](self.bert["pooler"](first_states(states_TH, inputs.lengths_B)))
        return logits_BC

    @property
    def _words_WH(self) -> Tensor:
        embeddings = self.bert["embeddings"]
        assert isinstance(embeddings, TextEmbeddings)
        return embeddings.word_embeddings.weight


def _with_boxes(regions: RegionInput, dtype: torch.dtype) -> Tensor:
    """(R, D + 6): feature, then x1, y1, x2, y2, width, height, normalised."""
    sides_R2 = regions.boxes_R4[:, 2:] - regions.boxes_R4[:, :2]
    return torch.cat([regions.visible_features(dtype), regions.boxes_R4.to(dtype), sides_R2.to(dtype)], dim=1)
