"""What a run was trained on, beside its recipe: so that evaluation can leave out what the model has seen, and refuses
another tokenizer's ids."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from vlprep.errors import SettingsError
from vlprep.shards.atomic import write_file

DATA_NAME = "data.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    datasets: tuple[str, ...]
    """Folders, resolved, in the order that samples are numbered in."""
    tokenizer: str | None
    """SHA-256 of the text stores' tokenizer."""
    visual_vocabulary: str | None
    """SHA-256 of the tokens stores' vocabulary."""
    answers: tuple[str, ...] = ()
    """To questions about images: what the classes of the answer head are."""


def write_run_data(run: Path, data: RunData) -> None:
    write_file(run / DATA_NAME, (json.dumps(asdict(data), indent=2) + "\n").encode())


def read_run_data(run: Path) -> RunData:
    """Raises `SettingsError` where the folder is no run, or one of an earlier version."""
    try:
        found = json.loads((run / DATA_NAME).read_text())
        lists = {name: tuple(found.get(name, ())) for name in ("datasets", "answers")}
        return RunData(**{**found, **lists})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SettingsError(
            f"{run}: {DATA_NAME}, which says what the run was trained on, cannot be read ({error});"
            " `vlprep pretrain` writes it when a run begins or goes on"
        ) from error
