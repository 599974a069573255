"""The places of a large object's members, whatever the blocks cut through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlprep.datasets import json_members
from vlprep.datasets.json_members import index_members, read_member
from vlprep.errors import SettingsError

MEMBERS = {
    "plain": {"start": [0.0, 1.25], "text": ["a", "b"]},
    'quote " and \\ slash': {"text": ['}, "not a member": {', "\n\t\\"]},
    "ünïcode ☃ 𝄞": {"text": ["日本語", "e\u0301"]},
    "number": 1234567890.5,
    "nothing": None,
    "empty": {},
    "list": [[], [[]], "}"],
    "": "no name",
}


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64, 1 << 22])
@pytest.mark.parametrize("style", [{}, {"ensure_ascii": False}, {"indent": 1, "ensure_ascii": False}])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_members_are_found_and_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, style: dict, mark: bytes
) -> None:
    monkeypatch.setattr(json_members, "_BLOCK_CHARACTERS", block)
    path = tmp_path / "x.json"
    path.write_bytes(mark + json.dumps(MEMBERS, **style).encode() + b"\r\n ")
    places = index_members(path)
    assert {name: read_member(path, place) for name, place in places.items()} == MEMBERS
    assert list(places) == list(MEMBERS)


def test_empty_object(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(" { } ")
    assert index_members(tmp_path / "x.json") == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "{",
        '{"a"',
        '{"a": ',
        '{"a": {"b": [1, 2',
        '{"a": 1',
        '{"a": 1 "b": 2}',
        "{1: 2}",
        '{"a": 1} x',
        "{a: 1}",
    ],
)
def test_damaged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"x\.json: at byte \d+: not valid JSON"):
        index_members(path)


def test_damaged_bytes(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(SettingsError, match="not valid JSON"):
        index_members(tmp_path / "x.json")


def test_damaged_depth(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": ' + "[" * 100_000)
    with pytest.raises(SettingsError, match="not valid JSON"):
        index_members(tmp_path / "x.json")
