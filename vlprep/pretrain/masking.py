"""Who is masked: pure functions of a generator, which itself is a pure function of (seed, epoch, sample, objective).

So a mask does not depend on the batch, the worker or the rank, a resumed run draws the same ones, and validation with a
fixed epoch is the same at every step.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vlprep.text.words import VectorTable

Ints = NDArray[np.int64]

MASK_RATE = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class TextVocabulary:
    """The ids that masking and packing need of a tokenizer."""

    size: int
    pad: int
    cls: int
    sep: int
    mask: int
    first_word: int
    """Random replacements are drawn from `first_word` to `size` - 1 (UNITER: from the id of "!", mlm.py:31-40)."""
    class_names: tuple[tuple[int, ...], ...] = ()
    """Pieces of the name of each foreground class, for tags."""
    answers: Mapping[str, int] = field(default_factory=dict)
    """The class of each answer to questions about images."""
    vectors: VectorTable | None = None
    """Where ids are those of words with vectors; there are then no special tokens (-1)."""


def generator(seed: int, epoch: int, key: int, objective: str) -> np.random.Generator:
    """Counter-based (Philox): drawing for one sample costs nothing for the others."""
    words = np.random.SeedSequence([seed, epoch, key, zlib.crc32(objective.encode())]).generate_state(2, np.uint64)
    return np.random.Generator(np.random.Philox(key=words))


def mask_words(ids: Ints, vocabulary: TextVocabulary, draw: np.random.Generator) -> tuple[Ints, Ints]:
    """Mask text pieces (without special tokens): (masked ids, target positions)."""
    return mask_tokens(ids, draw, mask=vocabulary.mask, replacements=range(vocabulary.first_word, vocabulary.size))


def mask_tokens(
    ids: Ints,
    draw: np.random.Generator,
    *,
    mask: int,
    replacements: range,
    force_one: bool = True,
) -> tuple[Ints, Ints]:
    """BERT's masking: (masked ids, target positions).

    15 % of the tokens, each by itself: 80 % `mask`, 10 % one of `replacements`, 10 % kept. With `force_one` (UNITER
    mlm.py:49-52) the first token becomes `mask` where nothing was drawn.
    """
    chance, action = draw.random((2, len(ids)))
    others = draw.integers(replacements.start, replacements.stop, len(ids))
    targets = np.flatnonzero(chance < MASK_RATE)
    masked = ids.copy()
    masked[targets] = np.select([action[targets] < 0.8, action[targets] < 0.9], [mask, others[targets]], ids[targets])
    if force_one and not len(targets) and len(ids):
        targets = np.zeros(1, np.int64)
        masked[0] = mask
    return masked, targets


def mask_rows(count: int, draw: np.random.Generator, *, force_one: bool = True) -> NDArray[np.bool_]:
    """15 % of the regions (frames), each by itself; with `force_one` a uniformly chosen one where none was (UNITER
    mrm.py:15-24, HERO mfm.py)."""
    masked = draw.random(count) < MASK_RATE
    if force_one and count and not masked.any():
        masked[draw.integers(count)] = True
    return masked


@dataclass(frozen=True, slots=True)
class MaskedRegions:
    """What became of an image's regions; three (R,) bool arrays, the last two parts of the first."""

    targets_R: NDArray[np.bool_]
    hidden_R: NDArray[np.bool_]
    """Feature set to zero."""
    replaced_R: NDArray[np.bool_]
    """Feature of another image's region."""


def mask_regions(count: int, draw: np.random.Generator, *, hidden: float, replaced: float = 0.0) -> MaskedRegions:
    """15 % of the regions, each by itself, nothing forced; of these a share is hidden, a share replaced, others kept.

    LXMERT hides 0.8 and replaces 0.1 (lxmert_pretrain.py:110-131), ViLBERT hides 0.9 (concept_cap_dataset.py:650-655).
    """
    chance, action = draw.random((2, count))
    targets = chance < MASK_RATE
    return MaskedRegions(
        targets, targets & (action < hidden), targets & (hidden <= action) & (action < hidden + replaced)
    )
