"""MIL-NCE's text tower: word ids into the 512-d joint space of S3D-G's `fc`.

Similarity is the dot product of the two, neither normalised. S3D_HowTo100M@b8cd0bb s3dg.py:186-237. Parameter names are
those of `text_module.*` in `s3d_howto100m.pth`.
Shape suffixes: N texts, W words (padded), H hidden size, D = 512.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TextTower(nn.Module):
    """Word vectors, a hidden layer for each word, the maximum over words, a projection."""

    def __init__(self, words: int, embedding: int = 300, hidden: int = 2048, joint: int = 512) -> None:
        """`words` of the dictionary, the padding among them."""
        super().__init__()
        self.word_embd = nn.Embedding(words, embedding)
        self.fc1 = nn.Linear(embedding, hidden)
        self.fc2 = nn.Linear(hidden, joint)

    def forward(self, ids_NW: Tensor) -> Tensor:
        """(N, D). The maximum takes in padding (id 0), as in training; so a text with padding and one without differ,
        while the amount of padding does not matter."""
        hidden_NWH: Tensor = torch.relu(self.fc1(self.word_embd(ids_NW)))
        projected_ND: Tensor = self.fc2(hidden_NWH.amax(1))
        return projected_ND
