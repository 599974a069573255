"""Which item an annotation file means by a name.

A name may be the item's id, a path that ends alike, a file name, a name without suffix or the dataset's own id.
A full id, an agreeing folder and an own id are *sure*; a bare file name, or a folder that is another here, is *likely*:
taken only while nothing speaks against it, since `1.jpg` of one folder must not get the caption of another's. Names are
compared in Unicode's composed form (NFC), because macOS writes them decomposed.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from vlprep.datasets.captions import CaptionRow
from vlprep.datasets.items import Item, stem_of


class Match(NamedTuple):
    item: Item
    sure: bool


class ItemIndex:
    """Finds items by the names that annotation files use."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._by_id: dict[str, Item] = {}
        self._by_name: defaultdict[str, list[Item]] = defaultdict(list)
        self._by_source_id: defaultdict[str, list[Item]] = defaultdict(list)
        self._by_stem: defaultdict[str, list[Item]] = defaultdict(list)
        for item in items:
            self._by_id[item.id] = item
            name = composed(item.id).rpartition("/")[2]
            self._by_name[name].append(item)
            self._by_stem[stem_of(name)].append(item)
            if item.source_id is not None:
                self._by_source_id[composed(item.source_id)].append(item)

    def find(self, keys: Iterable[str]) -> Match | None:
        """The item that the first telling key means; None where none does, or where several items might be meant."""
        for key in keys:
            if match := self._find(key):
                return match
        return None

    def is_ambiguous(self, keys: Iterable[str]) -> bool:
        """Whether names by which `find` gives nothing might mean several items, rather than none."""
        lasts = [composed(key).replace("\\", "/").rstrip("/").rpartition("/")[2] for key in keys]
        return any(
            len(self._by_stem.get(stem_of(last), ())) > 1 or len(self._by_source_id.get(last, ())) > 1 for last in lasts
        )

    def _find(self, key: str) -> Match | None:
        if item := self._by_id.get(key.removeprefix("./")):
            return Match(item, sure=True)
        parts = composed(key).replace("\\", "/").removeprefix("./").strip("/").split("/")
        if named := _closest(self._by_name.get(parts[-1], []), parts):
            return named
        owners = self._by_source_id.get(parts[-1], [])
        if len(parts) == 1 and len(owners) == 1:
            return Match(owners[0], sure=True)
        alike = self._by_stem.get(stem_of(parts[-1]), [])
        return Match(alike[0], sure=False) if len(alike) == 1 else None


def _closest(candidates: list[Item], parts: list[str]) -> Match | None:
    """Of items with the right file name, the one whose folders agree longest with the key's, from the end."""
    agreeing = sorted(
        ((_common_tail(composed(item.id).split("/"), parts), item) for item in candidates), key=_agreement
    )
    if not agreeing or (len(agreeing) > 1 and agreeing[-1][0] == agreeing[-2][0]):
        return None
    length, item = agreeing[-1]
    return Match(item, sure=length > 1)


def _agreement(candidate: tuple[int, Item]) -> int:
    return candidate[0]


def _common_tail(one: list[str], other: list[str]) -> int:
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    return length


def composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


@dataclass(slots=True)
class JoinedCaptions:
    """The captions of one file, by item."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    """By item id, in file order, empty texts left out."""
    answers: dict[str, dict[str, Mapping[str, float]]] = field(default_factory=dict)
    """By item id and text, of the texts that have any."""
    rows: int = 0
    unmatched: dict[str, int] = field(default_factory=dict)
    """Names for which there is no item, with the number of their captions."""
    ambiguous: dict[str, int] = field(default_factory=dict)
    """The same of names that might mean several items."""
    contested: set[str] = field(default_factory=set)
    """Items that two different names could mean, neither surely; they get no caption."""


def join_captions(rows: Iterable[CaptionRow], index: ItemIndex) -> JoinedCaptions:
    """Give each row of a caption file to its item."""
    joined = JoinedCaptions()
    likely: dict[str, list[str]] = {}
    claimed_by: dict[str, str] = {}
    for keys, text, guessed, answers in rows:
        joined.rows += 1
        match = index.find(keys)
        if match is None:
            lost = joined.ambiguous if index.is_ambiguous(keys) else joined.unmatched
            lost[keys[0]] = lost.get(keys[0], 0) + 1
            continue
        item_id, sure = match.item.id, match.sure and not guessed
        if not sure and claimed_by.setdefault(item_id, keys[0]) != keys[0]:
            joined.contested.add(item_id)
        if text:
            (joined.texts if sure else likely).setdefault(item_id, []).append(text)
            if answers:
                joined.answers.setdefault(item_id, {})[text] = answers
    joined.contested -= joined.texts.keys()
    for item_id, texts in likely.items():
        if item_id not in joined.contested and item_id not in joined.texts:
            joined.texts[item_id] = texts
    return joined
