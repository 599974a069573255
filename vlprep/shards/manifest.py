"""`store.json`: what a store is, and the fingerprint that refuses a run with other settings."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from vlprep import __version__
from vlprep.errors import SettingsError, VlprepError
from vlprep.shards.schema import SCHEMA_VERSION, column_types, schema_kind

MANIFEST_NAME = "store.json"
VOCABULARY_NAME = "vocabulary.safetensors"
"""In the folder of the tokens store that was made with it, whose weights it is."""
_LIBRARIES = ("torch", "torchvision", "numpy", "pyarrow", "pillow", "av")
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """What a stage says of its store. All of it enters the fingerprint, but for the weights' source."""

    kind: str
    """`regions`, `video`, `tokens` or `text`, as the schema's."""
    settings: Mapping[str, Any]
    """All that changes the numbers, JSON-ready."""
    weights: Mapping[str, str] | None
    """`source` and `sha256`; None where no weights take part."""
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Names of what columns count, such as `classes` and `attributes`, in column order."""
    compression: Literal["lz4", "zstd"] | None = None
    """Compressed parts are smaller, but no longer read without a copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The content of `store.json`, JSON-ready."""

    kind: str
    schema_version: int
    fingerprint: str
    columns: Mapping[str, str]
    compression: str | None
    settings: Mapping[str, Any]
    weights: Mapping[str, str] | None
    names: Mapping[str, Sequence[str]]
    versions: Mapping[str, str]
    """Libraries that made the store. They do not enter the fingerprint: an update may not orphan days of work."""

    @classmethod
    def of(cls, schema: pa.Schema, settings: StoreSettings) -> Manifest:
        if schema_kind(schema) != settings.kind:
            raise ValueError(f"a schema for {schema_kind(schema)} with settings for {settings.kind}")
        values: dict[str, Any] = {
            "kind": settings.kind,
            "schema_version": SCHEMA_VERSION,
            "columns": column_types(schema),
            **{key: getattr(settings, key) for key in ("compression", "settings", "weights", "names")},
        }
        values = json.loads(json.dumps(values, allow_nan=False))
        return cls(**values, fingerprint=_fingerprint(values), versions=_versions())

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1).encode() + b"\n"

    def is_consistent(self) -> bool:
        """Whether the fingerprint belongs to the settings: false if someone edited the file."""
        return self.fingerprint == _fingerprint(asdict(self))

    def differences(self, wanted: Manifest) -> list[str]:
        """A line for each key by which `wanted` would give other numbers."""
        mine, others = dict(_flat(_identity(asdict(self)))), dict(_flat(_identity(asdict(wanted))))
        return [
            f"{key}: the store has {_shown(mine, key)}, this run {_shown(others, key)}"
            for key in sorted(mine.keys() | others.keys())
            if mine.get(key) != others.get(key)
        ]


def read_manifest(folder: Path) -> Manifest:
    """Raises `SettingsError` if the folder is no store, `VlprepError` if its `store.json` is damaged."""
    path = folder / MANIFEST_NAME
    try:
        values = json.loads(path.read_bytes())
        if values["schema_version"] > SCHEMA_VERSION:
            raise VlprepError(f"{path} was made by a newer vlprep: update this one (pip install -U vlprep)")
        return Manifest(**values)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SettingsError(f"{folder} is not a store: it has no {MANIFEST_NAME}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise VlprepError(f"{path} is damaged ({error}): make the store anew with --overwrite") from error


def _identity(values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a manifest that decides the numbers."""
    identity = {key: value for key, value in values.items() if key not in ("versions", "fingerprint", "weights")}
    weights = values["weights"]
    return {**identity, "weights": weights and {key: value for key, value in weights.items() if key != "source"}}


def _fingerprint(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(_identity(values)).encode()).hexdigest()


def _canonical(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, allow_nan=False)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _shown(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "none"
    text = json.dumps(values[key], ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "vlprep": __version__}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
