"""`tokenize`: captions and narration as piece ids, or as rows of a table of word vectors, once, into a text store.

Fast enough for the driver itself: no workers. The tokenizer (`tokenizer.json`) or the table is kept beside the store,
so that whoever reads it needs nothing else; a table as large as GoogleNews' stays where it is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vlprep.datasets import Dataset, Item, open_dataset
from vlprep.errors import SettingsError
from vlprep.shards import Status, Store, StoreReader, StoreSettings, open_store
from vlprep.shards.manifest import MANIFEST_NAME, read_manifest
from vlprep.shards.schema import text_schema
from vlprep.text.tokenizer import TOKENIZER_NAME, Tokenizer, open_tokenizer
from vlprep.text.word_vectors import VECTORS_NAME, Coverage, open_word_vectors, split_words, stop_words
from vlprep.text.words import WordEncoder, is_words, open_store_words, open_words, path_of

PART_SIZE = 65_536
BATCH = 1024
_DEFAULT = "train:8000"
_MOST_ANSWERS = 9500
"""Kinds of answers that a store names, the most frequent: as many as LXMERT was trained to tell apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A caption (no times) or a segment of narration."""

    id: str
    """`<item id>#<number>`: texts of an item are numbered in the order of the files, or of time."""
    item: Item
    text: str
    start: float | None = None
    end: float | None = None
    answers: Mapping[str, float] = field(default_factory=dict)
    """Where the text is a question: how right each answer is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReport:
    folder: Path
    tokenizer: str
    status: Status
    vocabulary: int
    pieces: int
    """Of the texts tokenized by this run."""
    coverage: Coverage | None = None
    """What of the store's words has no vector, where it is one of words."""


def tokenize_text(
    folder: Path, tokenizer: str | None = None, *, out: Path | None = None, overwrite: bool = False
) -> TextReport:
    """Fill `<dataset>/vlprep/text` (or `out`). Without a `tokenizer` it is the store's own, for a new one `train:8000`.

    Raises `SettingsError` where there is no text, and where the store there has another tokenizer.
    """
    dataset = open_dataset(folder)
    texts = list(collect_texts(dataset))
    if not texts:
        raise SettingsError(
            f"{folder}: no captions and no narration found; `vlprep datasets inspect {folder}` says what was recognised"
        )
    store_folder = out or folder / "vlprep" / "text"
    made = None if overwrite else _of_the_store(store_folder, tokenizer)
    made = made or open_encoder(tokenizer or _DEFAULT, texts)
    store, pieces = fill_text_store(store_folder, texts, made, overwrite=overwrite)
    return TextReport(
        folder=store.folder,
        tokenizer=made.name,
        status=store.status(),
        vocabulary=made.size,
        pieces=pieces,
        coverage=made.coverage(_stored_texts(store.folder)) if isinstance(made, WordEncoder) else None,
    )


def fill_text_store(
    folder: Path, texts: Sequence[Text], made: Tokenizer | WordEncoder, *, overwrite: bool = False
) -> tuple[Store, int]:
    """Tokenize what the store in `folder` lacks; it and the number of pieces that were added.

    Raises `SettingsError` where the store there has another tokenizer, or other texts under the same ids.
    """
    answers = _answer_names(folder, texts, overwrite=overwrite)
    names = {"answers": answers} if answers else {}
    settings = StoreSettings(kind="text", settings=made.settings(), weights=None, names=names)
    store = open_store(folder, text_schema(answers=bool(answers)), settings, overwrite=overwrite)
    by_id = {text.id: text for text in texts}
    _refuse_changes(store.folder, by_id)
    made.keep(store.folder)
    store.plan([text.id for text in texts], PART_SIZE)
    pieces = 0
    for part in store.pending():
        with store.write_part(part) as writer:
            ids = store.part_items(part)
            for start in range(0, len(ids), BATCH):
                present = [by_id[name] for name in ids[start : start + BATCH] if name in by_id]
                for text, token_ids in zip(present, made.encode([text.text for text in present]), strict=True):
                    writer.add(text.id, _row(text, token_ids) | (_answers_of(text) if answers else {}))
                    pieces += len(token_ids)
                for name in ids[start : start + BATCH]:
                    if name not in by_id:
                        writer.fail(name, SettingsError("this text was planned, but is no longer in the folder"))
    return store, pieces


