"""Whom an annotation means by a name, and when it must not be guessed."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from vlprep.datasets.captions import CaptionRow
from vlprep.datasets.items import Item, image_source_id
from vlprep.datasets.join import ItemIndex, join_captions


def index_of(*ids: str) -> ItemIndex:
    return ItemIndex(Item(name, Path(name), image_source_id(name)) for name in ids)


def found(index: ItemIndex, *keys: str) -> tuple[str, bool] | None:
    match = index.find(keys)
    return (match.item.id, match.sure) if match else None


def test_surest_names() -> None:
    index = index_of("a/x.jpg", "b/x.jpg", "c/COCO_val2014_000000000042.jpg")
    assert found(index, "a/x.jpg") == ("a/x.jpg", True)
    assert found(index, "/home/me/b/x.jpg") == ("b/x.jpg", True)
    assert found(index, "..\\b\\x.jpg") == ("b/x.jpg", True)
    assert found(index, "42") == ("c/COCO_val2014_000000000042.jpg", True)


def test_file_name_alone_is_likely_where_it_is_the_only_one() -> None:
    index = index_of("a/x.jpg", "b/y.v2.jpg", "b/x.jpg", "v1.2.png")
    assert found(index, "y.v2.jpg") == ("b/y.v2.jpg", False)
    assert found(index, "y.v2") == ("b/y.v2.jpg", False)
    assert found(index, "elsewhere/y.v2.jpg") == ("b/y.v2.jpg", False)
    assert found(index, "y.v2.png") == ("b/y.v2.jpg", False)
    assert found(index, "v1.2") == ("v1.2.png", False)
    assert found(index, "x.jpg") is None
    assert found(index, "c/x.jpg") is None
    assert found(index, "x") is None
    assert found(index, "") is None


def test_next_key_is_tried() -> None:
    assert found(index_of("a/x.jpg"), "nothing.jpg", "x.jpg") == ("a/x.jpg", False)


def test_item_at_the_top_is_meant_by_its_bare_name() -> None:
    assert found(index_of("x.jpg", "a/x.jpg"), "x.jpg") == ("x.jpg", True)


def test_doubled_own_id_is_no_match() -> None:
    assert found(index_of("a/000000000042.jpg", "b/000000000042.jpg"), "42") is None


def test_unicode_forms() -> None:
    composed, decomposed = (unicodedata.normalize(form, "ké/é.jpg") for form in ("NFC", "NFD"))
    assert found(index_of(decomposed), composed) == (decomposed, True)
    assert found(index_of(composed), unicodedata.normalize("NFD", "é.jpg")) == (composed, False)
    assert found(index_of(composed, decomposed), decomposed) == (decomposed, True)


def test_caption_of_a_missing_pictures_namesake_is_not_taken() -> None:
    """train/1.jpg and val/1.jpg have captions; only val was downloaded."""
    rows = [CaptionRow(("train/1.jpg",), "of train"), CaptionRow(("val/1.jpg",), "of val")]
    joined = join_captions(rows, index_of("val/1.jpg"))
    assert joined.texts == {"val/1.jpg": ["of val"]}
    assert joined.contested == set()


def test_two_likely_names_contest_an_item() -> None:
    rows = [CaptionRow(("train/1.jpg",), "of train"), CaptionRow(("val/1.jpg",), "of val")]
    joined = join_captions(rows, index_of("pictures/1.jpg", "pictures/2.jpg"))
    assert joined.texts == {}
    assert joined.contested == {"pictures/1.jpg"}


def test_repeated_likely_name_is_no_contest() -> None:
    rows = [CaptionRow(("a/1.jpg",), "one"), CaptionRow(("a/1.jpg",), "two"), CaptionRow(("a/9.jpg",), "of none")]
    joined = join_captions(rows, index_of("pictures/1.jpg"))
    assert joined.texts == {"pictures/1.jpg": ["one", "two"]}
    assert joined.unmatched == {"a/9.jpg": 1}
    assert joined.rows == 3
