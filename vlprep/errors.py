"""The errors that reach a user.

Three kinds, because the command line treats them differently: a `SettingsError` is the user's to fix before anything
runs (exit 2), an `ItemError` concerns one file and becomes a failure row (exit 3 at the end), any other `VlprepError`
ends the run (exit 1). Each message names the file or option concerned and the way out.
"""

from __future__ import annotations


class VlprepError(Exception):
    """The run cannot go on; the message is for the user and ends with the way out."""

    exit_code = 1


class SettingsError(VlprepError, ValueError):
    """An option, a configuration or an input path is wrong, or a store was made with other settings."""

    exit_code = 2


class MissingDependencyError(SettingsError):
    """An optional library is needed; the message holds the line that installs it."""


class ItemError(Exception):
    """One item (an image, a video, a caption) cannot be used. Recorded as a failure row, never fatal to a run."""
