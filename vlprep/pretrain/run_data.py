"""What a run was trained on, beside its recipe: so that evaluation can leave out what the model has seen, and refuses
another tokenizer's ids.

data.json  the datasets' folders, and by digest what made their stores
items.npy  every image or video, by a hash of its id, and whether it was held out; so that they are known again in a
           dataset that was moved, copied, or made anew in another order
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlprep.errors import SettingsError
from vlprep.shards.atomic import write_file

DATA_NAME, ITEMS_NAME = "data.json", "items.npy"
_ITEM = np.dtype([("key", "<u8"), ("held_out", "?")])


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

    def text_store(self, name: str) -> Path:
        """Of the first dataset, the one that texts of others are to be tokenised as."""
        return Path(self.datasets[0]) / "vlprep" / name


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


def item_keys(ids: Iterable[str]) -> NDArray[np.uint64]:
    """(I,) hashes of the items' ids in their stores."""
    digests = (hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest() for name in ids)
    return np.frombuffer(b"".join(digests), "<u8")


def write_items(run: Path, keys_I: NDArray[np.uint64], held_out_I: NDArray[np.bool_]) -> None:
    items = np.empty(len(keys_I), _ITEM)
    items["key"], items["held_out"] = keys_I, held_out_I
    content = io.BytesIO()
    np.save(content, items, allow_pickle=False)
    write_file(run / ITEMS_NAME, content.getvalue())


def require_same_items(run: Path, keys_I: NDArray[np.uint64]) -> None:
    """Raises `SettingsError` where a run that is to go on was begun with other images or videos, or in another order:
    its steps to come would not be those that it began with, and held-out items would be trained on.
    """
    before_I, _ = read_items(run)
    if not np.array_equal(before_I, keys_I):
        raise SettingsError(
            f"{run} was begun with other images or videos ({len(before_I):,} then, {len(keys_I):,} now, or in another"
            f" order): begin another run from its weights, by --init {run} --out FOLDER"
        )


def read_items(run: Path) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """(I,) keys, and which of them were held out. Raises `SettingsError` where the run does not say."""
    try:
        items = np.load(run / ITEMS_NAME, allow_pickle=False)
        return items["key"], items["held_out"]
    except (OSError, ValueError, IndexError, EOFError) as error:
        raise SettingsError(
            f"{run}: {ITEMS_NAME}, which says what the model has seen, cannot be read ({error}); `vlprep pretrain`"
            " writes it when a run begins"
        ) from error
