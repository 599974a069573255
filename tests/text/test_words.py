"""Texts as words with vectors: what is kept of a text by each kind of file, and what a store keeps of the vectors."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from vlprep.errors import SettingsError
from vlprep.text import words
from vlprep.text.words import open_store_words, open_words


@pytest.fixture
def word2vec(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("3 2\nthe 1 2\nPan 3 4\nflip 5 6\n")
    return path


@pytest.fixture
def dictionary(tmp_path):
    path = tmp_path / "dict.npy"
    np.save(path, np.array(["the", "pan", "flip"]))
    return path


def no_texts():
    return pytest.fail("nothing is to be trained")


def test_word2vec_has_the_texts_case_and_no_stop_words(word2vec):
    encoder = open_words(f"words:{word2vec}", no_texts)
    assert encoder.encode(["flip the Pan", "Flip the pan!", "Pan, Pan"]) == [[2, 1], [], [1, 1]]
    coverage = encoder.coverage(["flip the Pan", "Flip the pan!"])
    assert (coverage.words, coverage.unknown, coverage.silent) == (4, 2, 1)


def test_mil_nces_dictionary_has_lower_case_and_counts_from_one(dictionary):
    encoder = open_words(f"words:{dictionary}", no_texts)
    assert encoder.encode(["Flip the big pan"]) == [[3, 1, 2]]
    assert (encoder.size, encoder.table().dim) == (4, 0)


def test_mil_nces_vectors_lie_beside_its_dictionary(dictionary):
    vectors_VD = torch.arange(8.0).reshape(4, 2)
    torch.save(vectors_VD, dictionary.with_name("word2vec.pth"))
    table = open_words(f"words:{dictionary}", no_texts).table()
    np.testing.assert_array_equal(table[np.array([3, 0])], [[6, 7], [0, 1]])
    torch.save(vectors_VD[:3], dictionary.with_name("word2vec.pth"))
    other = dictionary.rename(dictionary.with_name("s3d_dict.npy"))
    with pytest.raises(SettingsError, match=r"3 x 2, but s3d_dict\.npy has 3 words"):
        open_words(f"words:{other}", no_texts)


def test_what_is_no_dictionary_says_so(tmp_path):
    np.save(tmp_path / "features.npy", np.zeros((3, 4)))
    with pytest.raises(SettingsError, match=r"features\.npy.*not a list of words"):
        open_words(f"words:{tmp_path / 'features.npy'}", no_texts)
    with pytest.raises(SettingsError, match="no words to train on"):
        open_words("words:train:10", lambda: ["the of", ""])


def test_a_store_needs_no_other_file(word2vec, tmp_path):
    made = open_words(f"words:{word2vec}", no_texts)
    (tmp_path / "store").mkdir()
    made.keep(tmp_path / "store")
    word2vec.unlink()
    opened = open_store_words(tmp_path / "store", made.settings())
    assert opened.encode(["flip the Pan"]) == [[2, 1]]
    table = pickle.loads(pickle.dumps(opened.table()))
    np.testing.assert_array_equal(table[np.array([1])], [[3, 4]])


def test_a_large_table_stays_where_it_is_and_may_not_change(word2vec, tmp_path, monkeypatch):
    monkeypatch.setattr(words, "_SMALL", 10)
    made = open_words(f"words:{word2vec}", no_texts)
    (tmp_path / "store").mkdir()
    made.keep(tmp_path / "store")
    assert not list((tmp_path / "store").iterdir())
    assert open_store_words(tmp_path / "store", made.settings()).settings() == made.settings()
    word2vec.write_text("2 2\nthe 1 2\nPan 3 4\n")
    with pytest.raises(SettingsError, match="no longer the file"):
        open_store_words(tmp_path / "store", made.settings())


def test_trained_vectors_share_no_direction() -> None:
    """Of so few texts word2vec's own would all be nearly the same."""
    texts = [f"{colour} {shape} moving" for colour in ("red", "green", "blue") for shape in ("square", "ring")]
    vectors_VD = open_words("words:train:10", lambda: texts * 20).vectors.vectors_VD
    np.testing.assert_allclose(vectors_VD.mean(0), 0, atol=1e-6)
    assert np.linalg.norm(vectors_VD, axis=1).min() > 0
    alone_VD = open_words("words:train:10", lambda: ["red"]).vectors.vectors_VD
    assert np.linalg.norm(alone_VD) > 0


def test_a_trained_table_is_kept_however_large(tmp_path, monkeypatch):
    monkeypatch.setattr(words, "_SMALL", 10)
    made = open_words("words:train:4", lambda: ["flip the pancake over", "cut the onion"])
    made.keep(tmp_path)
    assert open_store_words(tmp_path, made.settings()).vectors.index == made.vectors.index
