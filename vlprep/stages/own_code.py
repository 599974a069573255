"""A user's own detector or encoder, by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from vlprep.errors import SettingsError


def import_own(target: str, *, option: str) -> Callable[..., Any]:
    """What `package.module:function` names. `option` is where the user wrote it, for the message of `SettingsError`."""
    module, _, name = target.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"{option} {target}: not one of ours, and not to be imported ({error}); is its folder in PYTHONPATH?"
        ) from error
    return found
