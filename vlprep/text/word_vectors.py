"""Word vectors (word2vec) for narration, as HowTo100M-style models read it.

Files: the original binary (`GoogleNews-vectors-negative300.bin`, also gzipped), its text form, gensim's own `.kv`, and
MIL-NCE's dictionary (`dict.npy`, `s3d_dict.npy`: words only, with the vectors of `word2vec.pth` where that lies beside
it). The first reading turns any of them into a folder with `words.txt` and `vectors.npy` under the cache; from then on
the matrix is memory-mapped, so that many processes share one copy and start in a second. gensim's own format is a
pickle; it is read by a loader that builds arrays only.

Rules of the published code: words are runs of `[\\w']+` (HowTo100M youtube_dataloader.py, S3D_HowTo100M s3dg.py), in
the text's own case for word2vec (HowTo100M, MIL-NCE) and lower case for s3dg.py; a word without a vector is left out;
then the first `max_words` are kept, here by the objectives (30 in HowTo100M's loader, 20 in its README, 16 in s3dg.py).
Its `caption.json` had the words of `stop_words.txt` taken out (HowTo100M stop_words.py), its `raw_caption.json` did
not.

Shape suffixes: V vocabulary, D vector size, W words of a text.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlprep import safe_pickle
from vlprep.errors import SettingsError
from vlprep.weights import load_array

WORD = re.compile(r"[\w']+")
WORDS_NAME, VECTORS_NAME = "words.txt", "vectors.npy"
"""One word a line, row by row, and the (V, D) matrix."""
MIL_NCE_VECTORS = "word2vec.pth"

_MOST_MISSED = 10
_GENSIM = frozenset({"gensim.models.keyedvectors", "gensim.models.word2vec"})


@cache
def stop_words() -> frozenset[str]:
    """HowTo100M's list of English words that say nothing about the picture."""
    return frozenset(resources.files("vlprep.text").joinpath("stop_words.txt").read_text("utf-8").split())


def split_words(text: str, *, lower: bool = False, without: frozenset[str] = frozenset()) -> list[str]:
    """The words of a text in order, less those in `without` (compared in lower case)."""
    found = WORD.findall(text.lower() if lower else text)
    return [word for word in found if word.lower() not in without]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much of some texts has vectors."""

    texts: int
    silent: int
    """Texts of which no word has a vector."""
    words: int
    unknown: int
    """Occurrences of words without a vector."""
    most_missed: tuple[tuple[str, int], ...]

    @property
    def unknown_rate(self) -> float:
        return self.unknown / self.words if self.words else 0.0


@dataclass(frozen=True, slots=True)
class WordVectors:
    """A vocabulary with its vectors, memory-mapped."""

    index: dict[str, int]
    vectors_VD: NDArray[np.float32]

    @property
    def dim(self) -> int:
        """0 for a dictionary without vectors."""
        return int(self.vectors_VD.shape[1])

    def ids(self, words: Iterable[str]) -> NDArray[np.int64]:
        """(W,) row numbers of the words that have vectors."""
        return np.array([self.index[word] for word in words if word in self.index], np.int64)

    def coverage(self, texts: Iterable[list[str]]) -> Coverage:
        """Count what has no vector."""
        missed: Counter[str] = Counter()
        number = silent = words = 0
        for text in texts:
            unknown = [word for word in text if word not in self.index]
            number += 1
            words += len(text)
            silent += len(unknown) == len(text)
            missed.update(unknown)
        return Coverage(
            texts=number,
            silent=silent,
            words=words,
            unknown=missed.total(),
            most_missed=tuple(missed.most_common(_MOST_MISSED)),
        )


def open_word_vectors(path: Path) -> WordVectors:
    """Open word vectors in any of the formats above; `SettingsError` names the file where it is none of them.

    The converted copy lies in `~/.cache/vlprep/word-vectors`, named after the file, its size and its time.
    """
    if not path.is_file():
        raise SettingsError(f"{path}: no such word-vector file (GoogleNews-vectors-negative300.bin or a like one)")
    folder = _cache() / _cache_key(path)
    if not folder.is_dir():
        words, vectors_VD = _read(path)
        _write_cache(folder, words, vectors_VD)
    return read_word_folder(folder)


def read_word_folder(folder: Path) -> WordVectors:
    """Raises `SettingsError` where `WORDS_NAME` or `VECTORS_NAME` is missing."""
    try:
        words = folder.joinpath(WORDS_NAME).read_text("utf-8").split("\n")
        vectors_VD = np.load(folder / VECTORS_NAME, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise SettingsError(f"{folder}: no folder of word vectors ({error})") from error
    return WordVectors({word: row for row, word in enumerate(words)}, vectors_VD)


def write_word_folder(folder: Path, words: Iterable[str], vectors_VD: NDArray[np.float32]) -> None:
    """What `read_word_folder` reads, into a folder; the vectors may be the very ones that are mapped from there."""
    folder.joinpath(WORDS_NAME).write_text("\n".join(words), "utf-8")
    unfinished = folder / f"unfinished-{VECTORS_NAME}"
    np.save(unfinished, np.asarray(vectors_VD, np.float32))
    unfinished.replace(folder / VECTORS_NAME)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vlprep" / "word-vectors"


def _cache_key(path: Path) -> str:
    facts = path.stat()
    identity = f"{path.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}"
    return f"{path.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _read(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        start = file.read(4096)
    if start[:1] == b"\x80":
        return _read_gensim(path)
    if start[:6] == b"\x93NUMPY":
        return _read_dictionary(path)
    header = start.split(b"\n", 1)[0].split()
    if len(header) != 2 or not all(field.isdigit() for field in header):
        raise SettingsError(
            f"{path}: not word vectors; expected word2vec's binary or text form (first line: words, dimensions) "
            "gensim's .kv, or MIL-NCE's dict.npy"
        )
    return _read_word2vec(path, binary=_is_binary(start))


def _is_binary(start: bytes) -> bool:
    """After the header, word2vec's text form holds a word and printable numbers; the binary one, raw float32."""
    first_row = start.split(b"\n", 1)[1].split(b" ", 1)
    return len(first_row) < 2 or any(byte > 126 or byte < 9 for byte in first_row[1][:64])


