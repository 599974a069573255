"""Every encoder against reference outputs made by the public code, from pixels to features and class scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from clips.golden_case import FEATURE, GoldenFolder, load_golden_weights

from vlprep.clips.encoder import TorchEncoder, build_encoder
from vlprep.clips.presets import PRESETS as PRESETS_BY_NAME
from vlprep.clips.s3d import rename_s3d, rename_s3d_howto100m
from vlprep.media.video.decode import open_video
from vlprep.networks.planar import PlanarMaxPool3d

OpenFolder = Callable[[str], GoldenFolder]
Checkpoint = Callable[[str], Path]

PRESETS = {"resnet152": "resnet152", "resnext101": "resnext101", "s3d": "s3d", "s3d_howto100m": "s3d-howto100m"}
CASES = [("resnet152", "ggsy"), ("resnext101", "pancake_tail"), ("s3d", "pancake"), ("s3d_howto100m", "ggsy_16f")]
SLOW_CASES = [
    ("resnet152", "pancake"), ("resnext101", "pancake"), ("resnext101", "ggsy"), ("s3d", "ggsy"),
    ("s3d_howto100m", "pancake"), ("s3d_howto100m", "ggsy"),
]  # fmt: skip


def build(name: str, case: str, checkpoint: Checkpoint, precision: str = "fp32") -> TorchEncoder:
    preset = "univl" if case.endswith("_16f") else PRESETS[name]
    encoder = build_encoder(preset, weights=checkpoint(name), precision=precision, overrides={"l2": False})
    assert isinstance(encoder, TorchEncoder)
    return encoder


@pytest.mark.parametrize(
    ("name", "case"), [*CASES, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW_CASES)]
)
def test_all_that_is_recorded_of_a_case_is_met(
    name: str, case: str, golden_folder: OpenFolder, checkpoint: Checkpoint
) -> None:
    distances = golden_folder(name).distances(build(name, case, checkpoint), case)
    assert len(distances) >= 13
    assert {what: distance for what, distance in distances.items() if not distance <= 1} == {}


def test_the_smallest_known_mistakes_are_seen(golden_folder: OpenFolder, checkpoint: Checkpoint) -> None:
    folder, encoder = golden_folder("resnext101"), build("resnext101", "pancake", checkpoint)
    clips = folder.clips("pancake", encoder.spec)
    reference = folder.outputs["pancake.feature"]

    def distance(changed: TorchEncoder, clips_NTHW3: np.ndarray) -> float:
        feature = changed.encode(np.ascontiguousarray(clips_NTHW3))[0].numpy()
        return float(np.abs(feature - reference).max() / np.abs(reference).max() / FEATURE)

    kinetics_mean = (110.63666788, 103.16065604, 96.29023126)
    exact = build_encoder("resnext101", weights=checkpoint("resnext101"), overrides={"mean": kinetics_mean})
    assert isinstance(exact, TorchEncoder)
    assert distance(encoder, clips) <= 1
    assert distance(encoder, clips[..., ::-1]) > 100, "blue and red exchanged"
    assert distance(encoder, clips[:, ::-1]) > 100, "frames reversed"
    assert distance(exact, clips) > 2, "another rounding of the mean"


def test_another_padding_of_the_pools_is_seen(golden_folder: OpenFolder, checkpoint: Checkpoint) -> None:
    encoder = build("s3d_howto100m", "ggsy_16f", checkpoint)
    encoder.trunk[13] = PlanarMaxPool3d(3, 2, 1)
    assert golden_folder("s3d_howto100m").distances(encoder, "ggsy_16f")["feature"] > 100


def test_another_epsilon_of_batch_norm_is_seen(
    golden_folder: OpenFolder, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    arrays = torch.load(checkpoint("resnext101"), weights_only=True)["state_dict"]
    wrong = {name: value + (1e-3 - 1e-5) * name.endswith("running_var") for name, value in arrays.items()}
    torch.save(wrong, tmp_path / "wrong.pth")
    encoder = build("resnext101", "pancake", lambda _: tmp_path / "wrong.pth")
    distances = golden_folder("resnext101").distances(encoder, "pancake")
    assert distances["feature"] > 100
    assert distances["input"] <= 1


@pytest.mark.slow
def test_bf16_stays_near(golden_folder: OpenFolder, checkpoint: Checkpoint) -> None:
    for name, case, most in [
        ("resnext101", "pancake", 0.01),
        ("s3d", "pancake", 0.015),
        ("s3d_howto100m", "ggsy_16f", 0.05),
    ]:
        distances = golden_folder(name).distances(build(name, case, checkpoint, "bf16"), case)
        assert distances["input"] <= 1
        assert 10 < max(distances.get("feature", 0), distances.get("feature_mean", 0)) < most / FEATURE


@pytest.mark.slow
def test_checkpoints_of_the_mil_nce_repository_have_another_stem(
    golden: Path, golden_folder: OpenFolder, tmp_path: Path
) -> None:
    from synth_weights import fill

    folder = golden_folder("s3d_howto100m")
    arrays = load_golden_weights(golden, "s3d_howto100m")
    stem = "conv1.conv1.weight"
    arrays[stem] = torch.from_numpy(fill({stem: (64, 3, 3, 7, 7)}, folder.spec["weights"]["seed"])[stem])
    torch.save(
        {"epoch": 1, "state_dict": {f"module.{name}": value for name, value in arrays.items()}}, tmp_path / "e.pth"
    )
    for feature, what in [("mixed_5c", "feature"), ("video_embedding", "video_embedding")]:
        encoder = build_encoder("milnce-s3dg", weights=tmp_path / "e.pth", overrides={"feature": feature})
        found = encoder.encode(folder.clips("pancake", encoder.spec))[0].numpy()
        reference = folder.outputs[f"stem377.pancake.{what}"]
        assert np.abs(found - reference).max() <= FEATURE * np.abs(reference).max()


def test_every_published_name_goes_where_the_reference_map_says(golden: Path) -> None:
    for name, rename in [("s3d", rename_s3d), ("s3d_howto100m", rename_s3d_howto100m)]:
        published = json.loads((golden / f"video/{name}/key_map.json").read_text())["map"]
        for key, target in published.items():
            (renamed,) = rename({key: torch.zeros(1, 1)})
            wanted = target.replace("classifier.1.", "head.").replace("features.", "trunk.")
            assert renamed == wanted, key


@pytest.mark.parametrize(
    ("name", "case", "preset"),
    [
        ("resnet152", "ggsy", "howto100m-2d"),
        ("resnext101", "ggsy", "howto100m-3d"),
        ("s3d", "ggsy", "videobert-s3d"),
        ("s3d_howto100m", "ggsy", "milnce-s3dg"),
        pytest.param("s3d_howto100m", "ggsy_16f", "univl", marks=pytest.mark.slow),
        pytest.param("resnet152", "pancake", "howto100m-2d", marks=pytest.mark.slow),
        pytest.param("s3d", "pancake", "videobert-s3d", marks=pytest.mark.slow),
    ],
)
def test_a_presets_own_stream_gives_the_reference_frames(
    name: str, case: str, preset: str, golden_folder: OpenFolder, samples: Path
) -> None:
    folder, spec = golden_folder(name), PRESETS_BY_NAME[preset].spec
    facts = folder.spec["cases"][case]
    numbers = facts["output_frames"] if name == "resnet152" else range(*facts["output_frames"])
    wanted = dict(zip(numbers, folder.frames[case], strict=True))
    with open_video(samples / "howto100m/videos" / facts["video"], [spec.frame_stream()]) as decoding:
        found = {frame.index: frame.pixels for frame in decoding if frame.index in wanted}
    assert found.keys() == wanted.keys()
    for number, pixels in wanted.items():
        assert np.array_equal(found[number], pixels), number
