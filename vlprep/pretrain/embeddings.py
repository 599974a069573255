"""What stands at the entrance of an encoder: text pieces, image regions and visual tokens as vectors.

Shape suffixes: P text pieces, R regions, V visual tokens, D feature size, G box geometry, H hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlprep.pretrain.base import RegionInput, TextInput

TEXT_TYPE, VISUAL_TYPE = 0, 1


class TextEmbeddings(nn.Module):
    """Word + position + type, LayerNorm, dropout (BERT); Hugging Face's names."""

    def __init__(
        self, vocabulary: int, hidden: int, *, positions: int, types: int, dropout: float, norm_eps: float
    ) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, hidden, padding_idx=0)
        self.position_embeddings = nn.Embedding(positions, hidden)
        self.token_type_embeddings = nn.Embedding(types, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, text: TextInput) -> Tensor:
        """(P, H)."""
        summed_PH = (
            self.word_embeddings(text.ids_P)
            + self.position_embeddings(text.positions_P)
            + self.token_type_embeddings(text.types_P)
        )
        return self.finish(summed_PH)

    def finish(self, summed_H: Tensor) -> Tensor:
        """The normalisation and dropout that text and visual tokens share."""
        finished: Tensor = self.dropout(self.LayerNorm(summed_H))
        return finished


class RegionEmbeddings(nn.Module):
    """UNITER's: LN(LN(W_f f) + LN(W_p p) + type), dropout; p = x1, y1, x2, y2, w, h, w * h, all normalised.

    A masked region has its feature set to zero and a learned feature-space vector added; its box stays
    (model/model.py:255-272). Names as in UNITER's `img_embeddings`.
    """

    def __init__(self, feature_dim: int, hidden: int, *, dropout: float, norm_eps: float) -> None:
        super().__init__()
        self.img_linear = nn.Linear(feature_dim, hidden)
        self.img_layer_norm = nn.LayerNorm(hidden, eps=norm_eps)
        self.pos_layer_norm = nn.LayerNorm(hidden, eps=norm_eps)
        self.pos_linear = nn.Linear(7, hidden)
        # row 1 is the mask; row 0 exists only in the published state dict, where it is forced to zero
        self.mask_embedding = nn.Embedding(2, feature_dim, padding_idx=0)
        self.LayerNorm = nn.LayerNorm(hidden, eps=norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, regions: RegionInput, type_H: Tensor) -> Tensor:
        """(R, H)."""
        masked_R1 = regions.masked_R[:, None]
        features_RD = torch.where(
            masked_R1, self.mask_embedding.weight[1], regions.features_RD.to(self.img_linear.weight.dtype)
        )
        appearance_RH = self.img_layer_norm(self.img_linear(features_RD))
        place_RH = self.pos_layer_norm(self.pos_linear(geometry_7(regions.boxes_R4)))
        embedded_RH: Tensor = self.dropout(self.LayerNorm(appearance_RH + place_RH + type_H))
        return embedded_RH


class VisualTokenEmbeddings(nn.Module):
    """VideoBERT's visual words: one row a token, then the mask and `[>]`, the sign between text and video.

    The paper initialises the rows with the vocabulary's centroids and freezes them ([memory], reference/training.md
    §1.8); `centroids_KD` of another size than the encoder go through a learned projection.
    """

    def __init__(self, vocabulary: int, hidden: int, *, centroid_dim: int | None = None, frozen: bool = False) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        width = centroid_dim or hidden
        self.tokens = nn.Embedding(vocabulary, width)
        self.tokens.weight.requires_grad_(not frozen)
        self.special = nn.Embedding(2, hidden)
        """Row 0 the mask, row 1 `[>]`."""
        self.projection = nn.Linear(width, hidden) if width != hidden else nn.Identity()

    def forward(self, ids_V: Tensor) -> Tensor:
        """(V, H) for ids 0 ... vocabulary - 1, `vocabulary` (mask) and `vocabulary + 1` (`[>]`)."""
        is_special_V1 = (ids_V >= self.vocabulary)[:, None]
        words_VH = self.projection(self.tokens(ids_V.clamp(max=self.vocabulary - 1)))
        special_VH = self.special((ids_V - self.vocabulary).clamp(min=0))
        return torch.where(is_special_V1, special_VH, words_VH)

    def load_centroids(self, centroids_KD: Tensor) -> None:
        """Start from the visual vocabulary's leaves, moved to mean zero and scaled to the spread of the other
        embeddings: features have any scale, and large ones would drown the positions they are added to. Absent leaves
        (zeros) stay zeros.
        """
        with torch.no_grad():
            present_K1 = centroids_KD.any(1, keepdim=True)
            centred_KD = (centroids_KD - centroids_KD[present_K1[:, 0]].mean(0)) * present_K1
            spread = (self.projection(centred_KD) - self.projection(torch.zeros_like(centred_KD[:1]))).std()
            self.tokens.weight.copy_(centred_KD * (self.special.weight.std() / spread.clamp(min=1e-12)))


def geometry_7(boxes_R4: Tensor) -> Tensor:
    """UNITER's x1, y1, x2, y2, w, h, w * h from normalised corners (data/data.py:250)."""
    sides_R2 = boxes_R4[:, 2:] - boxes_R4[:, :2]
    return torch.cat([boxes_R4, sides_R2, sides_R2.prod(1, keepdim=True)], dim=1)
