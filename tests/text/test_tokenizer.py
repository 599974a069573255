"""Tokenizers: BERT's own rules, training that repeats itself, clear refusals."""

from __future__ import annotations

import pytest

from vlprep.errors import SettingsError
from vlprep.text.tokenizer import SPECIALS, open_tokenizer

TEXTS = ["A red circle left of a blue star.", "two green squares; a Red star", "the blue circle is small"] * 20
PIECES = [*SPECIALS, "!", "a", "red", "circle", "##s", "star", "naïve", "na", "##ive"]


@pytest.fixture
def vocab(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n", "utf-8")
    return path


def test_vocab_txt_equals_transformers_bert_tokenizer(vocab) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertTokenizer(vocab=str(vocab), do_lower_case=True)
    ours = open_tokenizer(str(vocab))
    for text in ("A RED circle's stars!", "Naïve reds, unknownword", ""):
        assert ours.encode([text]) == [theirs.encode(text, add_special_tokens=False)], text


def test_a_cased_vocabulary_keeps_case(tmp_path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIALS, "Red", "red"]), "utf-8")
    assert open_tokenizer(str(path)).encode(["Red red RED"]) == [[5, 6, 1]]


def test_ties_are_broken_alike_every_time() -> None:
    """Every pair of letters occurs once or twice; the library numbers pieces by a hash table with random keys."""
    texts = ["cut the onion", "fry the rice", "boil water", "serve it hot", "chop garlic", "mix dough by hand"]
    made = {open_tokenizer("train:80", lambda: iter(texts)).backend.to_str() for _ in range(12)}
    assert len(made) == 1


def test_training_needs_nothing_and_repeats_itself(tmp_path) -> None:
    saved = []
    for _ in range(3):
        tokenizer = open_tokenizer("train:60", lambda: iter(TEXTS))
        tokenizer.keep(tmp_path)
        saved.append((tmp_path / "tokenizer.json").read_bytes())
    assert saved[0] == saved[1] == saved[2]
    assert tokenizer.size <= 60
    [ids] = tokenizer.encode(["a red circle"])
    assert tokenizer.decode(ids) == "a red circle"
    assert tokenizer.special("[UNK]") not in ids
    assert tokenizer.first_word == 5


def test_a_saved_tokenizer_opens_again(tmp_path, vocab) -> None:
    ours = open_tokenizer(str(vocab))
    ours.keep(tmp_path)
    for again in (open_tokenizer(str(tmp_path / "tokenizer.json")), open_tokenizer(str(tmp_path))):
        assert again.encode(["a red circle!"]) == ours.encode(["a red circle!"])
        assert again.first_word == ours.first_word == 5


def test_the_first_word_of_berts_vocabulary_is_the_exclamation_mark(tmp_path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text(
        "\n".join(["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", "!", "a"]), "utf-8"
    )
    assert open_tokenizer(str(path)).first_word == 7


@pytest.mark.parametrize(
    ("choice", "complaint"),
    [
        ("missing.txt", "no such file"),
        ("missing.json", "no such file"),
        ("train:3", "more than 5"),
        ("a b c", "neither"),
    ],
)
def test_refusals_name_the_choice(choice: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint) as caught:
        open_tokenizer(choice, lambda: iter(TEXTS))
    assert choice in str(caught.value)


def test_other_files_are_refused(tmp_path) -> None:
    (tmp_path / "words.txt").write_text("red\nblue\n")
    with pytest.raises(SettingsError, match="not a BERT vocab"):
        open_tokenizer(str(tmp_path / "words.txt"))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(SettingsError, match="not a tokenizer"):
        open_tokenizer(str(tmp_path / "other.json"))


def test_offline_says_what_to_fetch(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SettingsError, match="train:8000"):
        open_tokenizer("bert-base-uncased")
