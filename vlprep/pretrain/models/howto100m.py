"""HowTo100M's text-video embedding (Miech et al. 2019): words pooled by maximum, two gated embedding units.

Parameter names are those of `howto100m_pt_model.pth` (antoine77340/howto100m model.py): a batch norm that nothing reads
lies in each unit. Word vectors stay as they are and are no part of the model.

Shape suffixes: N texts or clips, W words, V size of a word vector, D feature size of a clip, J joint size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlprep.errors import SettingsError
from vlprep.pretrain.base import StoreFacts
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.settings import ModelSettings


@dataclass(frozen=True, slots=True)
class TextVectors:
    vectors_NWV: Tensor
    """float32; zero beyond a text's own words. One such row at least where a text is not as long as it may be."""


@dataclass(frozen=True, slots=True)
class PooledClips:
    features_ND: Tensor
    """float32; of each encoder the maximum over the clip, normalised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HowTo100MSettings(ModelSettings):
    kind: Literal["howto100m"] = "howto100m"
    joint: int = 4096
    """Size of the space in which texts and clips are compared; 6144 in the released model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HowTo100MConfig:
    vocabulary: int
    """Words with a vector."""
    word_dim: int = 300
    clip_dim: int = 4096
    """Of all encoders together."""
    joint: int = 4096
    """6144 in the released model."""

    @property
    def encoder(self) -> None:
        """Texts go through no transformer."""
        return


def howto100m_config(settings: HowTo100MSettings, words: TextVocabulary, facts: StoreFacts) -> HowTo100MConfig:
    """The network for a recipe and its stores."""
    if not facts.clip_dims:
        raise SettingsError('model.kind howto100m reads features: data.features = ["howto100m-2d", "howto100m-3d"]')
    if words.vectors is None or not words.vectors.dim:
        raise SettingsError(
            'model.kind howto100m reads words with vectors: data.text = "words", a store of'
            " vlprep tokenize --tokenizer words:FILE (or words:train:300) --out DATASET/vlprep/words"
        )
    return HowTo100MConfig(
        vocabulary=words.size,
        word_dim=words.vectors.dim,
        clip_dim=sum(facts.clip_dims),
        joint=settings.joint,
    )


class SentencePooling(nn.Module):
    """relu(fc(word)), the maximum over all rows. Padding takes part: the maximum is at least relu(bias)."""

    def __init__(self, word_dim: int, joint: int) -> None:
        super().__init__()
        self.fc = nn.Linear(word_dim, joint)

    def forward(self, vectors_NWV: Tensor) -> Tensor:
        """(N, J)."""
        pooled_NJ: Tensor = torch.relu(self.fc(vectors_NWV)).amax(1)
        return pooled_NJ


class ContextGating(nn.Module):
    """y * sigmoid(fc(y))."""

    def __init__(self, joint: int) -> None:
        super().__init__()
        self.fc = nn.Linear(joint, joint)
        self.batch_norm = nn.BatchNorm1d(joint)
        """In every published file, read by nothing."""
        self.batch_norm.requires_grad_(False)

    def forward(self, rows_NJ: Tensor) -> Tensor:
        gated_NJ: Tensor = rows_NJ * torch.sigmoid(self.fc(rows_NJ))
        return gated_NJ


class GatedEmbedding(nn.Module):
    """A linear layer, context gating, unit length."""

    def __init__(self, size: int, joint: int) -> None:
        super().__init__()
        self.fc = nn.Linear(size, joint)
        self.cg = ContextGating(joint)

    def forward(self, rows_NX: Tensor) -> Tensor:
        """(N, J)."""
        return F.normalize(self.cg(self.fc(rows_NX)))


class HowTo100M(nn.Module):
    """A `DualEncoder`; initial weights are torch's own, as published."""

    def __init__(self, config: HowTo100MConfig) -> None:
        super().__init__()
        self.config = config
        self.text_pooling = SentencePooling(config.word_dim, config.joint)
        self.GU_text = GatedEmbedding(config.joint, config.joint)
        self.GU_video = GatedEmbedding(config.clip_dim, config.joint)

    def embed_text(self, texts: TextVectors) -> Tensor:
        """(N, J) of unit length."""
        embedded_NJ: Tensor = self.GU_text(self.text_pooling(texts.vectors_NWV))
        return embedded_NJ

    def embed_video(self, clips: PooledClips) -> Tensor:
        """(N, J) of unit length."""
        embedded_NJ: Tensor = self.GU_video(clips.features_ND)
        return embedded_NJ
