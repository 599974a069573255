"""An export is the whole store in a folder of its own, or an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet
import pytest
from shards.filling import ITEMS, PART_SIZE, contents, make_videos, open_videos

from vlprep.errors import SettingsError, VlprepError
from vlprep.shards import StoreReader
from vlprep.shards.describe import head
from vlprep.shards.export import export_parquet

PART = "part-00001.arrow"


def wipe_the_end(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-400] + bytes(400))


def wipe_the_batches(part: Path) -> None:
    """The footer stays whole."""
    data = part.read_bytes()
    part.write_bytes(data[:8] + b"\xa5" * 3000 + data[3008:])


def test_an_export_is_the_whole_store(tmp_path: Path) -> None:
    make_videos(tmp_path / "store")
    (tmp_path / "out").mkdir()
    paths = export_parquet(tmp_path / "store", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [path.name for path in paths]
    assert pyarrow.parquet.read_table(tmp_path / "out")["id"].to_pylist() == StoreReader(tmp_path / "store").ids


def test_stores_are_not_mixed(tmp_path: Path) -> None:
    make_videos(tmp_path / "store")
    make_videos(tmp_path / "small", ITEMS[:4])
    export_parquet(tmp_path / "store", tmp_path / "out")
    before = contents(tmp_path / "out")
    for out in (tmp_path / "out", tmp_path / "small", tmp_path):
        with pytest.raises(SettingsError, match=f"{out} is not empty"):
            export_parquet(tmp_path / "small", out)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / PART).unlink(),
        lambda folder: (folder / PART).write_bytes(b"short"),
        lambda folder: (folder / "part-00001.json").write_text("{"),
    ],
)
def test_a_torn_part_is_not_left_out(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    make_videos(tmp_path / "store")
    damage(tmp_path / "store")
    with pytest.raises(VlprepError, match=r"part-00001\.json .*damaged or missing: see `vlprep store verify"):
        export_parquet(tmp_path / "store", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unfinished_store_is_refused(tmp_path: Path) -> None:
    store = make_videos(tmp_path / "store", ITEMS[:8])
    store.plan(ITEMS, PART_SIZE)
    with pytest.raises(SettingsError, match=r"4 of 6 parts of .*store are not made yet: run its command again first"):
        export_parquet(tmp_path / "store", tmp_path / "out")
    (tmp_path / "store" / "plan.arrow").unlink()
    with pytest.raises(VlprepError, match=r"has lost its plan\.arrow"):
        export_parquet(tmp_path / "store", tmp_path / "out")
    with pytest.raises(SettingsError, match="has no parts yet"):
        export_parquet(open_videos(tmp_path / "begun").folder, tmp_path / "out")


@pytest.mark.parametrize("damage", [wipe_the_end, wipe_the_batches])
def test_damage_that_keeps_the_size_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    make_videos(tmp_path / "store")
    damage(tmp_path / "store" / PART)
    for read in (
        lambda: export_parquet(tmp_path / "store", tmp_path / "out"),
        lambda: head(tmp_path / "store", 9),
        lambda: StoreReader(tmp_path / "store").columns(["features"]),
    ):
        with pytest.raises(VlprepError, match=rf"{PART} is damaged .*vlprep store verify"):
            read()
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    make_videos(tmp_path / "store")
    with pytest.raises(VlprepError, match=r"cannot work in /proc/x \(/proc/x: No such.*name another folder") as caught:
        export_parquet(tmp_path / "store", Path("/proc/x"))
    assert "--out" not in str(caught.value)
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="is a file"):
        export_parquet(tmp_path / "store", tmp_path / "file")
