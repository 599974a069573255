"""WordPiece and other tokenizers, through the `tokenizers` library.

A choice is `bert-base-uncased` or another name on the Hub (its `tokenizer.json`, from the cache if it is there), the
path of a `tokenizer.json` or of a BERT `vocab.txt`, or `train:8000`: a WordPiece vocabulary of that size trained on the
dataset's own texts, which needs no download and is the same for the same texts.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from vlprep.errors import SettingsError

TOKENIZER_NAME = "tokenizer.json"
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A tokenizer with the special tokens that BERT-like models need."""

    backend: Backend
    name: str
    """The choice that made it."""

    @property
    def size(self) -> int:
        return int(self.backend.get_vocab_size())

    def special(self, token: str) -> int:
        """The id of one of `SPECIALS`."""
        number = self.backend.token_to_id(token)
        assert number is not None, token  # `open_tokenizer` has checked
        return int(number)

    @property
    def first_word(self) -> int:
        """The least id that may stand in for a masked word: that of "!" in BERT's vocabularies (UNITER
        data/mlm.py:31).
        """
        exclamation = self.backend.token_to_id("!")
        last_special = max(self.special(token) for token in SPECIALS)
        return int(exclamation) if exclamation and exclamation > last_special else last_special + 1

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Piece ids of each text, without special tokens."""
        return [encoding.ids for encoding in self.backend.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.backend.decode(list(ids)))

    def settings(self) -> dict[str, Any]:
        """What a store says of it: stores of one `sha256` have the same ids."""
        digest = hashlib.sha256(self.backend.to_str().encode()).hexdigest()
        return {"tokenizer": self.name, "vocabulary": self.size, "sha256": digest}

    def keep(self, folder: Path) -> None:
        """Write `tokenizer.json` into a folder."""
        self.backend.save(str(folder / TOKENIZER_NAME), pretty=False)


def open_tokenizer(choice: str, texts: Callable[[], Iterable[str]] | None = None) -> Tokenizer:
    """Make the tokenizer that `choice` means. `texts` gives what `train:SIZE` is trained on.

    Raises `SettingsError` for files of another kind, names that cannot be had, and vocabularies without BERT's
    specials.
    """
    if match := re.fullmatch(r"train:(\d+)", choice):
        if texts is None:
            raise SettingsError(f"--tokenizer {choice}: there are no texts to train on")
        return Tokenizer(_train(int(match[1]), texts), choice)
    path = Path(choice)
    if path.suffix == ".txt":
        backend = _from_vocab(path)
    elif path.suffix == ".json" or path.exists():
        backend = _from_json(path / TOKENIZER_NAME if path.is_dir() else path)
    else:
        backend = _from_hub(choice)
    missing = [token for token in SPECIALS if backend.token_to_id(token) is None]
    if missing:
        raise SettingsError(f"--tokenizer {choice}: its vocabulary has no {', '.join(missing)}")
    backend.no_padding()
    backend.no_truncation()
    return Tokenizer(backend, choice)


def wordpiece(vocabulary: dict[str, int], *, lower: bool) -> Backend:
    """BERT's tokenizer over this vocabulary."""
    backend = Backend(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lower)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend


def _train(size: int, texts: Callable[[], Iterable[str]]) -> Backend:
    """WordPiece by the library's trainer, the same for the same texts.

    The trainer breaks ties between pairs of pieces by their ids, and numbers the pieces within words in the order of a
    hash table that differs from call to call. Pieces given as special tokens are numbered in the order given.
    """
    if size <= len(SPECIALS):
        raise SettingsError(f"--tokenizer train:{size}: more than {len(SPECIALS)} pieces are needed")
    backend = wordpiece({}, lower=True)
    words = (word for text in texts() for word, _ in _words(backend, text))
    inner = sorted({f"##{letter}" for word in words for letter in word[1:]})
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=[*SPECIALS, *inner], show_progress=False)
    backend.train_from_iterator(texts(), trainer)
    pieces = sorted(piece for piece in backend.get_vocab() if piece not in SPECIALS)
    return wordpiece({piece: number for number, piece in enumerate([*SPECIALS, *pieces])}, lower=True)


def _words(backend: Backend, text: str) -> list[tuple[str, tuple[int, int]]]:
    found: list[tuple[str, tuple[int, int]]] = backend.pre_tokenizer.pre_tokenize_str(
        backend.normalizer.normalize_str(text)
    )
    return found


def _from_vocab(path: Path) -> Backend:
    if not path.is_file():
        raise SettingsError(f"--tokenizer {path}: no such file")
    pieces = path.read_text("utf-8").split("\n")
    while pieces and not pieces[-1]:
        pieces.pop()
    if "[UNK]" not in pieces:
        raise SettingsError(f"--tokenizer {path}: not a BERT vocab.txt (one piece a line, [UNK] among them)")
    # A vocabulary without any capital letter can only be for lower-cased text.
    lower = not any(piece != piece.lower() for piece in pieces if not piece.startswith("["))
    return wordpiece({piece: number for number, piece in enumerate(pieces)}, lower=lower)


def _from_json(path: Path) -> Backend:
    if not path.is_file():
        raise SettingsError(f"--tokenizer {path}: no such file")
    try:
        return Backend.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for every kind of bad file
        raise SettingsError(f"--tokenizer {path}: not a tokenizer.json ({error})") from error


def _from_hub(name: str) -> Backend:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def locate(*, offline: bool) -> Backend:
        return Backend.from_file(hf_hub_download(name, TOKENIZER_NAME, local_files_only=offline))

    try:
        return locate(offline=True)
    except HFValidationError as error:
        raise SettingsError(f"--tokenizer {name}: neither a file nor a name on the Hub") from error
    except LocalEntryNotFoundError:
        pass
    try:
        return locate(offline=bool(os.environ.get("HF_HUB_OFFLINE")))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise SettingsError(
            f"--tokenizer {name}: not in the cache and not to be had ({type(error).__name__}). Fetch tokenizer.json or"
            f" vocab.txt from https://huggingface.co/{name} and pass its path, or use --tokenizer train:8000"
        ) from error
