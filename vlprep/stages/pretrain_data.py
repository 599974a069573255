"""What pretraining reads of a dataset's folder: its stores, and the vocabularies that all datasets of a run share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vlprep.cluster.vocabulary import VOCABULARY_NAME, Vocabulary
from vlprep.errors import SettingsError
from vlprep.pretrain.base import StoreFacts
from vlprep.pretrain.corpus import DatasetStores, SampleSource
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.objectives.catalogue import needs_of
from vlprep.pretrain.recipe import Recipe
from vlprep.pretrain.run_data import RunData
from vlprep.pretrain.setup import store_facts
from vlprep.shards.describe import describe
from vlprep.shards.manifest import MANIFEST_NAME, read_manifest
from vlprep.stages.tokenize_text import open_store_encoder
from vlprep.text.tokenizer import TOKENIZER_NAME
from vlprep.text.words import WordEncoder, is_words


def find_stores(folder: Path, recipe: Recipe, like: Path | None = None) -> DatasetStores:
    """The stores of a dataset that the recipe's objectives read; `like` is a text store whose ids are wanted.

    Raises `SettingsError` where one is missing, with the command that makes it, or where the texts are in pieces and
    words are wanted.
    """
    if not folder.is_dir():
        raise SettingsError(f"{folder} cannot be used as a dataset folder: there is no such folder")
    needs = needs_of(recipe.objectives)
    commands = _commands(folder, recipe, like)
    found = {name: _store(folder, recipe.data.text if name == "text" else name) for name in commands}
    wanted = _wanted(needs, recipe)
    if wanted <= {"text"} and "video" not in needs and not (found["regions"] or found["tokens"]):
        wanted.add("regions")
    if missing := [name for name in commands if name in wanted and found[name] is None]:
        lines = "".join(f"\n  {commands[store]}" for store in missing)
        raise SettingsError(
            f"{folder}: no {' and no '.join(missing)} store yet, which {'+'.join(recipe.objectives)} needs;"
            f" make it:{lines}"
        )
    if found["text"] is not None and "text" in wanted:
        _require_encoding(found["text"], "+".join(recipe.objectives), words="words" in needs)
    if "frames" in needs:
        return DatasetStores(text=found["text"], videos=folder)
    if "video" in needs:
        features = [found[name] for name in recipe.data.features]
        return DatasetStores(text=found["text"], features=tuple(store for store in features if store is not None))
    use_regions = found["regions"] is not None and "tokens" not in wanted
    return DatasetStores(
        text=found["text"],
        regions=found["regions"] if use_regions else None,
        tokens=None if use_regions else found["tokens"],
    )


def unfinished(stores: Sequence[DatasetStores]) -> list[str]:
    """A line for each store that has planned items without a row or a failure: one that its command has not finished,
    or of which a part is torn. What is there is used.
    """
    folders = [
        folder
        for dataset in stores
        for folder in (dataset.text, dataset.regions, dataset.tokens, *dataset.features)
        if folder is not None
    ]
    pending = {folder: describe(folder)["pending"] for folder in folders}
    return [
        f"{folder} is not whole: {count:,} of its items are still to do and are not trained on; the command that makes"
        " it goes on with them"
        for folder, count in pending.items()
        if count
    ]


def _commands(folder: Path, recipe: Recipe, like: Path | None) -> dict[str, str]:
    """Each store that a recipe may read, with what makes it; words by the way that needs no download."""
    text = f"vlprep tokenize {folder}"
    if like is not None and (like / MANIFEST_NAME).is_file():
        text += f" --tokenizer {_as_choice(like)}"
    elif recipe.data.text != "text":
        text += " --tokenizer words:train:300"
    if recipe.data.text != "text":
        text += f" --out {folder / 'vlprep' / recipe.data.text}"
    return {
        "regions": f"vlprep extract-regions {folder}",
        "tokens": f"vlprep cluster-video {folder}",
        **{name: f"vlprep extract-video {folder} --model {name}" for name in recipe.data.features},
        "text": text,
    }


def _wanted(needs: frozenset[str], recipe: Recipe) -> set[str]:
    wanted = {"regions"} if needs & {"regions", "class_probs"} else set()
    wanted |= {"tokens"} if "visual_tokens" in needs else set()
    wanted |= {"text"} if needs & {"text", "words", "video"} else set()
    if "video" in needs and "frames" not in needs:
        if not recipe.data.features:
            raise SettingsError('data.features names no store of clip features: ["s3d"], for example')
        wanted |= set(recipe.data.features)
    return wanted


def _store(folder: Path, name: str) -> Path | None:
    store = folder / "vlprep" / name
    return store if (store / MANIFEST_NAME).is_file() else None


def text_vocabulary(stores: Sequence[DatasetStores]) -> TextVocabulary:
    """The ids that masking needs, of the tokenizer that all text stores share."""
    texts = [dataset.text for dataset in stores if dataset.text is not None]
    if not texts:
        return TextVocabulary(size=8, pad=0, cls=2, sep=3, mask=4, first_word=5)
    made_by = {read_manifest(text).settings["sha256"]: text for text in texts}
    if len(made_by) > 1:
        folders = ", ".join(str(text) for text in made_by.values())
        raise SettingsError(
            f"the text stores have different tokenizers ({folders}): give all datasets that of the first, by"
            f" vlprep tokenize DATASET --tokenizer {_as_choice(texts[0])} --overwrite"
        )
    tokenizer = open_store_encoder(texts[0])
    if isinstance(tokenizer, WordEncoder):
        return TextVocabulary(
            size=tokenizer.size, pad=tokenizer.padding, cls=-1, sep=-1, mask=-1, first_word=0, vectors=tokenizer.table()
        )
    return TextVocabulary(
        size=tokenizer.size,
        pad=tokenizer.special("[PAD]"),
        cls=tokenizer.special("[CLS]"),
        sep=tokenizer.special("[SEP]"),
        mask=tokenizer.special("[MASK]"),
        first_word=tokenizer.first_word,
        class_names=tuple(tuple(pieces) for pieces in tokenizer.encode(_class_names(stores))),
        answers={answer: number for number, answer in enumerate(_answers(texts))},
    )


def _as_choice(text: Path) -> str:
    """What `--tokenizer` takes to give another dataset the ids of this store."""
    made_by = read_manifest(text).settings["tokenizer"]
    return f"words:{text}" if is_words(made_by) else f"{text}/{TOKENIZER_NAME}"


def _require_encoding(text: Path, objectives: str, *, words: bool) -> None:
    """Raises `SettingsError` where the store has pieces and words are wanted, or words and pieces are."""
    made_by = read_manifest(text).settings.get("tokenizer", "")
    if is_words(made_by) != words:
        wanted, other = ("words with vectors", "words") if words else ("pieces", "text")
        raise SettingsError(
            f"{text} was made with {made_by}, and {objectives} reads {wanted}: set data.text to a store of them"
            f" ({other} by default; `vlprep tokenize --help` has both)"
        )


def _class_names(stores: Sequence[DatasetStores]) -> tuple[str, ...]:
    """What the detector calls its classes. Raises `SettingsError` where the datasets' detectors differ in that."""
    folders = [dataset.regions for dataset in stores if dataset.regions is not None]
    found = {tuple(read_manifest(folder).names.get("classes", ())): folder for folder in folders}
    if len(found) > 1:
        differing = ", ".join(str(folder) for folder in found.values())
        raise SettingsError(f"the regions stores name different classes ({differing}): extract them with one detector")
    return next(iter(found), ())


