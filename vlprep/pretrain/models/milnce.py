"""MIL-NCE (Miech et al. 2020): clips and texts in one space, from stored features or from frames.

Parameter names are those of `s3d_howto100m.pth` (S3D_HowTo100M@b8cd0bb and MIL-NCE_HowTo100M@b282b15 s3dg.py): `fc`,
which projects `mixed_5c`, and `text_module`. Similarity is the dot product, neither side normalised. With a trunk the
video network itself, S3D-G, is trained; the trunk's tensors have torchvision's names (`vlprep.networks.s3dg` has the
published ones).

The trunk's batch norms take their statistics of each micro-batch of each process, as in the published training
repository (the paper's TPUs shared them); what evaluation uses is the first process's running mean.

Shape suffixes: N texts or clips, R rows of what is shown of them, W words, T frames, H, W pixels, D feature size, J
joint size, X hidden size of the text tower.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vlprep.errors import SettingsError
from vlprep.pretrain.base import StoreFacts
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.clip_parts import means
from vlprep.pretrain.settings import ModelSettings


@dataclass(frozen=True, slots=True)
class TextRows:
    ids_NW: Tensor
    """int64 word ids, padded."""


@dataclass(frozen=True, slots=True)
class ShownClips:
    """What is seen of N clips: one or more windows of each, whose embeddings are averaged."""

    rows: Tensor
    """(R, D) stored features; (R, T, H, W, 3) uint8 frames for a model with a trunk."""
    lengths_B: Tensor
    """Rows of each clip; on the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MilNceSettings(ModelSettings):
    kind: Literal["milnce"] = "milnce"
    word_dim: int = 300
    """Size of the word vectors, where the words come without."""
    hidden: int = 2048
    """Of the text tower."""
    joint: int = 512
    """Size of the space in which texts and clips are compared."""
    freeze_words: bool = True
    """Whether words keep the vectors that they begin with."""
    trunk: Literal["", "plain", "space-to-depth"] = ""
    """The stem of the video network that is trained with it, end to end: that of the training repository, or of
    `s3d_howto100m.pth`. None where features come from a store.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class MilNceConfig:
    vocabulary: int
    """Words, the padding among them."""
    word_dim: int = 300
    freeze_words: bool = True
    hidden: int = 2048
    joint: int = 512
    clip_dim: int = 1024
    trunk: Literal["", "plain", "space-to-depth"] = ""
    """The stem of the video network; none where features come from a store."""

    @property
    def encoder(self) -> None:
        """There is no transformer."""


def padding_row(words: TextVocabulary) -> int:
    """The row that stands for padding: MIL-NCE's dictionary has one, other tables of word vectors get one more."""
    return words.pad if words.pad >= 0 else words.size


def milnce_config(settings: MilNceSettings, words: TextVocabulary, facts: StoreFacts) -> MilNceConfig:
    """The network for a recipe and its stores."""
    if not settings.trunk and len(facts.clip_dims) != 1:
        raise SettingsError(
            'model.kind milnce reads one store of features: data.features = ["s3d-howto100m"], for example;'
            " or it is trained end to end: --recipe milnce-end-to-end"
        )
    return MilNceConfig(
        vocabulary=max(words.size, padding_row(words) + 1),
        word_dim=(words.vectors.dim if words.vectors else 0) or settings.word_dim,
        freeze_words=settings.freeze_words,
        hidden=settings.hidden,
        joint=settings.joint,
        clip_dim=1024 if settings.trunk else facts.clip_dims[0],
        trunk=settings.trunk,
    )


class TextTower(nn.Module):
    """Word vectors, a hidden layer for each word, the maximum over words, a projection (S3D_HowTo100M s3dg.py:186-237).

    The maximum takes in padding, as in training: so a text with padding and one without differ, while the amount of
    padding does not matter.
    """

    def __init__(self, words: int, word_dim: int, hidden: int, joint: int) -> None:
        super().__init__()
        self.word_embd = nn.Embedding(words, word_dim)
        self.fc1 = nn.Linear(word_dim, hidden)
        self.fc2 = nn.Linear(hidden, joint)

    def forward(self, ids_NW: Tensor) -> Tensor:
        """(N, J)."""
        hidden_NWX = torch.relu(self.fc1(self.word_embd(ids_NW)))
        projected_NJ: Tensor = self.fc2(hidden_NWX.amax(1))
        return projected_NJ


class MilNce(nn.Module):
    """Two towers; initial weights are torch's own, as published (`--weight_init uniform`)."""

    def __init__(self, config: MilNceConfig) -> None:
        super().__init__()
        self.config = config
        if config.trunk:
            from vlprep.networks.s3dg import make_trunk  # torchvision, which no other model needs

            self.trunk: nn.Module | None = make_trunk(config.trunk)
        else:
            self.trunk = None
        self.fc = nn.Linear(config.clip_dim, config.joint)
        self.text_module = TextTower(config.vocabulary, config.word_dim, config.hidden, config.joint)
        self.text_module.word_embd.requires_grad_(not config.freeze_words)

    def load_words(self, vectors_VD: Tensor) -> None:
        """Begin with these vectors; a padding row that they lack is zeros."""
        table = self.text_module.word_embd.weight
        with torch.no_grad():
            table.zero_()
            table[: len(vectors_VD)] = vectors_VD

    def embed_text(self, texts: TextRows) -> Tensor:
        """(N, J), not normalised."""
        embedded_NJ: Tensor = self.text_module(texts.ids_NW)
        return embedded_NJ

    def embed_video(self, clips: ShownClips) -> Tensor:
        """(N, J), not normalised."""
        embedded_RJ: Tensor = self.fc(self._features(clips.rows))
        return means(embedded_RJ, clips.lengths_B)

    def _features(self, rows: Tensor) -> Tensor:
        """(R, D)."""
        if self.trunk is None:
            return rows.to(self.fc.weight.dtype)
        # uint8 until here: a quarter of the memory and of the way to the device
        pixels_R3THW = rows.permute(0, 4, 1, 2, 3).to(self.fc.weight.dtype) / 255
        map_RDthw: Tensor = self.trunk(pixels_R3THW.contiguous(memory_format=torch.channels_last_3d))
        return map_RDthw.mean((2, 3, 4))
