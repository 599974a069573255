"""LXMERT (Tan & Bansal 2019): a stream of text, a stream of regions, and layers in which each looks at the other.

Parameter names are those of `model_LXRT.pth` (airsplay/lxmert src/lxrt/modeling.py); Hugging Face's have `lxmert.` for
`bert.` and are else the same. Deviation: the published code has 36 regions and 20 pieces in every example and masks no
region; here sequences are packed, so that each stream sees exactly what it has.

Shape suffixes: P text pieces, R regions, B sequences, M positions, H hidden size, D feature size, K foreground classes,
A attributes, N answers, W words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from vlprep.errors import SettingsError
from vlprep.pretrain.attention import Backend, Layout
from vlprep.pretrain.base import Inputs, RegionInput, StoreFacts
from vlprep.pretrain.embeddings import TextEmbeddings
from vlprep.pretrain.encoder import Attention, EncoderConfig, EncoderLayer, Residual, Widening
from vlprep.pretrain.heads import Pooler, Transform, WordHead
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.parts import Streams, centre, first_states, guess_first, initialise
from vlprep.pretrain.settings import RegionModelSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class LxmertSettings(RegionModelSettings):
    kind: Literal["lxmert"] = "lxmert"
    layers: int = 9
    """Of the text."""
    region_layers: int = 5
    cross_layers: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LxmertConfig:
    """Sizes of the network; `encoder.layers` is the number of text layers. 0 leaves a head out."""

    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(layers=9))
    region_layers: int = 5
    cross_layers: int = 5
    vocabulary: int
    positions: int = 512
    region_dim: int = 2048
    region_classes: int = 1600
    """Foreground classes: LXMERT has no background."""
    region_attributes: int = 400
    answers: int = 0
    """Of question answering (9500 in the published file)."""
    attention: Backend = "padded"


def lxmert_config(settings: LxmertSettings, words: TextVocabulary, facts: StoreFacts) -> LxmertConfig:
    """The network for a recipe and its stores."""
    if not facts.region_dim:
        raise SettingsError(
            "model.kind lxmert looks at regions; these datasets have none: vlprep extract-regions DATASET"
        )
    return LxmertConfig(
        encoder=settings.encoder(),
        region_layers=settings.region_layers,
        cross_layers=settings.cross_layers,
        vocabulary=words.size,
        positions=settings.positions,
        region_dim=facts.region_dim,
        region_classes=facts.num_classes,
        region_attributes=facts.num_attributes,
        answers=len(words.answers),
        attention=settings.attention,
    )


class Lxmert(nn.Module):
    """The network with the heads of its five pretraining tasks."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.encoder
        hidden, eps = sizes.hidden, sizes.norm_eps
        self.bert = nn.ModuleDict(
            {
                "embeddings": TextEmbeddings(
                    config.vocabulary,
                    hidden,
                    positions=config.positions,
                    types=2,
                    dropout=sizes.dropout,
                    norm_eps=eps,
                ),
                "encoder": _TwoStreamEncoder(config),
                "pooler": Pooler(hidden),
            }
        )
        self.cls = nn.ModuleDict(
            {"predictions": WordHead(config.vocabulary, hidden, eps), "seq_relationship": nn.Linear(hidden, 2)}
        )
        outputs = {"obj": config.region_classes, "attr": config.region_attributes, "feat": config.region_dim}
        self.obj_predict_head = nn.ModuleDict(
            {
                "transform": Transform(hidden, eps),
                "decoder_dict": nn.ModuleDict(
                    {name: nn.Linear(hidden, size) for name, size in outputs.items() if size}
                ),
            }
        )
        if config.answers:
            answers = nn.Sequential(
                nn.Linear(hidden, 2 * hidden),
                nn.GELU(),
                nn.LayerNorm(2 * hidden, eps=eps),
                nn.Linear(2 * hidden, config.answers),
            )
            self.answer_head = nn.ModuleDict({"logit_fc": answers})
        initialise(self, hidden)

    def centre_regions(self, mean_D: Tensor) -> None:
        """Begin with the mean feature as zero on the way in, and as the prediction on the way out."""
        encoder, heads = self.bert["encoder"], self.obj_predict_head["decoder_dict"]
        assert isinstance(encoder, _TwoStreamEncoder)
        assert isinstance(heads, nn.ModuleDict)
        centre(encoder.visn_fc.visn_fc, mean_D)
        guess_first(heads["feat"], mean_D)

    def encode(self, inputs: Inputs) -> Streams:
        """The last states of both streams."""
        assert inputs.text is not None
        assert inputs.regions is not None
        text_PH = self.bert["embeddings"](inputs.text)
        device, backend = text_PH.device, self.config.attention
        text = Layout(inputs.text.lengths_B, device, backend)
        regions = Layout(inputs.regions.lengths_B, device, backend)
        streams: Streams = self.bert["encoder"](text_PH, text, inputs.regions, regions)
        return streams

    def word_logits(self, states_MH: Tensor) -> Tensor:
        """(M, W) over text pieces."""
        embeddings = self.bert["embeddings"]
        assert isinstance(embeddings, TextEmbeddings)
        logits_MW: Tensor = self.cls["predictions"](states_MH, embeddings.word_embeddings.weight)
        return logits_MW

    def pooled(self, streams: Streams, inputs: Inputs) -> Tensor:
        """(B, H) of the text stream's [CLS]."""
        assert inputs.text is not None
        pooled_BH: Tensor = self.bert["pooler"](first_states(streams.text_PH, inputs.text.lengths_B))
        return pooled_BH

    def match_logits(self, pooled_BH: Tensor) -> Tensor:
        """(B, 2): column 1 is a match."""
        logits_B2: Tensor = self.cls["seq_relationship"](pooled_BH)
        return logits_B2

    def answer_logits(self, pooled_BH: Tensor) -> Tensor | None:
        """(B, N) over the answers; None where the data has no questions."""
        return self.answer_head["logit_fc"](pooled_BH) if self.config.answers else None

    def region_scores(self, regions_RH: Tensor) -> dict[str, Tensor]:
        """`obj` (R, K), `feat` (R, D) and, where the data has attributes, `attr` (R, A)."""
        transformed_RH = self.obj_predict_head["transform"](regions_RH)
        heads = self.obj_predict_head["decoder_dict"]
        assert isinstance(heads, nn.ModuleDict)
        return {name: head(transformed_RH) for name, head in heads.items()}


