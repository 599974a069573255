"""`model.json`: kind and sizes of a run's model, so that its checkpoints can be opened without its data."""

from __future__ import annotations

import json
from pathlib import Path

from vlprep.errors import SettingsError
from vlprep.pretrain.models.kinds import KINDS, ModelConfig, kind_of
from vlprep.pretrain.recipe import from_table, to_table
from vlprep.shards.atomic import write_file

CONFIG_NAME = "model.json"


def write_model_config(folder: Path, config: ModelConfig) -> Path:
    """Write `model.json` into a run's folder."""
    path = folder / CONFIG_NAME
    write_file(path, (json.dumps({"kind": kind_of(config), **to_table(config)}, indent=2) + "\n").encode())
    return path


def read_model_config(folder: Path) -> ModelConfig:
    """Raises `SettingsError` where the folder has no `model.json`, or a damaged one."""
    path = folder / CONFIG_NAME
    try:
        table = json.loads(path.read_text("utf-8"))
        kind = table.pop("kind", "single-stream")
        if kind not in KINDS:
            raise SettingsError(f"{path}: kind {kind!r} is of another version of vlprep; known are {', '.join(KINDS)}")
        config: ModelConfig = from_table(KINDS[kind].config, table, str(path))
        return config
    except OSError as error:
        raise SettingsError(f"{folder} is no run of `vlprep pretrain`: {path.name} cannot be read ({error})") from error
    except (json.JSONDecodeError, TypeError, AttributeError) as error:  # torn, or a size without default is missing
        raise SettingsError(f"{path} is damaged ({error})") from error
