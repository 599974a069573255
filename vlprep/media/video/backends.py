"""Decoders by name, each `module:function` with the signature of `OpenSource`; imported only when used."""

from __future__ import annotations

import importlib
import importlib.util
from typing import cast

from vlprep.errors import MissingDependencyError, SettingsError
from vlprep.media.video.base import OpenSource

DEFAULT_BACKEND = "pyav"
BACKENDS = {
    "pyav": "vlprep.media.video.pyav_source:open_pyav",
    "decord": "vlprep.media.video.decord_source:open_decord",
    "torchcodec": "vlprep.media.video.torchcodec_source:open_torchcodec",
}


def require_backend(name: str) -> None:
    """Fail now rather than in a decoding process. `name` is of `BACKENDS` or is itself `module:function`.

    Raises SettingsError for an unknown name, MissingDependencyError where the library is not installed.
    """
    if name in BACKENDS:
        library = "av" if name == "pyav" else name
        if importlib.util.find_spec(library) is None:
            raise MissingDependencyError(f"decoder {name!r} needs a library: pip install {library}")
    elif ":" not in name:
        raise SettingsError(f"decoder {name!r} is unknown; choose one of {', '.join(BACKENDS)}")


def load_backend(name: str) -> OpenSource:
    """The function that opens files. Raises as `require_backend` does."""
    require_backend(name)
    module, _, function = BACKENDS.get(name, name).partition(":")
    return cast(OpenSource, getattr(importlib.import_module(module), function))
