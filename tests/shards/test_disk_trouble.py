"""Full disks and folders that cannot be written."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from shards.filling import FEATURE_DIM, ITEMS, contents, fill, make_videos, open_videos, row_of

from vlprep.errors import SettingsError, VlprepError
from vlprep.shards import Store
from vlprep.shards.export import export_parquet
from vlprep.shards.verify import verify


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("mounting needs rights")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def add_large_row(store: Store, clips: int) -> None:
    with store.write_part(1) as writer:
        writer.add(store.part_items(1)[0], row_of("x") | wide_row(clips))


def use_up(disk: Path, *, but_pages: int) -> None:
    room = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes((room.f_bavail - but_pages) * room.f_bsize))


def wide_row(clips: int) -> dict[str, np.ndarray]:
    return {"times": np.zeros((clips, 2)), "features": np.zeros((clips, FEATURE_DIM))}


def test_a_full_disk_is_a_clear_error_and_no_part(small_disk: Path) -> None:
    folder = small_disk / "store"
    store = open_videos(folder)
    store.plan(ITEMS[:2], 1)
    with store.write_part(0) as writer:
        writer.add(ITEMS[0], row_of(ITEMS[0]))
    before = contents(folder)
    with pytest.raises(VlprepError, match=rf"no space left for {folder}.*--out") as caught:
        add_large_row(store, 40_000)
    assert not isinstance(caught.value, SettingsError)
    assert contents(folder) == before
    assert store.pending() == [1]
    fill(store)
    assert store.pending() == []
    assert verify(folder) == []


def test_a_disk_that_fills_at_the_mark_is_no_commit(small_disk: Path) -> None:
    store = open_videos(small_disk / "store")
    store.plan(ITEMS[:2], 1)
    writer = store.write_part(0).__enter__()
    writer.add(ITEMS[0], row_of(ITEMS[0]))
    use_up(small_disk, but_pages=1)  # room for the part, and none for its mark
    with pytest.raises(VlprepError, match="no space left"):
        writer.__exit__(None, None, None)
    assert (small_disk / "store" / "part-00000.arrow").exists()
    (small_disk / "filler").unlink()
    assert store.pending() == [0, 1]
    assert not list((small_disk / "store").glob(".*.tmp"))
    fill(store)
    assert verify(small_disk / "store") == []


def test_a_limit_on_file_sizes_is_like_a_full_disk(tmp_path: Path) -> None:
    store = open_videos(tmp_path)
    store.plan(ITEMS[:2], 1)
    before = contents(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, limits[1]))
    try:
        with pytest.raises(VlprepError, match="no space left"):
            add_large_row(store, 40_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(tmp_path) == before


def test_a_read_only_folder_is_a_clear_error(small_disk: Path) -> None:
    folder = small_disk / "store"
    store = open_videos(folder)
    store.plan(ITEMS[:2], 1)
    before = contents(folder)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for attempt in (
        lambda: store.write_part(0).__enter__(),
        lambda: store.plan(ITEMS, 1),
        lambda: open_videos(folder),
        lambda: open_videos(small_disk / "another"),
    ):
        with pytest.raises(VlprepError, match=r"cannot write in .*disk.*--out"):
            attempt()
    assert contents(folder) == before
    whole = make_videos(small_disk.parent / "store", ITEMS[:2])
    with pytest.raises(VlprepError, match="make it writable or name another folder"):
        export_parquet(whole.folder, small_disk / "parquet")


def test_a_disk_that_fills_during_an_export_leaves_no_file(tmp_path: Path, small_disk: Path) -> None:
    make_videos(tmp_path / "store")
    (small_disk / "parquet").mkdir()
    use_up(small_disk, but_pages=5)  # room for some parts only
    with pytest.raises(VlprepError, match=r"no space left .* writes every part anew, or name another folder"):
        export_parquet(tmp_path / "store", small_disk / "parquet")
    assert not list((small_disk / "parquet").iterdir())


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(SettingsError, match=str(folder)):
            open_videos(folder)
