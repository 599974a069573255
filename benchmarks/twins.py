"""The small twin of every published recipe on rendered data: how long it takes, what it learns, what the loop costs.

    python benchmarks/twins.py                     all twins from their first step to their last
    python benchmarks/twins.py --only lxmert-small --only vlp-small      these alone; the others' results are kept
    python benchmarks/twins.py --quick             the ratio alone; seconds are extrapolated, where no earlier run has
                                                   found them

The twins are pipelines/*-small*.toml; of UNITER and VideoBERT `uniter-demo` and `videobert-demo`, since `uniter-small`
and `videobert-small` are for photographs and real videos, and longer.

- seconds:  CPU seconds of the training process, one thread, from opening the stores to the curves; the loader process,
            whose seconds stand beside, runs at the same time on the other of 2 cores
- ratio:    CPU seconds a step of `Trainer` with its loader process, divided by those of the bare model's forward,
            backward and step on the same micro-batches, ready in memory; the two take turns, and the fastest round of
            each step counts
- measure:  the figure of held-out images or videos that the twin's own objective is judged by, before and after, and
            what a guess comes to
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from _measure import print_table, save
from learning import S3D, VOCABULARY
from numpy.typing import NDArray
from torch import nn

from vlprep.media.scenes import write_coco_folder
from vlprep.media.scenes.videos import write_howto_folder
from vlprep.pretrain.distributed import World
from vlprep.pretrain.models.kinds import build_model
from vlprep.pretrain.objectives.catalogue import list_objectives
from vlprep.pretrain.optim import make_optimiser
from vlprep.pretrain.recipe import Recipe, load_recipe, recipe_names, with_settings
from vlprep.pretrain.setup import Prepared, model_config, open_corpora, prepare
from vlprep.pretrain.trainer import Trainer
from vlprep.stages.cluster_video import ClusterSettings, assign_tokens, find_or_train
from vlprep.stages.extract_regions import RegionSettings, extract_regions
from vlprep.stages.extract_video import VideoSettings, extract_video
from vlprep.stages.pretrain import pretrain
from vlprep.stages.pretrain_data import data_facts, find_stores, read_vocabulary, text_vocabulary
from vlprep.stages.run import RunSettings
from vlprep.stages.tokenize_text import tokenize_text

_WORD_DIM = 64
_HALF_SECONDS = replace(S3D, overrides=S3D.overrides | {"clip_frames": 5})
"""Three clips of each shot."""
TWINS = [
    name
    for name in recipe_names()
    if name.endswith("-demo") or ("small" in name and name not in ("uniter-small", "videobert-small"))
]
_BEGINNING = 5
"""Steps that are not timed: the loader starts, and what it was forked from is written to for the first time."""
_UNTRAINED = "the untrained model"
_MEASURES: Mapping[str, tuple[str, float | str]] = {
    "uniter": ("mlm/accuracy", "mlm/accuracy without"),
    "lxmert": ("lxmert/auc", 0.5),
    "vilbert": ("vilbert/auc", 0.5),
    "oscar": ("oscar/auc", 0.5),
    "vlp": ("vlp/accuracy", "vlp/accuracy without"),
    "videobert": ("mlm/accuracy", "mlm/accuracy without"),
    "howto100m": ("howto100m/accuracy", _UNTRAINED),
    "milnce": ("milnce/accuracy", _UNTRAINED),
    "milnce-small-end": ("milnce-end-to-end/accuracy", _UNTRAINED),
    "univl-stage1": ("univl-retrieval/accuracy", _UNTRAINED),
    "univl-stage2": ("univl/retrieval accuracy", _UNTRAINED),
    "cbt": ("cbt/cross accuracy", _UNTRAINED),
    "hero": ("frame-order/accuracy", _UNTRAINED),
}
"""By the beginning of a recipe's name, the longest that fits: a figure, and the guess that it is compared with or the
figure that is one (what another's image tells). Where one is found among the others of a batch, whose number varies,
the untrained model guesses.
"""


@dataclass(frozen=True, slots=True)
class Size:
    images: int = 1200
    videos: int = 240
    seconds: float = 0.4
    """Of the bare model's timed steps in a round."""
    rounds: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    recipe: str
    steps: int
    whole: bool
    """Whether the twin was trained to its end; else `seconds` are extrapolated from the steps that `ratio` took."""
    seconds: float
    loader_seconds: float | None
    ratio: float
    step_seconds: float
    """Of the bare model."""
    before: Mapping[str, float]
    after: Mapping[str, float]
    """Figures of the validation."""


def make_datasets(folder: Path, size: Size) -> dict[str, Path]:
    """Rendered images with regions and pieces, rendered videos with features, tokens, pieces and words."""
    images, videos = folder / "images", folder / "videos"
    if not (images / "vlprep" / "text").exists():
        write_coco_folder(images, size.images)
        extract_regions(images, RegionSettings(detector="demo"), RunSettings())
        tokenize_text(images, "train:400")
    if not (videos / "vlprep" / "words").exists():
        write_howto_folder(videos, size.videos)
        extract_video(videos, VideoSettings(encoders=(_HALF_SECONDS,)), RunSettings())
        clusters = ClusterSettings(training=VOCABULARY)
        assign_tokens(videos, clusters, find_or_train(videos, clusters, RunSettings()), RunSettings())
        tokenize_text(videos, "train:400")
        tokenize_text(videos, f"words:train:{_WORD_DIM}", out=videos / "vlprep" / "words")
    return {"images": images, "videos": videos}


def measure_twin(name: str, datasets: Mapping[str, Path], size: Size, scratch: Path, *, whole: bool) -> Twin:
    recipe = load_recipe(name)
    inputs = {entry.name: entry.inputs for entry in list_objectives()}
    of_images = any("regions" in inputs[objective] for objective in recipe.objectives)
    folder = datasets["images" if of_images else "videos"]
    ours, bare = paces(recipe, folder, size, scratch)
    steps = recipe.train.steps
    seconds, loaders = float(ours.mean()) * steps, None
    before: Mapping[str, float] = {}
    after: Mapping[str, float] = {}
    if whole:
        untrained = with_settings(recipe, ["train.steps=1", "optimiser.lr=0.0"])
        before = train(folder, untrained, scratch)
        began, began_loaders = time.process_time(), _seconds_of_children()
        after = train(folder, recipe, scratch)
        seconds, loaders = time.process_time() - began, _seconds_of_children() - began_loaders
    return Twin(
        recipe=name,
        steps=steps,
        whole=whole,
        seconds=seconds,
        loader_seconds=loaders,
        ratio=float(ours.sum() / bare.sum()),
        step_seconds=float(bare.mean()),
        before=before,
        after=after,
    )


def train(folder: Path, recipe: Recipe, scratch: Path) -> Mapping[str, float]:
    report = pretrain([folder], recipe, out=scratch / "run", resume="never", device="cpu")
    assert report is not None  # no torchrun here
    return report.figures


def paces(recipe: Recipe, folder: Path, size: Size, scratch: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """CPU seconds of each timed step by `Trainer` and by the bare model, either's fastest round."""
    stores = [find_stores(folder, recipe)]
    corpora = open_corpora(stores, recipe)
    words, facts = text_vocabulary(stores), data_facts(corpora, read_vocabulary(stores))
    prepared = prepare(recipe, corpora, words, facts, processes=1)
    config = model_config(recipe, words, facts)

    def model() -> nn.Module:
        torch.manual_seed(0)
        return build_model(config)

    steps = min(100, max(4, round(size.seconds / by_hand(model(), recipe, prepared, 4).min())))
    rounds = [
        (by_trainer(model(), recipe, prepared, steps, scratch), by_hand(model(), recipe, prepared, steps))
        for _ in range(size.rounds)
    ]
    ours, bare = (np.min(seconds, axis=0) for seconds in zip(*rounds, strict=True))
    return ours, bare


def by_trainer(model: nn.Module, recipe: Recipe, prepared: Prepared, steps: int, scratch: Path) -> NDArray[np.float64]:
    """Of `steps` steps behind the beginning and before the last, which logs and saves."""
    every = _BEGINNING + steps + 1
    settings = replace(recipe.train, steps=every, log_every=every, save_every=every)
    trainer = Trainer(
        model, prepared.objectives, prepared.batches, settings, recipe.optimiser, World(), scratch / "timed"
    )
    clock: list[float] = []
    trainer.run(lambda event: None, lambda done: clock.append(time.process_time()))
    return np.diff(clock)[_BEGINNING - 1 : -1]


def by_hand(model: nn.Module, recipe: Recipe, prepared: Prepared, steps: int) -> NDArray[np.float64]:
    """Of the same steps."""
    ready = [prepared.batches[step, 0] for step in range(_BEGINNING - 1, _BEGINNING + steps)]
    optimiser = make_optimiser(model, recipe.optimiser)
    model.train()
    clock: list[float] = []
    for batch in ready:
        prepared.objectives[batch.objective].loss(model, batch).mean(batch.counts).backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.optimiser.clip or float("inf"))
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        clock.append(time.process_time())
    return np.diff(clock)


def _seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _earlier(folder: Path) -> dict[str, Twin]:
    file = folder / "twins.json"
    twins = json.loads(file.read_text())["twins"] if file.is_file() else {}
    return {name: Twin(**entry) for name, entry in twins.items()}


def show(twins: list[Twin]) -> None:
    rows = []
    for twin in twins:
        figure, guess = _MEASURES[max(filter(twin.recipe.startswith, _MEASURES), key=len)]
        if isinstance(guess, str):
            guess = twin.before.get(figure, "") if guess == _UNTRAINED else twin.after.get(guess, "")
        rows.append(
            (
                twin.recipe,
                twin.steps,
                f"{twin.seconds:.0f}{'' if twin.whole else ' extrapolated'}",
                "" if twin.loader_seconds is None else f"{twin.loader_seconds:.0f}",
                twin.ratio,
                figure,
                twin.before.get(figure, ""),
                twin.after.get(figure, ""),
                guess,
            )
        )
    header = ("", "steps", "CPU s", "loader", "ratio", "held out", "before", "after", "guess")
    print_table("Small twins, one thread", header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=TWINS, help="One recipe; can be given again.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path, help="Where the datasets are kept; a temporary folder by default.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    size = Size()
    found = _earlier(chosen.out) if chosen.only or chosen.quick else {}
    with tempfile.TemporaryDirectory(prefix="vlprep-twins-") as scratch:
        datasets = make_datasets(chosen.folder or Path(scratch), size)
        for name in chosen.only or TWINS:
            twin = measure_twin(name, datasets, size, Path(scratch), whole=not chosen.quick)
            if not twin.whole and name in found and found[name].steps == twin.steps:
                twin = replace(found[name], ratio=twin.ratio, step_seconds=twin.step_seconds)
            found[name] = twin
            show([twin])
            twins = {name: asdict(found[name]) for name in sorted(found)}
            save("twins", {"size": asdict(size), "twins": twins}, chosen.out)
    show([found[name] for name in sorted(found)])


if __name__ == "__main__":
    main()
