"""A store being made: its settings, its plan, and which parts are still to do.

Nothing is kept in memory between calls: the folder is the only truth, so that several processes can work on one store.
Each call raises `VlprepError` if another process has meanwhile begun the store anew with other settings.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from vlprep.errors import SettingsError, VlprepError
from vlprep.shards.atomic import LOCK_NAME, clear_errors, folder_lock, remove_stale, write_file
from vlprep.shards.manifest import MANIFEST_NAME, Manifest, StoreSettings, read_manifest
from vlprep.shards.marks import numbered, read_marks
from vlprep.shards.plan import PLAN_NAME, Plan, read_plan
from vlprep.shards.status import Status, status_of
from vlprep.shards.writer import PartWriter

_log = logging.getLogger("vlprep")


def open_store(folder: Path, schema: pa.Schema, settings: StoreSettings, *, overwrite: bool = False) -> Store:
    """Make a store in this folder, or open the one that is there.

    Raises `SettingsError` if the store there was made with other settings (naming each that differs) or if the folder
    holds something else, `VlprepError` if it cannot be written to. `overwrite` begins the store anew.
    """
    manifest = Manifest.of(schema, settings)
    with clear_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise SettingsError(
                f"{folder} cannot be a store: a file is in its way; choose another with --out"
            ) from error
    with folder_lock(folder):
        remove_stale(folder)
        is_store = (folder / MANIFEST_NAME).exists()
        if not is_store:
            _refuse_foreign(folder, overwrite=overwrite)
        if is_store and not overwrite:
            manifest = _compared(folder, manifest)
        else:
            _remove_store(folder)
            write_file(folder / MANIFEST_NAME, manifest.to_bytes())
    return Store(folder, schema, manifest)


class Store:
    """Made by `open_store`. Safe to use from several processes at once, each with a `Store` of its own."""

    def __init__(self, folder: Path, schema: pa.Schema, manifest: Manifest) -> None:
        self.folder = folder
        self.schema = schema
        self.manifest = manifest

    def plan(self, items: Sequence[str], part_size: int) -> None:
        """Cut the items, sorted by id, into parts; on a later call cut those not yet planned into further parts.

        Planned items stay planned when they vanish (they fail when their part runs). Raises `SettingsError` for
        doubled ids, `VlprepError` where parts are marked that no plan has: they would pass for others.
        """
        with folder_lock(self.folder):
            self._refuse_overwritten()
            old = read_plan(self.folder)
            if old is not None:
                _refuse_unplanned(self.folder, old)
            new = (old or Plan.empty(part_size)).with_items(items, part_size)
            if new is not old:
                write_file(self.folder / PLAN_NAME, new.to_bytes())

    def retry_failed(self) -> int:
        """Plan further parts for all items whose latest attempt failed, and say how many they are."""
        with folder_lock(self.folder):
            plan = self._plan()
            failed = [failure.id for failure in status_of(plan, read_marks(self.folder)).failures]
            if failed:
                write_file(self.folder / PLAN_NAME, plan.with_retries(failed).to_bytes())
        return len(failed)

    def pending(self) -> list[int]:
        """Planned parts that are not committed."""
        done = read_marks(self.folder)
        return [part for part in range(self._plan().num_parts) if part not in done]

    def part_items(self, part: int) -> list[str]:
        """Ids of a part's items, in the order that their rows will have."""
        return list(self._entries(part))

    def write_part(self, part: int) -> PartWriter:
        """A context manager that commits the part at its end, and leaves no trace if an exception ends it."""
        return PartWriter(self.folder, self.schema, self.manifest, part, self._entries(part))

    def status(self) -> Status:
        return status_of(self._plan(), read_marks(self.folder))

    def _entries(self, part: int) -> dict[str, int]:
        entries = self._plan().entries(part)
        if not entries:
            raise VlprepError(f"part {part} of {self.folder} is not planned, or no longer; was the store overwritten?")
        return entries

    def _refuse_overwritten(self) -> None:
        if read_manifest(self.folder).fingerprint != self.manifest.fingerprint:
            raise VlprepError(
                f"{self.folder} was overwritten by another run meanwhile, with other settings: "
                "keep both with --out FOLDER"
            )

    def _plan(self) -> Plan:
        self._refuse_overwritten()
        plan = read_plan(self.folder)
        if plan is None:
            raise VlprepError(f"{self.folder} has no plan: run its command again")
        return plan


def _compared(folder: Path, wanted: Manifest) -> Manifest:
    """The store's own manifest, if it gives the same numbers."""
    found = read_manifest(folder)
    if differences := found.differences(wanted):
        lines = "".join(f"\n  {line}" for line in differences)
        raise SettingsError(
            f"{folder} was made with other settings:{lines}\n"
            "begin it anew with --overwrite, or keep both with --out FOLDER"
        )
    changed = [name for name, version in wanted.versions.items() if found.versions.get(name, version) != version]
    if changed:
        lines = ", ".join(f"{name} {found.versions[name]} (now {wanted.versions[name]})" for name in changed)
        _log.warning("%s was begun with %s; its further parts may differ in the last digits", folder, lines)
    return found


def _refuse_foreign(folder: Path, *, overwrite: bool) -> None:
    own = {path for pattern in _OWN_FILES for path in folder.glob(pattern)}
    others = sorted(path.name for path in folder.iterdir() if path not in own and path.name != LOCK_NAME)
    if others:
        raise SettingsError(f"{folder} is not empty and no store ({others[0]} …): choose another folder with --out")
    if own and not overwrite:
        raise SettingsError(f"{folder} has lost its {MANIFEST_NAME}: begin it anew with --overwrite")


def _refuse_unplanned(folder: Path, plan: Plan) -> None:
    marked = numbered(folder, ".json")
    if marked and marked[-1] >= plan.num_parts:
        raise VlprepError(f"{folder} has parts that are not in its {PLAN_NAME}: see `vlprep store verify {folder}`")


# Marks go first: killed in the middle, an old part may not pass for one of the new store.
_OWN_FILES = ("part-*.json", "part-*.arrow", PLAN_NAME)


def _remove_store(folder: Path) -> None:
    for pattern in _OWN_FILES:
        for path in sorted(folder.glob(pattern)):
            path.unlink()