def _read_word2vec(path: Path, *, binary: bool) -> tuple[list[str], NDArray[np.float32]]:
    from gensim.models import KeyedVectors  # a second to import, and only the first reading needs it

    try:
        read = KeyedVectors.load_word2vec_format(str(path), binary=binary, unicode_errors="ignore")
    except (ValueError, EOFError) as error:
        raise SettingsError(f"{path}: broken word-vector file ({error}); fetch it again") from error
    return list(read.index_to_key), read.vectors


def _read_gensim(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    """gensim 4 keeps `index_to_key` and `vectors`, gensim 3 `index2word`; large arrays lie beside it as .npy."""
    loaded = safe_pickle.load(path, stand_in_for=_GENSIM)
    saved = vars(getattr(loaded, "wv", loaded)) if isinstance(loaded, safe_pickle.StandIn) else {}
    words: Any = saved.get("index_to_key", saved.get("index2word"))
    vectors = saved.get("vectors")
    if vectors is None and path.with_name(path.name + ".vectors.npy").is_file():
        vectors = np.load(path.with_name(path.name + ".vectors.npy"), mmap_mode="r", allow_pickle=False)
    if words is None or vectors is None:
        raise SettingsError(f"{path}: a pickle, but not gensim's KeyedVectors (no words or no vectors in it)")
    return list(words), vectors


def _read_dictionary(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Word number i has row i + 1, row 0 is the padding (MIL-NCE video_loader.py:44-47)."""
    try:
        listed = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise SettingsError(f"{path}: not an array of words ({error})") from error
    if listed.dtype.kind != "U" or listed.ndim != 1:
        raise SettingsError(f"{path}: {listed.dtype} {listed.shape}, not a list of words; expected dict.npy")
    words = ["", *listed.tolist()]
    beside = path.with_name(MIL_NCE_VECTORS)
    if not beside.is_file():
        return words, np.empty((len(words), 0), np.float32)
    vectors_VD = load_array(beside).numpy()
    if vectors_VD.ndim != 2 or len(vectors_VD) != len(words):
        found = " x ".join(map(str, vectors_VD.shape))
        raise SettingsError(f"{beside}: {found}, but {path.name} has {len(words) - 1} words, and a row for padding")
    return words, vectors_VD


def _write_cache(folder: Path, words: list[str], vectors_VD: NDArray[np.float32]) -> None:
    """Whole or not at all: a folder of another name, renamed when complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        write_word_folder(made, words, vectors_VD)
        if not folder.is_dir():
            made.rename(folder)
