"""`vlprep tokenize`: the text store, and what word vectors would miss."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from vlprep.shards import StoreReader


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    texts = ["the pancake is on the pan", "a Pancake", "the"]
    (tmp_path / "captions.jsonl").write_text(
        "".join(json.dumps({"image": "a.jpg", "caption": text}) + "\n" for text in texts)
    )
    return tmp_path


@pytest.fixture
def vectors(folder):
    """Of one word only."""
    path = folder / "vectors.txt.gz"
    from gensim.models import KeyedVectors

    keyed = KeyedVectors(4)
    keyed.add_vectors(["pancake", "the"], np.eye(2, 4, dtype=np.float32))
    keyed.save_word2vec_format(str(path), binary=False)
    return path


def test_the_store_is_made_and_found_again(vlprep, document, folder):
    result = vlprep("tokenize", folder, "--tokenizer", "train:60")
    assert result.exit_code == 0, result.stderr
    assert "3 of 3 done, 0 failed" in result.stdout
    assert len(StoreReader(folder / "vlprep" / "text")) == 3
    again = document("tokenize", folder, "--tokenizer", "train:60")
    assert (again["pieces"], again["status"]["rows"], again["word_vectors"]) == (0, 3, None)


def test_words_without_vectors_are_counted(vlprep, document, folder, vectors):
    arguments = ["tokenize", folder, "--tokenizer", "train:60", "--word-vectors", vectors]
    coverage = document(*arguments)["word_vectors"]
    # pancake, pan | Pancake | nothing but a stop word: vectors know the case, and stop words do not count
    assert (coverage["words"], coverage["unknown"], coverage["texts"], coverage["silent"]) == (3, 2, 3, 2)
    assert coverage["unknown_rate"] == pytest.approx(2 / 3)
    text = vlprep(*arguments).stdout
    assert "2 of 3 words (66.7 %)" in text
    assert "pan 1" in text


def test_errors_name_the_option_or_the_file(vlprep, folder):
    for arguments, named in (
        (["--tokenizer", "train:many"], "train:many"),
        (["--word-vectors", folder / "none.bin"], "none.bin"),
    ):
        result = vlprep("tokenize", folder, *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert named in result.stderr
