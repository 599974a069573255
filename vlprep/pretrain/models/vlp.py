"""VLP (Zhou et al. 2020): one transformer that reads both ways and, under a mask, writes captions.

Parameter names are those of `model.30.bin` (LuoweiZhou/VLP pytorch_pretrained_bert/modeling.py, `--enable_butd`).
A sequence is `[CLS] regions [SEP] caption [SEP]`. A region's projected feature stands for the word embedding and its
projected geometry and class distribution for the position embedding; LayerNorms have eps 1e-5.

Deviations: boxes are divided by the image's sides, where the published loader takes the largest coordinate among the
boxes for the side (seq2seq_loader.py: "lazy normalization"); the first layer over features begins at random, where the
published one begins as the detector's fc7 (modeling.py:1002-1018).

Shape suffixes: T packed tokens, B sequences, R regions, M positions, H hidden size, D feature size, W words or classes,
G box geometry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlprep.errors import SettingsError
from vlprep.pretrain.attention import Backend, Layout, prefix_mask
from vlprep.pretrain.base import Inputs, RegionInput, StoreFacts
from vlprep.pretrain.embeddings import TextEmbeddings
from vlprep.pretrain.encoder import Encoder, EncoderConfig
from vlprep.pretrain.heads import Pooler, WordHead
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.parts import centre, initialise, interleave
from vlprep.pretrain.settings import RegionModelSettings

TYPES = 6
"""0, 1 both ways; 2 left to right (unused); 4, 5 sequence to sequence: each image, then text."""
_GEOMETRY = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class VlpSettings(RegionModelSettings):
    kind: Literal["vlp"] = "vlp"


@dataclass(frozen=True, slots=True, kw_only=True)
class VlpConfig:
    encoder: EncoderConfig
    vocabulary: int
    positions: int = 512
    region_dim: int
    region_classes: int
    """Background and foreground classes: their distribution is an input."""
    attention: Backend = "padded"


def vlp_config(settings: VlpSettings, words: TextVocabulary, facts: StoreFacts) -> VlpConfig:
    """The network for a recipe and its stores."""
    if not facts.region_dim or not facts.num_classes:
        raise SettingsError(
            "model.kind vlp reads regions and their class distributions: vlprep extract-regions DATASET"
        )
    return VlpConfig(
        encoder=settings.encoder(norm_eps=1e-5),
        vocabulary=words.size,
        positions=settings.positions,
        region_dim=facts.region_dim,
        region_classes=facts.num_classes + 1,
        attention=settings.attention,
    )


class Vlp(nn.Module):
    """The network with its word head; the pooler is in the published file and trained by nothing here."""

    def __init__(self, config: VlpConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.encoder
        hidden, eps, dropout = sizes.hidden, sizes.norm_eps, sizes.dropout
        self.bert = nn.ModuleDict(
            {
                "embeddings": TextEmbeddings(
                    config.vocabulary, hidden, positions=config.positions, types=TYPES, dropout=dropout, norm_eps=eps
                ),
                "encoder": Encoder(sizes),
                "pooler": Pooler(hidden),
            }
        )
        self.cls = nn.ModuleDict({"predictions": WordHead(config.vocabulary, hidden, eps)})
        self.vis_embed = nn.Sequential(
            nn.Linear(config.region_dim, config.region_dim),
            nn.ReLU(),
            nn.Linear(config.region_dim, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.vis_pe_embed = nn.Sequential(
            nn.Linear(_GEOMETRY + config.region_classes, hidden), nn.ReLU(), nn.Dropout(dropout)
        )
        initialise(self, hidden)

    def centre_regions(self, mean_D: Tensor) -> None:
        """Begin with the mean feature as zero on the way in."""
        centre(self.vis_embed[0], mean_D)

    def encode(self, inputs: Inputs) -> Tensor:
        """The last layer's states of the packed sequences, (T, H)."""
        assert inputs.text is not None
        assert inputs.regions is not None
        embeddings, regions = self._text, inputs.regions
        regions_RH = embeddings.finish(
            self.vis_embed(regions.visible_features(embeddings.word_embeddings.weight.dtype))
            + self.vis_pe_embed(_places(regions))
            + embeddings.token_type_embeddings(regions.types_R)
        )
        packed_TH = interleave([(embeddings(inputs.text), inputs.text.slots_P), (regions_RH, regions.slots_R)])
        states_TH: Tensor = self.bert["encoder"](packed_TH, self._layout(inputs, packed_TH.device))
        return states_TH

    def word_logits(self, states_MH: Tensor) -> Tensor:
        """(M, W)."""
        logits_MW: Tensor = self.cls["predictions"](states_MH, self._text.word_embeddings.weight)
        return logits_MW

    def _layout(self, inputs: Inputs, device: torch.device) -> Layout:
        if inputs.prefix_B is None:
            return Layout(inputs.lengths_B, device, self.config.attention)
        lengths_B = inputs.lengths_B.to(device, non_blocking=True)
        mask_BLL = prefix_mask(lengths_B, inputs.prefix_B, int(inputs.lengths_B.max()))
        return Layout(inputs.lengths_B, device, self.config.attention, mask_BLL)

    @property
    def _text(self) -> TextEmbeddings:
        embeddings = self.bert["embeddings"]
        assert isinstance(embeddings, TextEmbeddings)
        return embeddings


def _places(regions: RegionInput) -> Tensor:
    """(R, G + W): LN(x1, y1, x2, y2, area, confidence) and LN(class distribution), without weights, eps 1e-5."""
    assert regions.confidence_R is not None
    assert regions.distributions_RW is not None
    sides_R2 = regions.boxes_R4[:, 2:] - regions.boxes_R4[:, :2]
    area_R1 = sides_R2.prod(1, keepdim=True).clamp(min=0)
    geometry_RG = torch.cat([regions.boxes_R4, area_R1, regions.confidence_R[:, None]], dim=1)
    normalised = [F.layer_norm(part, part.shape[1:]) for part in (geometry_RG, regions.distributions_RW)]
    return torch.cat(normalised, dim=1)
