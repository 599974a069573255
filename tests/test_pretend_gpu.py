"""On a GPU that only pretends to be one, everything that takes `--device cuda` gives exactly the CPU's numbers: no
tensor is left behind on the wrong device. (What a real one adds, its kernels and its speed, is `make gpu-check`'s.)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detect.networks import FAMILIES, loaded, picture, published_weights, tiny
from pretend_gpu import GPU, PretendGpu
from stages import inline_engine
from stages.rendered import HALF_SECONDS, write_moving_scenes, write_scenes
from torch import nn

from vlprep.clips.encoder import build_encoder
from vlprep.detect.base import Detector
from vlprep.detect.families import build_detector
from vlprep.engines import devices
from vlprep.errors import SettingsError
from vlprep.pretrain.checkpoint import read_model
from vlprep.pretrain.recipe import load_recipe, with_settings
from vlprep.pretrain.run_folder import read_metrics
from vlprep.shards import StoreReader
from vlprep.stages import run as stage_run
from vlprep.stages.caption import caption
from vlprep.stages.embed import embed
from vlprep.stages.evaluate import evaluate, evaluate_retrieval
from vlprep.stages.extract_regions import RegionSettings, extract_regions
from vlprep.stages.extract_video import VideoSettings, extract_video
from vlprep.stages.pretrain import PretrainReport, pretrain
from vlprep.stages.run import RunSettings

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
SMALL = {"resize": 32, "crop": 32, "clip_frames": 5}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "own", 24)


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moving_scenes(tmp_path_factory.mktemp("moving") / "own", 12)


def test_what_cuda_refuses_is_refused() -> None:
    with PretendGpu() as gpu:
        layer = nn.Linear(4, 2).to(GPU)
        there = layer(torch.ones(3, 4, device=GPU))
        assert there.device == layer.weight.device == GPU
        with pytest.raises(RuntimeError, match=r"on cuda:0, of .* on the CPU"):
            layer(torch.ones(3, 4))
        with pytest.raises(RuntimeError, match=r"on cuda:0, of .* on the CPU"):
            there + there.detach().cpu()
        with pytest.raises(TypeError, match="to numpy"):
            there.detach().numpy()
        assert not gpu.waits
        there.sum().item()
        assert gpu.waits == {"_local_scalar_dense": 1}
        there.sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.device == GPU


@pytest.mark.parametrize("family", FAMILIES)
def test_detectors(family: str) -> None:
    spec = tiny(FAMILIES[family])
    arrays = published_weights(spec)
    equal_regions(lambda device: loaded(spec, arrays, device=device))


@pytest.mark.parametrize("name", ["demo", "coco", "d2"])
def test_detectors_built_by_name(name: str) -> None:
    options = {} if name == "demo" else {"weights": "random:0", "overrides": {"post_nms": 5, "short_side": 64}}
    equal_regions(lambda device: build_detector(name, device=device, **options))


def equal_regions(build: Callable[[str], Detector]) -> None:
    images = [picture(), picture(seed=1)]
    given = [None, np.float32([[3, 4, 60, 70], [10, 10, 90, 80]])]

    def found(device: str) -> list[list[Any]]:
        detector = build(device)
        regions = detector.detect([detector.prepare(image) for image in images], given)
        return [[getattr(one, name) for name in one.__dataclass_fields__] for one in regions]

    expected = found("cpu")
    with PretendGpu():
        for here, there in zip(expected, found("cuda:0"), strict=True):
            for one, other in zip(here, there, strict=True):
                assert (one is None) == (other is None)
                if one is not None:  # a GPU's batches are larger, which shows in the last bits
                    torch.testing.assert_close(other.cpu(), one, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet152", "resnext101", "s3d", "s3d-howto100m"])
def test_clip_encoders(name: str) -> None:
    overrides = SMALL | ({"clip_frames": 1} if name == "resnet152" else {})
    clips = np.random.default_rng(0).integers(0, 256, (2, overrides["clip_frames"], 32, 32, 3), np.uint8)
    expected = build_encoder(name, weights="random:0", overrides=overrides).encode(clips)
    with PretendGpu():
        found = build_encoder(name, weights="random:0", overrides=overrides, device="cuda:0").encode(clips)
        assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("of", ["scenes", "moving"])
def test_extraction(of: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers choose batches, put away what the device found and write it; in this process, to be under pretence."""
    folder = request.getfixturevalue(of)
    monkeypatch.setattr(stage_run, "run_parts", inline_engine.run_parts)
    monkeypatch.setattr(devices, "cuda_count", lambda: 1)

    def extract(device: str) -> list[dict[str, Any]]:
        settings = RunSettings(device=device, limit=4, out=tmp_path / device)
        if of == "scenes":
            extract_regions(folder, RegionSettings(detector="demo"), settings)
        else:
            extract_video(folder, VideoSettings(encoders=(HALF_SECONDS,)), settings)
        return list(StoreReader(tmp_path / device))

    expected = extract("cpu")
    with PretendGpu():
        found = extract("cuda")
    assert len(found) == len(expected) == 4
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys()
        for column, value in one.items():
            if getattr(value, "dtype", None) == np.float16:  # of larger batches, see above
                np.testing.assert_allclose(other[column], value, atol=1e-3, rtol=4e-3, err_msg=column)
            else:
                np.testing.assert_array_equal(other[column], value, err_msg=column)


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


def trained(name: str, dataset: Path, out: Path, device: str) -> PretrainReport:
    settings = [f"train.{one}" for one in (*RUN, "precision=fp32", "validation_share=0.3")]
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
