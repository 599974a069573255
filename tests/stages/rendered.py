"""Rendered data as `vlprep demo` makes it, with what belongs to another picture or video instead of its own, and small
twins that are trained on it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from vlprep.cluster.train import TrainSettings
from vlprep.media.scenes import write_coco_folder
from vlprep.media.scenes.videos import write_howto_folder
from vlprep.pretrain.recipe import load_recipe, with_settings
from vlprep.stages.cluster_video import ClusterSettings, assign_tokens, find_or_train
from vlprep.stages.extract_regions import RegionSettings, extract_regions
from vlprep.stages.extract_video import EncoderChoice, VideoSettings, extract_video
from vlprep.stages.pretrain import PretrainReport, pretrain
from vlprep.stages.run import RunSettings
from vlprep.stages.tokenize_text import tokenize_text

HALF_SECONDS = EncoderChoice(
    name="s3d", weights="random:0", overrides={"fps": 10, "clip_frames": 5, "resize": 32, "crop": 32}
)
"""An untrained S3D on clips of half a second: three of each shot."""
WORD_DIM = 64


def write_scenes(folder: Path, count: int) -> Path:
    """Scenes with the regions of the `demo` detector and tokens of their captions."""
    write_coco_folder(folder, count)
    extract_regions(folder, RegionSettings(detector="demo"), RunSettings())
    tokenize_text(folder, "train:400")
    return folder


def with_others_captions(scenes: Path, folder: Path) -> Path:
    """The same scenes, each with the captions of another."""
    shutil.copytree(scenes, folder)
    for path in sorted((folder / "annotations").glob("captions_*.json")):
        captions = json.loads(path.read_text())
        images = sorted({entry["image_id"] for entry in captions["annotations"]})
        exchanged = dict(zip(images, _deranged(images), strict=True))
        for entry in captions["annotations"]:
            entry["image_id"] = exchanged[entry["image_id"]]
        path.write_text(json.dumps(captions))
    _tokenise_anew(folder, ("train:400", "text"))
    return folder


def write_moving_scenes(folder: Path, count: int) -> Path:
    """Moving scenes with clip features and visual tokens, and pieces and words of their narration."""
    write_howto_folder(folder, count)
    extract_video(folder, VideoSettings(encoders=(HALF_SECONDS,)), RunSettings())
    clusters = ClusterSettings(training=TrainSettings(branching=8, depth=2))
    assign_tokens(folder, clusters, find_or_train(folder, clusters, RunSettings()), RunSettings())
    _tokenise_anew(folder, ("train:400", "text"), (f"words:train:{WORD_DIM}", "words"))
    return folder


def with_others_narration(moving: Path, folder: Path) -> Path:
    """The same videos, each with the narration of another."""
    shutil.copytree(moving, folder)
    path = folder / "caption.json"
    told = json.loads(path.read_text())
    names = sorted(told)
    path.write_text(json.dumps({name: told[other] for name, other in zip(names, _deranged(names), strict=True)}))
    _tokenise_anew(folder, ("train:400", "text"), (f"words:train:{WORD_DIM}", "words"))
    return folder


def train_twin(recipe: str, dataset: Path, *settings: str) -> PretrainReport:
    """With one validation, after the last step."""
    once = ["train.validate_every=0", "train.validation_batches=50", *settings]
    report = pretrain([dataset], with_settings(load_recipe(recipe), once), name=recipe, resume="never", device="cpu")
    assert report is not None  # no torchrun here
    return report


def _deranged(things: list[Any]) -> list[Any]:
    """Each thing's successor in a random order."""
    order = np.random.default_rng(0).permutation(len(things))
    successor = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    return [things[successor[place]] for place in range(len(things))]


def _tokenise_anew(folder: Path, *stores: tuple[str, str]) -> None:
    for tokenizer, name in stores:
        store = folder / "vlprep" / name
        shutil.rmtree(store, ignore_errors=True)
        tokenize_text(folder, tokenizer, out=store)
