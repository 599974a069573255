"""What stands at the exit: from hidden states to words, features, classes and matches.

Names of parameters are the published ones (BERT `cls.predictions`, UNITER `feat_regress`, `region_classifier`). Tied
weights are passed in at each call and registered once, at their owner, so that no state dict holds them twice.

Shape suffixes: M positions, H hidden size, W words or classes, D feature size, B sequences.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Transform(nn.Module):
    """Linear, GELU, LayerNorm: what BERT does before its output layer."""

    def __init__(self, hidden: int, norm_eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=norm_eps)

    def forward(self, hidden_MH: Tensor) -> Tensor:
        transformed_MH: Tensor = self.LayerNorm(F.gelu(self.dense(hidden_MH)))
        return transformed_MH


class WordHead(nn.Module):
    """Logits over a vocabulary, tied to its input embeddings."""

    def __init__(self, vocabulary: int, hidden: int, norm_eps: float) -> None:
        super().__init__()
        self.transform = Transform(hidden, norm_eps)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, hidden_MH: Tensor, embeddings_WH: Tensor) -> Tensor:
        """(M, W)."""
        return F.linear(self.transform(hidden_MH), embeddings_WH, self.bias)


class FeatureHead(nn.Module):
    """UNITER's masked region feature regression: Linear, GELU, LN, then the transpose of the input projection."""

    def __init__(self, feature_dim: int, hidden: int, norm_eps: float) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.LayerNorm(hidden, eps=norm_eps))
        self.bias = nn.Parameter(torch.zeros(feature_dim))

    def forward(self, hidden_MH: Tensor, projection_HD: Tensor) -> Tensor:
        """(M, D)."""
        return F.linear(self.net(hidden_MH), projection_HD.t(), self.bias)


class ClassHead(nn.Module):
    """UNITER's region classifier: Linear, GELU, LN, Linear; background first."""

    def __init__(self, classes: int, hidden: int, norm_eps: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(hidden, hidden), nn.GELU(), nn.LayerNorm(hidden, eps=norm_eps), nn.Linear(hidden, classes)
        )

    def forward(self, hidden_MH: Tensor) -> Tensor:
        """(M, W)."""
        logits_MW: Tensor = self.net(hidden_MH)
        return logits_MW


class Pooler(nn.Module):
    """tanh(Linear) of the first token's state."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)

    def forward(self, first_BH: Tensor) -> Tensor:
        return torch.tanh(self.dense(first_BH))
