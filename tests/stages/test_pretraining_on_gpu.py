"""With `--device cuda` on a pretended GPU, every recipe trains and every evaluation answers as on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_gpu import PretendGpu
from stages.rendered import write_moving_scenes, write_scenes

from vlprep.errors import SettingsError
from vlprep.pretrain.checkpoint import read_model
from vlprep.pretrain.recipe import load_recipe, with_settings
from vlprep.pretrain.run_folder import read_metrics
from vlprep.pretrain.trainer import Logged
from vlprep.shards import StoreReader
from vlprep.stages.caption import caption
from vlprep.stages.embed import embed
from vlprep.stages.evaluate import evaluate, evaluate_retrieval
from vlprep.stages.pretrain import PretrainReport, pretrain

IMAGES = ("uniter-small", "lxmert-small", "vilbert-small", "vlp-small", "oscar-small", "oscar-plus-small")
VIDEOS = (
    "videobert-small",
    "howto100m-small",
    "milnce-small",
    "milnce-small-end-to-end",
    "cbt-small",
    "univl-stage1-small",
    "univl-stage2-small",
    "hero-order-small",
)
RUN = ("steps=4", "log_every=1", "save_every=100", "validate_every=0", "validation_batches=1", "loaders=0")
CLOCK = ("tokens_per_second", "waiting", "starting")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "own", 16)


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moving_scenes(tmp_path_factory.mktemp("moving") / "own", 10)


@pytest.mark.parametrize("name", [*IMAGES, *VIDEOS])
def test_recipes(name: str, scenes: Path, moving: Path, tmp_path: Path) -> None:
    """Four steps and a validation, then every evaluation that the system has."""
    dataset = scenes if name in IMAGES else moving
    here = trained(name, dataset, tmp_path / "here", "cpu")
    with PretendGpu():
        there = trained(name, dataset, tmp_path / "there", "cuda")
    one, other = read_model(here.checkpoint), read_model(there.checkpoint)
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    assert curve(here) == curve(there)
    with PretendGpu():
        half = trained(name, dataset, tmp_path / "half", "cuda", "train.precision=bf16", "train.steps=2")
    assert half.skipped == 0
    for one, other in zip(curve(here), curve(half)[:2], strict=False):
        for term, value in one["losses"].items():
            if not term.endswith("accuracy"):
                assert other["losses"][term] == pytest.approx(value, rel=0.02, abs=0.02), term
    asked = 0
    for question in (ranked, matched, words, embedded, captions):
        try:
            expected = question(here, dataset, tmp_path / "embedded here", "cpu")
        except SettingsError:  # no question for this system
            continue
        asked += 1
        with PretendGpu():
            assert question(here, dataset, tmp_path / "embedded there", "cuda") == expected
    assert asked or name == "hero-order-small"  # whose only task is to order clips


def trained(name: str, dataset: Path, out: Path, device: str, *more: str) -> PretrainReport:
    settings = [*(f"train.{one}" for one in (*RUN, "precision=fp32", "validation_share=0.3")), *more]
    if name == "milnce-small-end-to-end":
        settings += ["batches.samples=2"]
    report = pretrain([dataset], with_settings(load_recipe(name), settings), out=out, device=device)
    assert report is not None
    return report


def curve(report: PretrainReport) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in entry.items() if name not in CLOCK} for entry in read_metrics(report.folder)
    ]


def ranked(run: PretrainReport, dataset: Path, out: Path, device: str) -> object:
    return evaluate_retrieval(run.checkpoint, dataset, most=6, device=device)


def matched(run: PretrainReport, dataset: Path, out: Path, device: str) -> object:
    return evaluate(run.checkpoint, dataset, "match", device=device)


def words(run: PretrainReport, dataset: Path, out: Path, device: str) -> object:
    return evaluate(run.checkpoint, dataset, "mlm", device=device)


def embedded(run: PretrainReport, dataset: Path, out: Path, device: str) -> object:
    embed(run.folder, dataset, out=out, device=device)
    return [row["clips"].tobytes() + row["texts"].tobytes() for row in StoreReader(out)]


def captions(run: PretrainReport, dataset: Path, out: Path, device: str) -> object:
    return caption(run.checkpoint, dataset, most=2, device=device)


def test_kernels_give_the_same_bits_while_it_trains(scenes: Path, tmp_path: Path) -> None:
    seen: list[bool] = []
    recipe = with_settings(load_recipe("uniter-small"), ["train.steps=1", "train.log_every=1", "train.loaders=0"])
    for wanted in (recipe, with_settings(recipe, ["train.deterministic=false"])):
        with PretendGpu():
            pretrain(
                [scenes],
                wanted,
                out=tmp_path / f"run {len(seen)}",
                device="cuda",
                on_event=lambda event: (
                    seen.append(torch.are_deterministic_algorithms_enabled()) if isinstance(event, Logged) else None
                ),
            )
    assert seen == [True, False]
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
