"""Pictures that commands write where the user says (`--out`)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from vlprep.errors import SettingsError

if TYPE_CHECKING:
    from PIL import Image

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def check_target(target: Path) -> None:
    """Raise `SettingsError`, before any work, for a path at which no picture can be."""
    if target.suffix.lower() not in _FORMATS:
        raise SettingsError(f"--out {target}: a picture's name ends with one of {', '.join(_FORMATS)}")
    if target.is_dir():
        raise SettingsError(f"--out {target}: a folder; name a file in it")
    if not target.parent.is_dir():
        raise SettingsError(f"--out {target}: there is no folder {target.parent}; make it first")


def save_picture(picture: Image.Image, target: Path) -> None:
    """Write the picture whole or not at all, in the format that its name says."""
    from vlprep.shards.atomic import clear_errors, write_file

    buffer = io.BytesIO()
    picture.save(buffer, _FORMATS[target.suffix.lower()])
    with clear_errors(target.parent):
        write_file(target, buffer.getvalue())
