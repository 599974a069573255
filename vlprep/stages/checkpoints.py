"""What a pretraining run has left, and its weights in other people's formats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlprep.errors import SettingsError
from vlprep.interop.bert_files import ExportedFiles, write_hugging_face, write_uniter
from vlprep.interop.published import write_hugging_face_lxmert, write_mil_nce, write_oscar, write_published
from vlprep.pretrain.checkpoint import (
    STATE_NAME,
    TrainingState,
    checkpoints,
    read_model,
    read_shapes,
    read_state,
)
from vlprep.pretrain.models.config_file import read_model_config
from vlprep.pretrain.models.kinds import ModelConfig, kind_of
from vlprep.pretrain.recipe import load_recipe
from vlprep.pretrain.run_folder import RECIPE_NAME

Format = Literal["hf", "uniter", "lxmert", "vlp", "oscar", "vilbert", "univl", "howto100m", "milnce"]

_OPENED_BY: Mapping[Format, tuple[str, ...]] = {
    "hf": ("single-stream", "lxmert"),
    "uniter": ("single-stream",),
    "lxmert": ("lxmert",),
    "vlp": ("vlp",),
    "oscar": ("oscar",),
    "vilbert": ("vilbert",),
    "univl": ("univl",),
    "milnce": ("milnce",),
    "howto100m": ("howto100m",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCheckpoint:
    """A checkpoint of a run, with what is known of it without reading its numbers."""

    run: Path
    checkpoint: Path
    steps: tuple[int, ...]
    """Of all checkpoints that the run has."""
    state: TrainingState
    objectives: Mapping[str, float]
    """With their weights."""
    model: ModelConfig
    parameters: int
    """Numbers in the model, tied ones counted once."""
    bytes: int
    """Of the checkpoint."""


def open_checkpoint(path: Path) -> RunCheckpoint:
    """The newest checkpoint of a run's folder, or the one that `path` is.

    Raises `SettingsError` where there is none.
    """
    run = path.resolve().parents[1] if (path / STATE_NAME).is_file() else path
    if not path.is_dir():
        raise SettingsError(f"{path}: there is no such run or checkpoint")
    model = read_model_config(run)
    kept = checkpoints(run / "checkpoints")
    if not kept:
        raise SettingsError(f"{run} has no checkpoint yet")
    checkpoint = path if run != path else kept[-1]
    shapes = read_shapes(checkpoint)
    return RunCheckpoint(
        run=run,
        checkpoint=checkpoint,
        steps=tuple(read_state(folder).step for folder in kept),
        state=read_state(checkpoint),
        objectives={name: chosen.weight for name, chosen in load_recipe(str(run / RECIPE_NAME)).objectives.items()},
        model=model,
        parameters=sum(math.prod(shape) for shape in shapes),
        bytes=sum(file.stat().st_size for file in checkpoint.iterdir()),
    )


def export_checkpoint(path: Path, to: Format, out: Path | None = None) -> ExportedFiles:
    """Write a checkpoint for transformers or a system's own code into `out`, or into `<run>/<to>`.

    Raises `SettingsError` where there is no checkpoint, or where the other side has no such model.
    """
    found = open_checkpoint(path)
    kind = kind_of(found.model)
    if kind not in _OPENED_BY[to]:
        fitting = " or ".join(f"--to {form}" for form, kinds in _OPENED_BY.items() if kind in kinds)
        fitting = fitting or "no other code opens it"
        raise SettingsError(f"--to {to} is for models of kind {', '.join(_OPENED_BY[to])}; this is {kind}: {fitting}")
    folder, state, sizes = out or found.run / to, read_model(found.checkpoint), found.model.encoder
    if to == "uniter":
        return write_uniter(folder, state)
    if to == "milnce":
        return write_mil_nce(folder, state)
    if to == "oscar":
        assert sizes is not None
        return write_oscar(folder, state, heads=sizes.heads)
    if to != "hf":
        return write_published(folder, state, to)
    assert sizes is not None
    if kind == "lxmert":
        return write_hugging_face_lxmert(
            folder, state, heads=sizes.heads, dropout=sizes.dropout, attention_dropout=sizes.attention_dropout
        )
    return write_hugging_face(
        folder,
        state,
        heads=sizes.heads,
        dropout=sizes.dropout,
        attention_dropout=sizes.attention_dropout,
        norm_eps=sizes.norm_eps,
    )
