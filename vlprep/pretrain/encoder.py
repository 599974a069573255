"""The transformer encoder of BERT (Devlin et al. 2019), on packed sequences and with Hugging Face's parameter names.

The names make published checkpoints load key for key: `layer.0.attention.self.query.weight`, and so on. Post-norm,
exact (erf) GELU, LayerNorm eps 1e-12 unless a system says otherwise (VLP: 1e-5).

Shape suffixes: T packed tokens, H hidden size, N heads, E size of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from vlprep.errors import SettingsError
from vlprep.pretrain.attention import Layout, attend


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """Sizes of a BERT encoder; the defaults are bert-base's."""

    layers: int = 12
    hidden: int = 768
    heads: int = 12
    intermediate: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise SettingsError(f"model hidden={self.hidden} is not divisible by heads={self.heads}")


class Encoder(nn.Module):
    """A stack of layers: (T, H) to (T, H)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))

    def forward(self, hidden_TH: Tensor, layout: Layout) -> Tensor:
        for layer in self.layer:
            hidden_TH = layer(hidden_TH, layout)
        return hidden_TH


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with a residual connection and a LayerNorm after it."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden, config.intermediate)})
        self.output = Residual(config.intermediate, config)

    def forward(self, hidden_TH: Tensor, layout: Layout) -> Tensor:
        hidden_TH = self.attention(hidden_TH, layout)
        output_TH: Tensor = self.output(F.gelu(self.intermediate["dense"](hidden_TH)), hidden_TH)
        return output_TH


class SelfAttention(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.attention_dropout
        # "self" is Hugging Face's name for the three projections
        self.add_module(
            "self", nn.ModuleDict({name: nn.Linear(config.hidden, config.hidden) for name in ("query", "key", "value")})
        )
        self.output = Residual(config.hidden, config)

    def forward(self, hidden_TH: Tensor, layout: Layout) -> Tensor:
        projections = self.get_submodule("self")
        query, key, value = (
            projections.get_submodule(name)(hidden_TH).unflatten(1, (self.heads, -1))
            for name in ("query", "key", "value")
        )
        attended_TNE = attend(query, key, value, layout, self.dropout if self.training else 0.0)
        output_TH: Tensor = self.output(attended_TNE.flatten(1), hidden_TH)
        return output_TH


class Residual(nn.Module):
    """LayerNorm(residual + dropout(Linear(x)))."""

    def __init__(self, size: int, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(size, config.hidden)
        self.LayerNorm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, residual_TH: Tensor) -> Tensor:
        output_TH: Tensor = self.LayerNorm(residual_TH + self.dropout(self.dense(hidden)))
        return output_TH