def _refuse_changes(folder: Path, by_id: Mapping[str, Text]) -> None:
    """Ids count an item's texts, so that a caption that was changed or put before others is under one that is taken."""
    for batch in StoreReader(folder).columns(["id", "start", "end", "text"]).to_batches():
        for row in batch.to_pylist():
            text = by_id.get(row["id"])
            if text is None:
                continue
            before, now = row["text"], text.text
            if before == now:
                before, now = f"{row['start']}-{row['end']} s", f"{text.start}-{text.end} s"
            if before != now:
                raise SettingsError(
                    f"{folder} was made of other texts than the dataset has now: {text.id} was {before!r} and is"
                    f" {now!r}; begin it anew with --overwrite"
                )


def collect_texts(dataset: Dataset) -> Iterator[Text]:
    """Every caption and narration segment, by item."""
    for item in dataset.items:
        answers = dataset.answers_of(item)
        yield from (
            Text(id=f"{item.id}#{number}", item=item, text=caption, answers=answers.get(caption, {}))
            for number, caption in enumerate(dataset.captions_of(item))
        )
    for video in dataset.videos:
        captions = len(dataset.captions_of(video))
        yield from (
            Text(
                id=f"{video.id}#{captions + number}",
                item=video,
                text=segment.text,
                start=segment.start,
                end=segment.end,
            )
            for number, segment in enumerate(dataset.narration_of(video))
        )


def open_store_tokenizer(text_store: Path) -> Tokenizer:
    """The tokenizer that a text store was made with."""
    return open_tokenizer(str(text_store / TOKENIZER_NAME))


def open_store_encoder(text_store: Path) -> Tokenizer | WordEncoder:
    """What a text store was made with, whichever it is."""
    settings = read_manifest(text_store).settings
    if is_words(settings["tokenizer"]):
        return open_store_words(text_store, settings)
    return Tokenizer(open_store_tokenizer(text_store).backend, settings["tokenizer"])


def word_coverage(text_store: Path, vectors: Path) -> Coverage:
    """How many of the store's words have vectors, by HowTo100M's rules: in the text's own case, without stop words.

    Raises `SettingsError` where `vectors` is no file of word vectors.
    """
    texts = _stored_texts(text_store)
    return open_word_vectors(vectors).coverage(split_words(text, without=stop_words()) for text in texts)


def _stored_texts(text_store: Path) -> Iterator[str]:
    return (text.as_py() for text in StoreReader(text_store).columns(["text"]).column("text"))


def open_encoder(choice: str, texts: Sequence[Text]) -> Tokenizer | WordEncoder:
    """The tokenizer, or the words with vectors, that `choice` means; `texts` are what may be trained on."""

    def own() -> Iterator[str]:
        return (text.text for text in texts)

    if not is_words(choice):
        return open_tokenizer(choice, own)
    if (store := path_of(choice)).is_dir():
        return replace(open_store_words(store, read_manifest(store).settings), name=choice)
    return open_words(choice, own)


def _of_the_store(store_folder: Path, choice: str | None) -> Tokenizer | WordEncoder | None:
    """The store's own tokenizer, if none is chosen or it was trained by the same choice: texts that are new in the
    folder must not retrain it, since that would change the ids of all the others.
    """
    try:
        made_by = read_manifest(store_folder).settings.get("tokenizer")
    except SettingsError:
        return None
    if choice is not None and (made_by != choice or not choice.startswith(("train:", "words:train:"))):
        return None
    kept = VECTORS_NAME if choice and is_words(choice) else TOKENIZER_NAME
    if choice is not None and not (store_folder / kept).is_file():
        return None  # a run was stopped, or still is at it, between store and tokenizer; training gives the same again
    return open_store_encoder(store_folder)


def _answer_names(store_folder: Path, texts: Sequence[Text], *, overwrite: bool) -> tuple[str, ...]:
    """All answers, the most frequent first; those of the store that is there, whose order others count on."""
    if not overwrite and (store_folder / MANIFEST_NAME).is_file():
        return tuple(read_manifest(store_folder).names.get("answers", ()))
    counts = Counter(answer for text in texts for answer in text.answers)
    return tuple(sorted(counts, key=lambda answer: (-counts[answer], answer))[:_MOST_ANSWERS])


def _answers_of(text: Text) -> dict[str, object]:
    return {"answers": json.dumps(text.answers, ensure_ascii=False) if text.answers else None}


def _row(text: Text, token_ids: Sequence[int]) -> dict[str, object]:
    return {
        "path": text.item.id,
        "source_id": text.item.source_id,
        "item_id": text.item.id,
        "start": text.start,
        "end": text.end,
        "text": text.text,
        "token_ids": token_ids,
    }
