"""MIL-NCE's text tower with its weights and dictionary: narration into the joint space of `s3d-howto100m`.

The network is `vlprep.networks.text_tower`. S3D_HowTo100M@b8cd0bb s3dg.py:186-237;
MIL-NCE_HowTo100M@b282b15 video_loader.py:96-116.
Shape suffixes: N texts, W words (padded), V words of the dictionary with the padding, D = 512.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlprep.clips.network import fill
from vlprep.clips.presets import S3D_DICTIONARY, S3D_HOWTO100M
from vlprep.errors import SettingsError
from vlprep.networks.text_tower import TextTower
from vlprep.text.word_vectors import split_words
from vlprep.weights import WeightsRecord, describe, load_arrays, resolve, sha256_of

_PREFIX = "text_module."
_EMBEDDING = f"{_PREFIX}word_embd.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class WordIds:
    """From texts to word ids: position in the dictionary plus 1, unknown words left out, 0 for padding."""

    ids: Mapping[str, int]
    max_words: int = 16
    """16 in S3D_HowTo100M; 20 in MIL-NCE's training, 30 in its evaluation."""
    lower: bool = True
    """S3D_HowTo100M's rule. MIL-NCE's repository keeps the case, and so loses capitalised words."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, W) int64, W = `max_words`."""
        ids_NW = torch.zeros(len(texts), self.max_words, dtype=torch.int64)
        for row, text in enumerate(texts):
            known = [self.ids[word] for word in split_words(text, lower=self.lower) if word in self.ids]
            kept = known[: self.max_words]
            ids_NW[row, : len(kept)] = torch.tensor(kept, dtype=torch.int64)
        return ids_NW


def read_dictionary(path: Path) -> dict[str, int]:
    """Word ids of `s3d_dict.npy`, an array of words."""
    try:
        words = np.load(path, allow_pickle=False)
    except (ValueError, OSError) as error:
        raise SettingsError(f"{path}: not an array of words ({error}); fetch it from {S3D_DICTIONARY.page}") from error
    if words.dtype.kind != "U" or words.ndim != 1:
        raise SettingsError(f"{path}: {words.dtype} {words.shape}, not a list of words; expected s3d_dict.npy")
    return {str(word): position + 1 for position, word in enumerate(words)}


class TextEncoder:
    """The tower with its dictionary, on a device, in float32."""

    def __init__(self, tower: TextTower, words: WordIds, weights: WeightsRecord, device: torch.device) -> None:
        self.words = words
        self.weights = weights
        self._device = device
        self._tower = tower.requires_grad_(False).eval().to(device)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(N, D) float32."""
        return self.encode_ids(self.words(texts))

    @torch.inference_mode()
    def encode_ids(self, ids_NW: Tensor) -> Tensor:
        """(N, D) float32, of ids of another tokeniser or length."""
        embedded_ND: Tensor = self._tower(ids_NW.to(self._device))
        return embedded_ND


def build_text_encoder(
    *,
    weights: str | Path | None = None,
    dictionary: str | Path | None = None,
    device: str = "cpu",
    max_words: int = 16,
    lower: bool = True,
) -> TextEncoder:
    """Load the text tower of `s3d_howto100m.pth`, the file that the video network comes from, and `s3d_dict.npy`.

    Raises:
        SettingsError: A file cannot be had, has no text tower, or the two do not belong together.
    """
    path = resolve(weights, default=S3D_HOWTO100M)
    ids = read_dictionary(resolve(dictionary, default=S3D_DICTIONARY))
    arrays = load_arrays(path)
    if _EMBEDDING not in arrays:
        raise SettingsError(f"{path}: no text tower ({_EMBEDDING}) in this file; expected s3d_howto100m.pth")
    rows = len(arrays[_EMBEDDING])
    if rows != len(ids) + 1:
        raise SettingsError(f"{path}: vectors for {rows - 1} words, but the dictionary has {len(ids)}")
    with torch.device("meta"):
        tower = TextTower(rows)
    texts = {name.removeprefix(_PREFIX): value for name, value in arrays.items() if name.startswith(_PREFIX)}
    fill(tower, texts, path)
    record = WeightsRecord(source=describe(weights, default=S3D_HOWTO100M), sha256=sha256_of(path))
    return TextEncoder(tower, WordIds(ids=ids, max_words=max_words, lower=lower), record, torch.device(device))
