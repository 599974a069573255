"""Each kind of damage is found, and what can be made again is."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from shards.filling import FEATURE_DIM, ITEMS, contents, fill, make_videos, open_videos

from vlprep.errors import SettingsError, VlprepError
from vlprep.shards import StoreReader
from vlprep.shards.describe import describe
from vlprep.shards.schema import SCHEMA_VERSION, video_schema
from vlprep.shards.verify import verify


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def replace_part(folder: Path, schema: pa.Schema, **mark: object) -> None:
    """Another Arrow file in a part's place, with a mark that fits its bytes."""
    path = folder / "part-00001.arrow"
    with pa.ipc.new_file(path, schema):
        pass
    data = path.read_bytes()
    edit(folder / "part-00001.json", bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), **mark)


def remark(folder: Path, **changes: object) -> None:
    edit(folder / "part-00001.json", **changes)


def not_arrow(folder: Path) -> None:
    (folder / "part-00001.arrow").write_bytes(b"text")
    remark(folder, bytes=4, sha256=hashlib.sha256(b"text").hexdigest())


NO_ROWS: dict[str, object] = {"rows": 0, "batches": [], "lengths": []}
DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "part-00001.json").unlink(), r"part-00001\.arrow: has no mark"),
    (lambda folder: (folder / "part-00001.arrow").unlink(), r"part-00001\.arrow: missing"),
    (lambda folder: truncate(folder / "part-00001.json"), r"part-00001\.json: .*again"),
    (lambda folder: (folder / "part-00001.json").write_text("[]"), r"part-00001\.json: not a commit mark"),
    (lambda folder: (folder / "part-00001.json").write_bytes(b"\xff"), r"part-00001\.json: .*again"),
    (lambda folder: truncate(folder / "part-00001.arrow"), r"part-00001\.arrow: \d+ bytes instead of \d+"),
    (lambda folder: flip(folder / "part-00001.arrow"), r"part-00001\.arrow: its bytes have changed"),
    (not_arrow, "no Arrow file"),
    (lambda folder: replace_part(folder, video_schema(FEATURE_DIM + 1)), "columns differ"),
    (lambda folder: replace_part(folder, video_schema(FEATURE_DIM)), "0 rows in 0 batches instead of 3 in 1"),
    (lambda folder: replace_part(folder, video_schema(FEATURE_DIM), **NO_ROWS), "not the planned items"),
    (lambda folder: remark(folder, lengths=[9, 9, 9]), "lengths of rows differ"),
    (lambda folder: remark(folder, failures=[]), "not the planned items"),
    (lambda folder: edit(folder / "store.json", settings={}), "fingerprint"),
    (lambda folder: (folder / "store.json").write_text("{"), r"store\.json is damaged"),
    (lambda folder: truncate(folder / "plan.arrow"), r"plan\.arrow is damaged"),
    (lambda folder: (folder / "plan.arrow").unlink(), r"has lost its plan\.arrow: .*--overwrite"),
    (lambda folder: (folder / ".part-00009.arrow.1.tmp").write_text(""), "left by a process that was killed"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damage_is_found(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    make_videos(tmp_path)
    assert verify(tmp_path) == []
    damage(tmp_path)
    assert any(re.search(message, problem) for problem in verify(tmp_path))


@pytest.mark.parametrize("damage", [damage for damage, _ in DAMAGES[:6]])
def test_a_part_that_lost_its_file_or_mark_is_made_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    make_videos(tmp_path)
    whole = contents(tmp_path)
    damage(tmp_path)
    assert ITEMS[4] not in StoreReader(tmp_path).ids
    store = open_videos(tmp_path)
    assert store.pending() == [1]
    fill(store)
    assert contents(tmp_path) == whole


def test_reading_a_damaged_part_names_it(tmp_path: Path) -> None:
    make_videos(tmp_path)
    not_arrow(tmp_path)
    with pytest.raises(VlprepError, match=r"part-00001\.arrow is damaged .*vlprep store verify"):
        list(StoreReader(tmp_path))


def test_a_store_of_the_future_is_not_called_damaged(tmp_path: Path) -> None:
    make_videos(tmp_path)
    edit(tmp_path / "store.json", schema_version=SCHEMA_VERSION + 1, more=1)
    with pytest.raises(VlprepError, match="newer vlprep"):
        StoreReader(tmp_path)


def copy_part(folder: Path, number: int) -> None:
    """Part 0 under another number."""
    for suffix in (".arrow", ".json"):
        (folder / f"part-{number:05d}{suffix}").write_bytes((folder / f"part-00000{suffix}").read_bytes())


def test_doubled_rows_are_found(tmp_path: Path) -> None:
    make_videos(tmp_path)
    copy_part(tmp_path, 1)
    problems = verify(tmp_path)
    assert any(re.search(r"part-00001\.arrow: .*not the planned items", problem) for problem in problems)
    assert f"{ITEMS[0]}: has 2 rows" in problems


@pytest.mark.parametrize("without_mark", [False, True])
def test_parts_of_another_plan_are_found_and_can_be_removed(tmp_path: Path, without_mark: bool) -> None:
    store = make_videos(tmp_path)
    copy_part(tmp_path, 6)
    if without_mark:
        (tmp_path / "part-00006.json").unlink()
    else:
        with pytest.raises(VlprepError, match=r"not in its plan\.arrow: see `vlprep store verify"):
            store.plan([*ITEMS, "new.mp4"], 4)
    (problem,) = verify(tmp_path)
    assert problem == "part-00006.arrow: not in plan.arrow; remove part-00006.arrow and part-00006.json"
    for suffix in (".arrow", ".json"):
        (tmp_path / f"part-00006{suffix}").unlink(missing_ok=True)
    assert verify(tmp_path) == []
    store.plan([*ITEMS, "new.mp4"], 4)
    assert store.pending() == [6]


def test_marks_that_lost_their_plan_do_not_pass_for_other_items(tmp_path: Path) -> None:
    store = make_videos(tmp_path, ITEMS[:6], 3)
    (tmp_path / "plan.arrow").unlink()
    before = contents(tmp_path)
    with pytest.raises(VlprepError, match=r"has lost its plan\.arrow: begin it anew with --overwrite"):
        store.plan(ITEMS[:12], 6)
    with pytest.raises(VlprepError, match=r"has lost its plan\.arrow"):
        describe(tmp_path)
    assert contents(tmp_path) == before
    (problem,) = verify(tmp_path)
    assert "--overwrite" in problem
    again = open_videos(tmp_path, overwrite=True)
    again.plan(ITEMS[:12], 6)
    assert again.pending() == [0, 1]


def test_an_unfinished_store_is_not_damaged(tmp_path: Path) -> None:
    store = open_videos(tmp_path)
    assert verify(tmp_path) == []
    store.plan(ITEMS, 4)
    assert verify(tmp_path) == []


def test_a_folder_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not a store"):
        verify(tmp_path)
