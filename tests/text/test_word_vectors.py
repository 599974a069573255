"""Word vectors in every format, and HowTo100M's rules for words."""

from __future__ import annotations

import gzip
import pickle
import shutil

import numpy as np
import pytest

from vlprep.errors import SettingsError
from vlprep.text.word_vectors import Coverage, open_word_vectors, split_words, stop_words

WORDS = ["the", "pancake", "Flip", "it's", "crêpe"]


@pytest.fixture
def keyed():
    from gensim.models import KeyedVectors

    vectors = KeyedVectors(8)
    vectors.add_vectors(WORDS, np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32))
    return vectors


@pytest.fixture(params=["bin", "txt", "bin.gz", "kv", "kv.separate"])
def saved(request, keyed, tmp_path):
    path = tmp_path / f"vectors.{request.param}"
    match request.param:
        case "kv":
            keyed.save(str(path))
        case "kv.separate":
            keyed.save(str(path), sep_limit=0)
            assert path.with_name(path.name + ".vectors.npy").is_file()
        case "bin.gz":
            keyed.save_word2vec_format(str(tmp_path / "plain"), binary=True)
            with (tmp_path / "plain").open("rb") as plain, gzip.open(path, "wb") as packed:
                shutil.copyfileobj(plain, packed)
        case form:
            keyed.save_word2vec_format(str(path), binary=form == "bin")
    return path


def test_every_format_gives_the_same_vectors(saved, keyed) -> None:
    vectors = open_word_vectors(saved)
    assert list(vectors.index) == WORDS
    np.testing.assert_allclose(vectors.vectors_VD, keyed.vectors, rtol=1e-6)
    assert isinstance(vectors.vectors_VD, np.memmap)


def test_the_second_opening_reads_the_cache(saved, monkeypatch) -> None:
    open_word_vectors(saved)
    monkeypatch.setattr("vlprep.text.word_vectors._read", lambda path: pytest.fail("read again"))
    assert len(open_word_vectors(saved).index) == 5


def test_words() -> None:
    assert split_words("Don't flip it, crêpe-maker 2!") == ["Don't", "flip", "it", "crêpe", "maker", "2"]
    assert split_words("Flip THE pancake", lower=True, without=stop_words()) == ["flip", "pancake"]
    assert {"the", "gonna", "there's"} <= stop_words()
    assert "pancake" not in stop_words()


def test_coverage_counts_what_is_missing(saved) -> None:
    vectors = open_word_vectors(saved)
    coverage = vectors.coverage([["the", "egg", "egg"], ["milk"], ["Flip"]])
    assert coverage == Coverage(texts=3, silent=1, words=5, unknown=3, most_missed=(("egg", 2), ("milk", 1)))
    assert coverage.unknown_rate == 0.6


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"word,vector\n1,2\n", "not word vectors"), (b"5 8\nthe \x00\x01", "broken|fetch"), (b"", "not word vectors")],
)
def test_other_files_are_refused_by_name(tmp_path, content: bytes, complaint: str) -> None:
    path = tmp_path / "vectors.bin"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=complaint) as caught:
        open_word_vectors(path)
    assert "vectors.bin" in str(caught.value)


def test_a_pickle_with_code_is_refused(tmp_path) -> None:
    path = tmp_path / "vectors.kv"
    path.write_bytes(pickle.dumps(shutil.rmtree))
    with pytest.raises(SettingsError, match=r"shutil\.rmtree"):
        open_word_vectors(path)
