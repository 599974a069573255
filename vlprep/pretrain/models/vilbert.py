"""ViLBERT (Lu et al. 2019; 12-in-1): a BERT for text and a smaller one for regions, joined by co-attention.

Parameter names are those of `pretrained_model.bin` (facebookresearch/vilbert-multi-task vilbert/vilbert.py). The first
text layers are alone; then each co-attention, in which either stream queries the other, is followed by a layer of each
stream (934-1107). The first region of an image stands for all of it (`objectives.vilbert.with_global_region`). 24
tensors of the published file, `q_dense`, are never used by its code; they are kept frozen, so that a file goes back as
it came.

Shape suffixes: P text pieces, R regions, B sequences, M positions, H hidden size of text, V of regions, A of
co-attention, W words or classes, D feature size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from vlprep.errors import SettingsError
from vlprep.pretrain.attention import Backend, Layout, attend
from vlprep.pretrain.base import Inputs, RegionInput, StoreFacts
from vlprep.pretrain.embeddings import TextEmbeddings
from vlprep.pretrain.encoder import EncoderConfig, EncoderLayer, Residual, Widening, heads
from vlprep.pretrain.heads import Transform, WordHead
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.parts import Streams, centre, first_states, guess_first, initialise
from vlprep.pretrain.settings import RegionModelSettings

_PAIR_DROPOUT = 0.1
"""On the product of the pooled streams (1219-1243)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VilbertSettings(RegionModelSettings):
    kind: Literal["vilbert"] = "vilbert"
    region_layers: int = 6
    region_hidden: int = 1024
    """Sizes of the region stream, …"""
    region_heads: int = 8
    """(also of co-attention)"""
    region_intermediate: int = 1024
    cross_layers: int = 6
    cross_hidden: int = 1024
    """… and of co-attention."""
    region_outputs: Literal["classes", "features"] = "classes"
    """What the head says of a region; features for the objective's targets `mse` and `nce`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VilbertConfig:
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    regions: EncoderConfig = field(
        default_factory=lambda: EncoderConfig(layers=6, hidden=1024, heads=8, intermediate=1024)
    )
    cross_layers: int = 6
    cross_hidden: int = 1024
    """Of co-attention, and of the pooled streams."""
    cross_heads: int = 8
    vocabulary: int
    positions: int = 512
    region_dim: int = 2048
    region_classes: int = 1601
    """Background and foreground classes; 0 where the head says features."""
    attention: Backend = "padded"

    def __post_init__(self) -> None:
        if not 0 < self.cross_layers <= min(self.encoder.layers, self.regions.layers):
            raise SettingsError("model.cross_layers is at least 1, and at most layers and region_layers")
        if self.cross_hidden % self.cross_heads:
            raise SettingsError(f"model.cross_hidden={self.cross_hidden} is not divisible by {self.cross_heads} heads")


def vilbert_config(settings: VilbertSettings, words: TextVocabulary, facts: StoreFacts) -> VilbertConfig:
    """The network for a recipe and its stores."""
    classes = settings.region_outputs == "classes"
    if not facts.region_dim or (classes and not facts.num_classes):
        raise SettingsError("model.kind vilbert reads regions and their classes: vlprep extract-regions DATASET")
    return VilbertConfig(
        encoder=settings.encoder(),
        regions=EncoderConfig(
            layers=settings.region_layers,
            hidden=settings.region_hidden,
            heads=settings.region_heads,
            intermediate=settings.region_intermediate,
            dropout=settings.dropout,
            attention_dropout=settings.attention_dropout,
        ),
        cross_layers=settings.cross_layers,
        cross_hidden=settings.cross_hidden,
        cross_heads=settings.region_heads,
        vocabulary=words.size,
        positions=settings.positions,
        region_dim=facts.region_dim,
        region_classes=facts.num_classes + 1 if classes else 0,
        attention=settings.attention,
    )


class Vilbert(nn.Module):
    """The network with the heads of its three pretraining tasks."""

    def __init__(self, config: VilbertConfig) -> None:
        super().__init__()
        self.config = config
        text, regions = config.encoder, config.regions
        self.bert = nn.ModuleDict(
            {
                "embeddings": TextEmbeddings(
                    config.vocabulary,
                    text.hidden,
                    positions=config.positions,
                    types=2,
                    dropout=text.dropout,
                    norm_eps=text.norm_eps,
                ),
                "v_embeddings": _RegionEmbeddings(config.region_dim, regions),
                "encoder": _CoEncoder(config),
                "t_pooler": _ReluPooler(text.hidden, config.cross_hidden),
                "v_pooler": _ReluPooler(regions.hidden, config.cross_hidden),
            }
        )
        self.cls = nn.ModuleDict(
            {
                "predictions": WordHead(config.vocabulary, text.hidden, text.norm_eps),
                "bi_seq_relationship": nn.Linear(config.cross_hidden, 2),
                "imagePredictions": nn.ModuleDict(
                    {
                        "transform": Transform(regions.hidden, regions.norm_eps),
                        "decoder": nn.Linear(regions.hidden, config.region_classes or config.region_dim),
                    }
                ),
            }
        )
        self.pair_dropout = nn.Dropout(_PAIR_DROPOUT)
        initialise(self, text.hidden)

    def centre_regions(self, mean_D: Tensor) -> None:
        """Begin with the mean feature as zero on the way in, and, of features, as the prediction on the way out."""
        centre(self.bert["v_embeddings"].image_embeddings, mean_D)
        if not self.config.region_classes:
            head = self.cls["imagePredictions"]
            assert isinstance(head, nn.ModuleDict)
            guess_first(head["decoder"], mean_D)

    def encode(self, inputs: Inputs) -> Streams:
        """The last states of both streams, which differ in width."""
        assert inputs.text is not None
        assert inputs.regions is not None
        text_PH = self.bert["embeddings"](inputs.text)
        regions_RV = self.bert["v_embeddings"](inputs.regions)
        device, backend = text_PH.device, self.config.attention
        text = Layout(inputs.text.lengths_B, device, backend)
        regions = Layout(inputs.regions.lengths_B, device, backend)
        streams: Streams = self.bert["encoder"](text_PH, text, regions_RV, regions)
        return streams

    def word_logits(self, states_MH: Tensor) -> Tensor:
        """(M, W) over text pieces."""
        embeddings = self.bert["embeddings"]
        assert isinstance(embeddings, TextEmbeddings)
        logits_MW: Tensor = self.cls["predictions"](states_MH, embeddings.word_embeddings.weight)
        return logits_MW

    def region_outputs(self, states_MV: Tensor) -> Tensor:
        """(M, W) logits over background and classes, or (M, D) features."""
        head = self.cls["imagePredictions"]
        assert isinstance(head, nn.ModuleDict)
        outputs: Tensor = head["decoder"](head["transform"](states_MV))
        return outputs

    def alignment_logits(self, streams: Streams, inputs: Inputs) -> Tensor:
        """(B, 2): column 0 is aligned, unlike in every other system."""
        assert inputs.text is not None
        assert inputs.regions is not None
        text_BA = self.bert["t_pooler"](first_states(streams.text_PH, inputs.text.lengths_B))
        regions_BA = self.bert["v_pooler"](first_states(streams.regions_RH, inputs.regions.lengths_B))
        logits_B2: Tensor = self.cls["bi_seq_relationship"](self.pair_dropout(text_BA * regions_BA))
        return logits_B2


class _RegionEmbeddings(nn.Module):
    """LN(W_f f + W_l location), dropout; location = x1, y1, x2, y2, area, normalised."""

    def __init__(self, feature_dim: int, sizes: EncoderConfig) -> None:
        super().__init__()
        self.image_embeddings = nn.Linear(feature_dim, sizes.hidden)
        self.image_location_embeddings = nn.Linear(5, sizes.hidden)
        self.LayerNorm = nn.LayerNorm(sizes.hidden, eps=sizes.norm_eps)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, regions: RegionInput) -> Tensor:
        features_RD = regions.visible_features(self.image_embeddings.weight.dtype)
        sides_R2 = regions.boxes_R4[:, 2:] - regions.boxes_R4[:, :2]
        location_R5 = torch.cat([regions.boxes_R4, sides_R2.prod(1, keepdim=True)], dim=1)
        summed_RV = self.image_embeddings(features_RD) + self.image_location_embeddings(location_R5)
        embedded_RV: Tensor = self.dropout(self.LayerNorm(summed_RV))
        return embedded_RV


class _ReluPooler(nn.Module):
    """ReLU(Linear) of the first state: BERT's has tanh."""

    def __init__(self, hidden: int, output: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, output)

    def forward(self, first_BH: Tensor) -> Tensor:
        return torch.relu(self.dense(first_BH))