def _answers(texts: Sequence[Path]) -> tuple[str, ...]:
    """All answers that text stores name, those of the first store first."""
    return tuple(dict.fromkeys(answer for text in texts for answer in read_manifest(text).names.get("answers", ())))


def read_vocabulary(stores: Sequence[DatasetStores]) -> Vocabulary | None:
    """The visual vocabulary that all tokens stores share; it lies beside the tokens.

    Raises `SettingsError` where one has none, or another one.
    """
    folders = [dataset.tokens for dataset in stores if dataset.tokens is not None]
    for folder in folders:
        if not (folder / VOCABULARY_NAME).is_file():
            raise SettingsError(
                f"{folder} has no {VOCABULARY_NAME}; `vlprep cluster-video` writes it beside the tokens"
            )
    found = {hashlib.sha256((folder / VOCABULARY_NAME).read_bytes()).digest(): folder for folder in folders}
    if len(found) > 1:
        first, *others = (str(folder) for folder in found.values())
        raise SettingsError(
            f"the tokens stores have different vocabularies ({', '.join([first, *others])}): give all datasets that of"
            f" the first, by vlprep cluster-video DATASET --vocabulary {first}/{VOCABULARY_NAME} --overwrite"
        )
    return Vocabulary.load(folders[0] / VOCABULARY_NAME) if folders else None


def run_data(datasets: Sequence[Path], stores: Sequence[DatasetStores]) -> RunData:
    """What a run on these datasets keeps in mind of them."""
    texts = [dataset.text for dataset in stores if dataset.text is not None]
    tokens = [dataset.tokens for dataset in stores if dataset.tokens is not None]
    return RunData(
        datasets=tuple(str(folder.resolve()) for folder in datasets),
        tokenizer=read_manifest(texts[0]).settings["sha256"] if texts else None,
        visual_vocabulary=hashlib.sha256((tokens[0] / VOCABULARY_NAME).read_bytes()).hexdigest() if tokens else None,
        answers=_answers(texts),
    )


def data_facts(corpora: Sequence[SampleSource], vocabulary: Vocabulary | None) -> StoreFacts:
    """What a model's sizes follow from."""
    facts = store_facts(corpora)
    if vocabulary is None:
        return facts
    return replace(facts, visual_vocabulary=vocabulary.size, centroid_dim=vocabulary.dim)
