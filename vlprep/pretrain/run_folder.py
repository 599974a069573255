"""A run's folder: the resolved recipe, checkpoints, metrics as lines of JSON and as TensorBoard scalars.

recipe.toml   all settings, as they were after --set and the other options
model.json    the network's sizes
metrics.jsonl one line a log entry and a validation
tensorboard/  the same as scalars, if tensorboard is installed
checkpoints/  see `vlprep.pretrain.checkpoint`
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlprep.errors import SettingsError
from vlprep.pretrain.checkpoint import checkpoints, read_state, remove_torn
from vlprep.pretrain.models.config_file import CONFIG_NAME
from vlprep.pretrain.recipe import Recipe, load_recipe, to_table
from vlprep.pretrain.trainer import Logged
from vlprep.pretrain.validate import Validated
from vlprep.shards.atomic import clear_errors, remove_stale, sole_use, write_file

RECIPE_NAME, METRICS_NAME = "recipe.toml", "metrics.jsonl"
MAY_DIFFER = (
    "train.steps",
    "train.accumulate",
    "train.log_every",
    "train.save_every",
    "train.keep",
    "train.loaders",
)
"""Settings that a resumed run may change: they do not alter the steps already taken, except through the schedule's
end. Accumulation may, where the number of processes changes against it (`Trainer.resume`).
"""


@contextmanager
def hold_run(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder, and remove what a killed one left half written.

    Raises `SettingsError` where another process trains in it.
    """
    with clear_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with sole_use(folder):
        remove_stale(folder)
        remove_torn(folder / "checkpoints")
        yield


def starting_point(folder: Path, resume: str) -> Path | None:
    """The checkpoint to go on from: by `auto` the newest in the folder, by `never` none, or that of a path.

    Raises `SettingsError` where the folder has later ones than the path: what comes after it would be mixed with them.
    """
    if resume == "never":
        return None
    found = checkpoints(folder / "checkpoints")
    if resume == "auto":
        return found[-1] if found else None
    start = Path(resume)
    if found and read_state(found[-1]).step > read_state(start).step:
        raise SettingsError(
            f"{folder} has later checkpoints than {start}, up to {found[-1].name}: begin another run from it with"
            " --out FOLDER, or remove them"
        )
    return start


def forget_run(folder: Path, *, begin_anew: bool) -> None:
    """Remove what an earlier run has left: its checkpoints only if it is to be begun anew, else the log of one that had
    none yet.

    Raises `SettingsError` where that is not this program's, or where checkpoints have lost a file.
    """
    left = [folder / name for name in ("checkpoints", "tensorboard", METRICS_NAME, RECIPE_NAME)]
    left = [path for path in left if path.exists()]
    if left and not (folder / CONFIG_NAME).is_file():
        raise SettingsError(f"{folder} holds {left[0].name} and is no run of vlprep pretrain: choose another --out")
    saved = sorted((folder / "checkpoints").glob("*"))
    if saved and not begin_anew:
        raise SettingsError(
            f"{saved[-1]} is no whole checkpoint, and there is none to go on from: --resume never begins anew and"
            " removes it, --out FOLDER begins elsewhere"
        )
    for path in left:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def open_run(folder: Path, recipe: Recipe) -> None:
    """Write the recipe, or check that the one there trains the same way.

    Raises `SettingsError` naming each setting that differs.
    """
    path = folder / RECIPE_NAME
    if path.is_file() and checkpoints(folder / "checkpoints"):
        before, now = dict(_flat(to_table(load_recipe(str(path))))), dict(_flat(to_table(recipe)))
        differing = [
            f"\n  {key}: the run has {before.get(key)!r}, this call {now.get(key)!r}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key) and key not in MAY_DIFFER
        ]
        if differing:
            raise SettingsError(
                f"{folder} was begun with other settings:{''.join(differing)}\ngo on with its own (--recipe {path}), or"
                " begin another run with --out FOLDER or --resume never"
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_file(path, as_toml(to_table(recipe)).encode())


class MetricsLog:
    """Appends to `metrics.jsonl` and TensorBoard. Entries after the step that a run resumes from are taken back."""

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / METRICS_NAME
        kept = [line for line in _lines(self._path) if json.loads(line)["step"] <= step]
        write_file(self._path, "".join(line + "\n" for line in kept).encode())
        self._board = _tensorboard(folder / "tensorboard", step)

    def add(self, entry: Logged | Validated) -> None:
        kind = "train" if isinstance(entry, Logged) else "validation"
        values = {key: value for key, value in asdict(entry).items() if key != "seconds_left"}
        with clear_errors(self._path.parent), self._path.open("a") as file:
            file.write(json.dumps({"kind": kind, **_finite(values)}) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a checkpoint on the disk has all that was logged before it
        if self._board is not None:
            for name, value in _scalars(entry).items():
                self._board.add_scalar(name, value, entry.step)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _lines(folder / METRICS_NAME)]


def as_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """Nested tables of numbers, text, booleans and lists, as TOML."""
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines = [f"{key} = {_literal(value)}\n" for key, value in plain.items()]
    head = f"\n[{prefix}]\n" if prefix and lines else ""
    inner = [
        as_toml(value, f"{prefix}.{key}" if prefix else key)
        for key, value in table.items()
        if isinstance(value, Mapping)
    ]
    return head + "".join(lines) + "".join(inner)


def _scalars(entry: Logged | Validated) -> dict[str, float]:
    if isinstance(entry, Validated):
        return {f"validation/{name}": value for name, value in entry.figures.items()}
    losses = {f"train/{name}": value for name, value in entry.losses.items()}
    return {**losses, "lr": entry.lr, "tokens per second": entry.tokens_per_second, "waiting": entry.waiting}


def _literal(value: Any) -> str:
    return json.dumps(value)  # TOML's and JSON's numbers, booleans, lists and basic strings are written alike


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in table.items():
        flat += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return flat


def _finite(value: Any) -> Any:
    """NaN and infinities as None: they are no JSON."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(path: Path) -> list[str]:
    """Whole lines: a killed process may leave half of one."""
    if not path.is_file():
        return []
    text = path.read_text()
    return text[: text.rfind("\n") + 1].splitlines()


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step)
