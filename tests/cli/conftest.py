"""A rendered dataset with a regions store whose right answers are known, and ways to run the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from vlprep.errors import ItemError
from vlprep.media.scenes import CLASS_NAMES, Scene, write_coco_folder
from vlprep.shards import StoreSettings, open_store
from vlprep.shards.schema import SoftLabels, regions_schema
from vlprep_cli.main import cli

BROKEN = "images/broken.jpg"
SURE = 0.75


@dataclass(frozen=True)
class Made:
    dataset: Path
    store: Path
    scenes: Sequence[Scene]


def make_dataset(folder: Path, soft_labels: SoftLabels = "full") -> Made:
    """Three scenes and a file that is no picture; each region has its object's class at `SURE`."""
    scenes = write_coco_folder(folder, 3)
    (folder / BROKEN).write_bytes(b"no picture")
    store = open_store(
        folder / "vlprep" / "regions",
        regions_schema(4, len(CLASS_NAMES), soft_labels=soft_labels),
        StoreSettings(
            kind="regions",
            settings={"detector": {"name": "known"}, "precision": "fp32"},
            weights={"source": "drawn by hand", "sha256": "ab" * 32},
            names={"classes": CLASS_NAMES},
        ),
    )
    ids = [f"images/{number:012}.jpg" for number in (1, 2, 3)]
    store.plan([*ids, BROKEN], part_size=2)
    rows = dict(zip(ids, map(row_of, scenes, (1, 2, 3), (soft_labels,) * 3), strict=True))
    for part in store.pending():
        with store.write_part(part) as writer:
            for item in store.part_items(part):
                if item == BROKEN:
                    writer.fail(item, ItemError(f"{folder / item}: not a picture"))
                else:
                    writer.add(item, {"path": item, **rows[item]})
    return Made(folder, store.folder, scenes)


def row_of(scene: Scene, number: int, soft_labels: SoftLabels = "full") -> dict[str, Any]:
    """A row of a regions store that knows the scene."""
    objects = len(scene.objects)
    ids = np.array([CLASS_NAMES.index(thing.class_name) for thing in scene.objects])
    probs = np.full((objects, len(CLASS_NAMES)), 0.15 / (len(CLASS_NAMES) - 1), np.float32)
    probs[np.arange(objects), ids] = SURE
    row = {
        "source_id": str(number),
        "width": scene.width,
        "height": scene.height,
        "boxes": np.array([thing.box for thing in scene.objects], np.float32),
        "proposals": np.array([thing.box for thing in scene.objects], np.float32),
        "features": np.zeros((objects, 4), np.float32),
        "object_ids": ids,
        "max_conf": np.full(objects, SURE, np.float32),
        "background_prob": np.full(objects, 0.1, np.float32),
    }
    if soft_labels == "full":
        row["class_probs"] = probs
    elif isinstance(soft_labels, int):
        order = np.argsort(-probs, axis=1, kind="stable")[:, :soft_labels]
        row |= {
            "class_ids": order,
            "class_probs": np.take_along_axis(probs, order, 1),
            "remainder_prob": np.zeros(objects),
        }
    return row


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_dataset(tmp_path / "scenes")


@pytest.fixture
def vlprep() -> Callable[..., Result]:
    """Run the command line in this process; an unexpected exception fails the test."""

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="vlprep")
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def document(vlprep: Callable[..., Result]) -> Callable[..., Any]:
    """Run with `--json` and give what stdout holds, which must be one document and no more."""

    def run(*arguments: object) -> Any:
        return json.loads(vlprep(*arguments, "--json").stdout)

    return run


@pytest.fixture
def spawn() -> Callable[..., subprocess.Popen[str]]:
    """Start the installed program in a process of its own, stdout and stderr on pipes."""

    def start(*arguments: object, **variables: str) -> subprocess.Popen[str]:
        program = Path(sys.executable).with_name("vlprep")
        return subprocess.Popen(
            [program, *map(str, arguments)],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **variables},
        )

    return start
