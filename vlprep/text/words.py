"""Texts as rows of a table of word vectors: what HowTo100M and MIL-NCE read in place of pieces.

A choice is `words:PATH`, a file of `vlprep.text.word_vectors` or a text store made by one, or `words:train:300`,
vectors of that size trained on the dataset's own texts (word2vec's skip-gram with negative sampling, by gensim), which
needs no download and is the same for the same texts. Words without a vector are left out.

Of word2vec's files the text's own case counts and stop words are left out, as of HowTo100M's `caption.json`; of
MIL-NCE's dictionary lower case and every word that it has (S3D_HowTo100M s3dg.py; deviation: MIL-NCE's training loader
keeps the case, and so drops words with a capital that the dictionary has not); of trained vectors lower case, without
stop words.

Shape suffixes: V rows of the table, D vector size, N words.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlprep.errors import SettingsError
from vlprep.text.word_vectors import (
    VECTORS_NAME,
    Coverage,
    WordVectors,
    open_word_vectors,
    read_word_folder,
    split_words,
    stop_words,
    write_word_folder,
)

PREFIX = "words:"
_SMALL = 2**28
"""Bytes up to which a table is copied beside the texts; a larger one (GoogleNews: 3.6 GB) stays where it is."""
_TRAINED = re.compile(r"words:train:(\d+)")
_EPOCHS = 20


class VectorTable:
    """The (V, D) vectors behind word ids, memory-mapped; small to pickle (its path)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.vectors_VD: NDArray[np.float32] = np.load(path, mmap_mode="r")

    def __reduce__(self) -> tuple[type[VectorTable], tuple[Path]]:
        return VectorTable, (self.path,)

    @property
    def dim(self) -> int:
        return int(self.vectors_VD.shape[1])

    def __getitem__(self, ids_N: NDArray[Any]) -> NDArray[np.float32]:
        """(N, D), a copy."""
        vectors_ND: NDArray[np.float32] = self.vectors_VD[ids_N]
        return vectors_ND


@dataclass(frozen=True, slots=True, kw_only=True)
class WordEncoder:
    """From texts to word ids; for words what `Tokenizer` is for pieces."""

    name: str
    """The choice that made it."""
    vectors: WordVectors
    lower: bool
    stop_words: bool
    """Whether they are kept."""

    @property
    def size(self) -> int:
        return len(self.vectors.vectors_VD)

    @property
    def padding(self) -> int:
        """The row that MIL-NCE's dictionary has for padding; -1 in tables without one."""
        return self.vectors.index.get("", -1)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Row numbers of each text's known words."""
        return [self.vectors.ids(self._words(text)).tolist() for text in texts]

    def coverage(self, texts: Iterable[str]) -> Coverage:
        """What has no vector."""
        return self.vectors.coverage(self._words(text) for text in texts)

    def settings(self) -> dict[str, Any]:
        """What a store says of it: stores of one `sha256` have the same ids."""
        digest = hashlib.sha256("\n".join(self.vectors.index).encode())
        digest.update(np.ascontiguousarray(self.vectors.vectors_VD).data)
        digest.update(bytes([self.lower, self.stop_words]))
        return {
            "tokenizer": self.name,
            "vocabulary": self.size,
            "sha256": digest.hexdigest(),
            "lower": self.lower,
            "stop_words": self.stop_words,
        }

    def keep(self, folder: Path) -> None:
        """Write the table beside a store, if it is small or was trained and lies nowhere else."""
        if self.vectors.vectors_VD.nbytes <= _SMALL or _TRAINED.fullmatch(self.name):
            write_word_folder(folder, self.vectors.index, self.vectors.vectors_VD)

    def table(self) -> VectorTable:
        """The vectors, for a model or its loader processes."""
        assert isinstance(self.vectors.vectors_VD, np.memmap)  # what was opened from a file or a store
        return VectorTable(Path(str(self.vectors.vectors_VD.filename)))

    def _words(self, text: str) -> list[str]:
        return split_words(text, lower=self.lower, without=frozenset() if self.stop_words else stop_words())


def is_words(choice: str) -> bool:
    """Whether a tokenizer's name means words, not pieces."""
    return choice.startswith(PREFIX)


def open_words(choice: str, texts: Callable[[], Iterable[str]]) -> WordEncoder:
    """Make the encoder that `choice` means. `texts` gives what `words:train:DIM` is trained on.

    Raises `SettingsError` for a file of another kind, and where there is nothing to train on.
    """
    if match := _TRAINED.fullmatch(choice):
        return WordEncoder(name=choice, vectors=_train(choice, int(match[1]), texts()), lower=True, stop_words=False)
    vectors = open_word_vectors(path_of(choice))
    is_dictionary = "" in vectors.index  # the padding
    return WordEncoder(name=choice, vectors=vectors, lower=is_dictionary, stop_words=is_dictionary)


def open_store_words(folder: Path, settings: Mapping[str, Any]) -> WordEncoder:
    """The encoder that a text store was made with, of the `settings` in its manifest."""
    name = str(settings["tokenizer"])
    vectors = read_word_folder(folder) if (folder / VECTORS_NAME).is_file() else open_word_vectors(path_of(name))
    if len(vectors.vectors_VD) != settings["vocabulary"]:
        raise SettingsError(
            f"{name}: no longer the file that {folder} was made with ({settings['vocabulary']:,} words)"
        )
    return WordEncoder(name=name, vectors=vectors, lower=settings["lower"], stop_words=settings["stop_words"])


def path_of(choice: str) -> Path:
    """PATH of `words:PATH`."""
    return Path(choice.removeprefix(PREFIX)).expanduser()


def _train(choice: str, dim: int, texts: Iterable[str]) -> WordVectors:
    from gensim.models import Word2Vec  # a second to import

    sentences = [split_words(text, lower=True, without=stop_words()) for text in texts]
    if dim < 1 or not any(sentences):
        raise SettingsError(f"--tokenizer {choice}: there are no words to train on, or no vectors of that size")
    # one worker and a seed: several would update the vectors in an order that differs from run to run
    model = Word2Vec(sentences, vector_size=dim, min_count=1, sg=1, epochs=_EPOCHS, seed=1, workers=1)
    words = list(model.wv.index_to_key)
    return WordVectors({word: row for row, word in enumerate(words)}, _centred(model.wv.vectors))


def _centred(vectors_VD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without their mean, and as long as before (Mu and Viswanath 2018, "All-but-the-top"). Of a small corpus all words
    have nearly the same vector, and what tells them apart is lost in what is common to them.
    """
    apart_VD = vectors_VD - vectors_VD.mean(0)
    length = np.linalg.norm(apart_VD)
    return apart_VD * (np.linalg.norm(vectors_VD) / length) if length else vectors_VD