class _CoEncoder(nn.Module):
    def __init__(self, config: VilbertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(EncoderLayer(config.encoder) for _ in range(config.encoder.layers))
        self.v_layer = nn.ModuleList(EncoderLayer(config.regions) for _ in range(config.regions.layers))
        self.c_layer = nn.ModuleList(_CoLayer(config) for _ in range(config.cross_layers))

    def forward(self, text_PH: Tensor, text: Layout, regions_RV: Tensor, regions: Layout) -> Streams:
        alone = len(self.layer) - len(self.c_layer)
        for layer in self.layer[:alone]:
            text_PH = layer(text_PH, text)
        for cross, text_layer, region_layer in zip(self.c_layer, self.layer[alone:], self.v_layer, strict=False):
            regions_RV, text_PH = cross(regions_RV, regions, text_PH, text)
            text_PH = text_layer(text_PH, text)
            regions_RV = region_layer(regions_RV, regions)
        for layer in self.v_layer[len(self.c_layer) :]:
            regions_RV = layer(regions_RV, regions)
        return Streams(text_PH, regions_RV)


class _CoLayer(nn.Module):
    """Either stream queries the other; then a feed-forward each (738-932). 1 is the regions, 2 the text."""

    def __init__(self, config: VilbertConfig) -> None:
        super().__init__()
        text, regions, width = config.encoder, config.regions, config.cross_hidden
        self.heads, self.dropout = config.cross_heads, regions.attention_dropout
        sizes = {"1": regions.hidden, "2": text.hidden}
        self.biattention = nn.ModuleDict(
            {
                f"{name}{side}": nn.Linear(size, width)
                for side, size in sizes.items()
                for name in ("query", "key", "value")
            }
        )
        self.biOutput = _CoOutput(width, regions, text)
        self.v_intermediate, self.v_output = Widening(regions), Residual(regions.intermediate, regions)
        self.t_intermediate, self.t_output = Widening(text), Residual(text.intermediate, text)

    def forward(self, regions_RV: Tensor, regions: Layout, text_PH: Tensor, text: Layout) -> tuple[Tensor, Tensor]:
        projected = {
            name: heads(layer(regions_RV if name.endswith("1") else text_PH), self.heads)
            for name, layer in self.biattention.items()
        }
        dropout = self.dropout if self.training else 0.0
        seen_RNE = attend(projected["query1"], projected["key2"], projected["value2"], regions, dropout, text)
        seen_PNE = attend(projected["query2"], projected["key1"], projected["value1"], text, dropout, regions)
        regions_RV, text_PH = self.biOutput(seen_RNE.flatten(1), regions_RV, seen_PNE.flatten(1), text_PH)
        return (
            self.v_output(self.v_intermediate(regions_RV), regions_RV),
            self.t_output(self.t_intermediate(text_PH), text_PH),
        )


class _CoOutput(nn.Module):
    """LN(residual + dropout(Linear)) of both streams, under the published names."""

    def __init__(self, width: int, regions: EncoderConfig, text: EncoderConfig) -> None:
        super().__init__()
        self.dense1, self.dense2 = nn.Linear(width, regions.hidden), nn.Linear(width, text.hidden)
        self.LayerNorm1 = nn.LayerNorm(regions.hidden, eps=regions.norm_eps)
        self.LayerNorm2 = nn.LayerNorm(text.hidden, eps=text.norm_eps)
        self.dropout1, self.dropout2 = nn.Dropout(regions.dropout), nn.Dropout(text.dropout)
        self.q_dense1 = nn.Linear(width, regions.hidden).requires_grad_(False)  # in the file, never used
        self.q_dense2 = nn.Linear(width, text.hidden).requires_grad_(False)

    def forward(self, seen_RA: Tensor, regions_RV: Tensor, seen_PA: Tensor, text_PH: Tensor) -> tuple[Tensor, Tensor]:
        return (
            self.LayerNorm1(regions_RV + self.dropout1(self.dense1(seen_RA))),
            self.LayerNorm2(text_PH + self.dropout2(self.dense2(seen_PA))),
        )
