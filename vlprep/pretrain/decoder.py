"""A transformer decoder that writes text about encoded sequences (UniVL modules/module_decoder.py).

Parameter names are UniVL's `decoder.*`. Words and positions are tied to those of the text encoder, and so is the output
layer: they are passed in at each call and registered once, at their owner.

Shape suffixes: P pieces of the captions, T packed tokens of what is described, B sequences, L longest caption, H hidden
size, W words, N positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlprep.pretrain.attention import Layout
from vlprep.pretrain.base import TextInput
from vlprep.pretrain.encoder import Attention, EncoderConfig, Residual, Widening
from vlprep.pretrain.heads import WordHead


class DecoderLayer(nn.Module):
    """Self-attention, attention to what is described, feed-forward; a residual and a LayerNorm after each."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.slf_attn = Attention(config, projections="att")
        self.enc_attn = Attention(config, projections="att")
        self.intermediate = Widening(config)
        self.output = Residual(config.intermediate, config)

    def forward(self, hidden_PH: Tensor, captions: Layout, encoded_TH: Tensor, encoded: Layout) -> Tensor:
        hidden_PH = self.enc_attn(self.slf_attn(hidden_PH, captions), captions, encoded_TH, encoded)
        output_PH: Tensor = self.output(self.intermediate(hidden_PH), hidden_PH)
        return output_PH


class TextDecoder(nn.Module):
    """Embeddings, layers and word head."""

    def __init__(self, vocabulary: int, config: EncoderConfig) -> None:
        super().__init__()
        hidden, eps = config.hidden, config.norm_eps
        self.embeddings = nn.ModuleDict({"LayerNorm": nn.LayerNorm(hidden, eps=eps)})
        self.dropout = nn.Dropout(config.dropout)
        self.decoder = nn.ModuleDict({"layer": nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))})
        self.classifier = nn.ModuleDict(
            {"cls": nn.ModuleDict({"predictions": WordHead(vocabulary, hidden, eps)})},
        )

    def forward(
        self,
        captions: TextInput,
        real_B: Tensor,
        encoded_TH: Tensor,
        encoded: Layout,
        words_WH: Tensor,
        positions_NH: Tensor,
    ) -> Tensor:
        """(P, W) logits of the piece that follows each.

        Each piece sees those before it and itself, of the first `real_B` of its caption, which are more than none.
        """
        summed_PH = F.embedding(captions.ids_P, words_WH) + F.embedding(captions.positions_P, positions_NH)
        hidden_PH: Tensor = self.dropout(self.embeddings["LayerNorm"](summed_PH))
        mask_BLL = causal_mask(real_B, int(captions.lengths_B.max()))
        layout = Layout(captions.lengths_B, hidden_PH.device, mask_BLL=mask_BLL)
        layers = self.decoder["layer"]
        assert isinstance(layers, nn.ModuleList)
        for layer in layers:
            hidden_PH = layer(hidden_PH, layout, encoded_TH, encoded)
        logits_PW: Tensor = self.classifier.get_submodule("cls.predictions")(hidden_PH, words_WH)
        return logits_PW


def causal_mask(real_B: Tensor, longest: int) -> Tensor:
    """(B, L, L) bool for `Layout.mask_BLL`: nobody sees what comes after it or is beyond `real_B`."""
    place_L = torch.arange(longest, device=real_B.device)
    return (place_L[None, :] <= place_L[:, None]) & (place_L < real_B[:, None])[:, None]
