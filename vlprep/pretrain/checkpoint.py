"""A run's checkpoints: whole or not there, the newest kept, nothing in them that could run code.

`<run>/checkpoints/step-00001000/` holds `model.safetensors`, `training.pt` (optimiser and loss scale, plain tensors)
and `state.json`. A folder gets its name when all of it is on the disk, so that a killed run finds the last whole one.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlprep.errors import SettingsError, VlprepError
from vlprep.pretrain.mishaps import is_lost_loader

MODEL_NAME, TRAINING_NAME, STATE_NAME = "model.safetensors", "training.pt", "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """Where a run stands, beside its tensors."""

    step: int
    """Optimiser steps done; the next step to do."""
    samples: int
    tokens: int
    """Real tokens consumed."""
    skipped: int
    """Steps that were not taken because something was not finite."""
    micro_batches: int = 1
    """Of a step: accumulation times processes."""


def save_checkpoint(
    folder: Path, state: TrainingState, model: nn.Module, training: Mapping[str, Any], *, keep: int
) -> Path:
    """Write `folder/step-N` and remove all but the newest `keep`."""
    final = folder / f"step-{state.step:08d}"
    temporary = folder / f".{final.name}.tmp"
    try:
        remove_torn(folder)
        temporary.mkdir(parents=True)
        save_file(plain_state(model), temporary / MODEL_NAME, {"format": "pt"})
        torch.save(dict(training), temporary / TRAINING_NAME)
        (temporary / STATE_NAME).write_text(json.dumps(asdict(state)) + "\n")
        for path in (*temporary.iterdir(), temporary):
            _sync(path)
        if final.exists():
            final.rename(folder / f".{final.name}.old.tmp")
        temporary.rename(final)
        _sync(folder)
    except (OSError, SafetensorError, RuntimeError) as error:  # torch.save's RuntimeError is a full disk too
        shutil.rmtree(temporary, ignore_errors=True)
        if is_lost_loader(error):  # while this was being written
            raise
        raise VlprepError(
            f"{folder}: the checkpoint of step {state.step} could not be written ({error}); the run can be resumed from"
            " the last one when there is room"
        ) from error
    for old in checkpoints(folder)[:-keep]:
        old.rename(folder / f".{old.name}.tmp")
    remove_torn(folder)
    return final


def remove_torn(folder: Path) -> None:
    """Remove what was not written, or not removed, to its end. Only for the process that has sole use of the run."""
    for path in folder.glob(".step-*.tmp"):
        shutil.rmtree(path)


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first. A folder that has lost a file is none."""
    found = folder.glob("step-*") if folder.is_dir() else []
    return sorted(path for path in found if re.fullmatch(r"step-\d{8}", path.name) and _is_whole(path))


def read_state(checkpoint: Path) -> TrainingState:
    """Raises `SettingsError` where the folder is no checkpoint."""
    try:
        return TrainingState(**json.loads((checkpoint / STATE_NAME).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"{checkpoint} is no checkpoint of vlprep ({error})") from error


def read_model(checkpoint: Path) -> dict[str, Tensor]:
    """Raises `SettingsError` where the file is damaged."""
    try:
        return load_file(checkpoint / MODEL_NAME)
    except (OSError, SafetensorError) as error:
        raise _damaged(checkpoint / MODEL_NAME, error) from error


def read_shapes(checkpoint: Path) -> list[list[int]]:
    """Of the model's tensors, without reading their numbers. Raises `SettingsError` where the file is damaged."""
    try:
        with safe_open(checkpoint / MODEL_NAME, "pt") as file:
            return [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise _damaged(checkpoint / MODEL_NAME, error) from error


def read_training(checkpoint: Path, device: torch.device) -> dict[str, Any]:
    """Raises `SettingsError` where the file is damaged."""
    try:
        training: dict[str, Any] = torch.load(checkpoint / TRAINING_NAME, map_location=device, weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise _damaged(checkpoint / TRAINING_NAME, error) from error
    return training


def _damaged(path: Path, error: Exception) -> SettingsError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return SettingsError(
        f"{path} is damaged ({first}): remove {path.parent}, and the same command goes on from the checkpoint before"
        " it, or begins anew"
    )


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict on the CPU, each tensor once."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def _is_whole(checkpoint: Path) -> bool:
    return all((checkpoint / name).is_file() for name in (MODEL_NAME, TRAINING_NAME, STATE_NAME))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
