"""Rendered files go only where nothing of the user's can be hurt."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from vlprep.errors import SettingsError

_STORES = "vlprep"


def write_own_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files, given by their paths below `folder`; what an earlier such call wrote stays as it is.

    Each appears whole or not at all, so that a call that was stopped can be made again. Hidden files and stores are
    passed over.

    Raises:
        SettingsError: The folder has other files, or others of these names; nothing was written.
    """
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    for name in sorted(filter(_counts, present)):
        if name not in files or (folder / name).read_bytes() != files[name]:
            raise SettingsError(
                f"{folder} holds {name}, which is not of this rendering (another number of them, or files of your own):"
                " choose another folder"
            )
    for name in sorted(files.keys() - present):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            unfinished.write_bytes(files[name])
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


def _counts(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return parts[0] != _STORES and not any(part.startswith(".") for part in parts)