class _TwoStreamEncoder(nn.Module):
    """Each stream alone, then both together."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        sizes = config.encoder
        self.visn_fc = _RegionEmbeddings(config.region_dim, sizes)
        self.layer = nn.ModuleList(EncoderLayer(sizes) for _ in range(sizes.layers))
        self.x_layers = nn.ModuleList(_CrossLayer(sizes) for _ in range(config.cross_layers))
        self.r_layers = nn.ModuleList(EncoderLayer(sizes) for _ in range(config.region_layers))

    def forward(self, text_PH: Tensor, text: Layout, seen: RegionInput, regions: Layout) -> Streams:
        for layer in self.layer:
            text_PH = layer(text_PH, text)
        regions_RH = self.visn_fc(seen)
        for layer in self.r_layers:
            regions_RH = layer(regions_RH, regions)
        for layer in self.x_layers:
            text_PH, regions_RH = layer(text_PH, text, regions_RH, regions)
        return Streams(text_PH, regions_RH)


class _RegionEmbeddings(nn.Module):
    """(LN(W_f f) + LN(W_b box)) / 2, dropout (modeling.py:491-517); box = x1, y1, x2, y2, normalised."""

    def __init__(self, feature_dim: int, sizes: EncoderConfig) -> None:
        super().__init__()
        self.visn_fc = nn.Linear(feature_dim, sizes.hidden)
        self.visn_layer_norm = nn.LayerNorm(sizes.hidden, eps=sizes.norm_eps)
        self.box_fc = nn.Linear(4, sizes.hidden)
        self.box_layer_norm = nn.LayerNorm(sizes.hidden, eps=sizes.norm_eps)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, regions: RegionInput) -> Tensor:
        features_RD = regions.visible_features(self.visn_fc.weight.dtype)
        appearance_RH = self.visn_layer_norm(self.visn_fc(features_RD))
        place_RH = self.box_layer_norm(self.box_fc(regions.boxes_R4))
        embedded_RH: Tensor = self.dropout((appearance_RH + place_RH) / 2)
        return embedded_RH


class _CrossLayer(nn.Module):
    """One cross-attention module used both ways, then self-attention and feed-forward per stream (439-488)."""

    def __init__(self, sizes: EncoderConfig) -> None:
        super().__init__()
        self.visual_attention = Attention(sizes, projections="att")
        self.lang_self_att, self.visn_self_att = Attention(sizes), Attention(sizes)
        self.lang_inter, self.visn_inter = Widening(sizes), Widening(sizes)
        self.lang_output, self.visn_output = (Residual(sizes.intermediate, sizes) for _ in range(2))

    def forward(self, text_PH: Tensor, text: Layout, regions_RH: Tensor, regions: Layout) -> tuple[Tensor, Tensor]:
        looked_PH = self.visual_attention(text_PH, text, regions_RH, regions)
        looked_RH = self.visual_attention(regions_RH, regions, text_PH, text)
        text_PH = self.lang_self_att(looked_PH, text)
        regions_RH = self.visn_self_att(looked_RH, regions)
        return (
            self.lang_output(self.lang_inter(text_PH), text_PH),
            self.visn_output(self.visn_inter(regions_RH), regions_RH),
        )
