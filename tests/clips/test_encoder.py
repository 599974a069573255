"""Building encoders: weights, precision, overrides, and what an encoder promises of its features."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from clips.golden_case import stream_of
from numpy.typing import NDArray
from torchvision.models.video import s3d

from vlprep.clips.encoder import TorchEncoder, build_encoder, pooled
from vlprep.clips.pixels import network_input
from vlprep.clips.presets import PRESETS, preset
from vlprep.clips.spec import override
from vlprep.clips.windows import cut
from vlprep.errors import SettingsError

SMALL = {"resize": 32, "crop": 32}


def clips(number: int = 2, length: int = 5, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (number, length, 32, 32, 3), np.uint8)


def small_s3d(precision: str = "fp32", weights: str | Path = "random:0", **changes: object) -> TorchEncoder:
    encoder = build_encoder(
        "s3d", weights=weights, precision=precision, overrides={**SMALL, "clip_frames": 5, **changes}
    )
    assert isinstance(encoder, TorchEncoder)
    return encoder


def test_made_up_weights_are_said_loudly_and_are_the_same_again(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        first = small_s3d()
    assert "untrained" in caplog.text
    again, other = small_s3d(), small_s3d(weights="random:1")
    assert first.weights.source == "random:0"
    assert first.weights == again.weights
    assert first.weights.sha256 != other.weights.sha256
    assert torch.equal(first.encode(clips()), again.encode(clips()))
    assert not torch.equal(first.encode(clips()), other.encode(clips()))


@pytest.mark.parametrize("name", ["resnet152", "resnext101", "s3d", "s3d-howto100m"])
def test_made_up_weights_tell_clips_apart(name: str) -> None:
    overrides = {"resize": 32, "crop": 32, "clip_frames": 1 if name == "resnet152" else 5}
    encoder = build_encoder(name, weights="random:0", overrides=overrides)
    length = encoder.spec.clip_frames
    features_ND = encoder.encode(np.concatenate([clips(1, length), clips(1, length, seed=1) // 2]))
    assert features_ND.shape == (2, encoder.feature_dim)
    assert features_ND.dtype == torch.float32
    assert torch.isfinite(features_ND).all()
    assert (features_ND[0] - features_ND[1]).norm() > 1e-3 * features_ND[0].norm()


def test_a_feature_does_not_depend_on_its_batch() -> None:
    encoder = small_s3d()
    together = encoder.encode(clips(3))
    for number in range(3):
        alone = encoder.encode(clips(3)[number : number + 1])
        assert (alone[0] - together[number]).abs().max() <= 1e-5 * alone.abs().max()


def test_half_precision_is_near_and_comes_back_as_float32() -> None:
    wanted = small_s3d().encode(clips())
    found = small_s3d("bf16").encode(clips())
    assert found.dtype == torch.float32
    assert 0 < (found - wanted).norm() < 0.03 * wanted.norm()


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(SettingsError, match="fp32, bf16, fp16"):
        small_s3d("int8")


def test_l2_gives_unit_rows() -> None:
    plain, unit = small_s3d().encode(clips()), small_s3d(l2=True).encode(clips())
    torch.testing.assert_close(unit, plain / plain.norm(dim=1, keepdim=True))


def test_pool2_counts_inner_steps_twice() -> None:
    map_NCthw = torch.rand(2, 3, 4, 5, 6)
    steps = map_NCthw.mean((3, 4))
    torch.testing.assert_close(
        pooled(map_NCthw, "pool2"), (steps[..., 0] + 2 * steps[..., 1] + 2 * steps[..., 2] + steps[..., 3]) / 6
    )
    torch.testing.assert_close(pooled(map_NCthw.bfloat16(), "mean"), map_NCthw.bfloat16().float().mean((2, 3, 4)))


def test_settings_are_json_and_hold_what_was_overridden() -> None:
    settings = json.loads(json.dumps(small_s3d("bf16").settings()))
    assert settings["precision"] == "bf16"
    assert settings["fps"] == "20"
    assert settings["clip_frames"] == 5


@pytest.mark.parametrize("name", PRESETS)
def test_black_padding_is_a_black_frame_of_the_network(name: str) -> None:
    spec = preset(name).spec
    if spec.tail != "black":
        pytest.skip("repeats the last frame")
    white = np.full((1, 4, 4, 3), 255, np.uint8)
    (clip,) = cut(stream_of(white, spec.fps), spec)
    input_NCTHW = network_input(torch.from_numpy(clip.frames_THW3[None]), spec)
    low, high = spec.pixel_range
    first = [(high - mean) / (std + spec.std_epsilon) for mean, std in zip(spec.mean, spec.std, strict=True)]
    last = [(low - mean) / (std + spec.std_epsilon) for mean, std in zip(spec.mean, spec.std, strict=True)]
    torch.testing.assert_close(input_NCTHW[0, :, 0, 1, 2], torch.tensor(first))
    if spec.clip_frames > 1:
        torch.testing.assert_close(input_NCTHW[0, :, -1, 1, 2], torch.tensor(last))


def test_torchvisions_own_names_load_and_its_feature_is_pool2(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = s3d(weights=None).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out")
    torch.save(network.state_dict(), tmp_path / "s3d.pth")
    encoder = build_encoder(
        "torchvision-s3d", weights=tmp_path / "s3d.pth", overrides={"resize": [224, 224], "clip_frames": 13}
    )
    video = np.random.default_rng(0).integers(0, 256, (1, 13, 224, 224, 3), np.uint8)
    with torch.no_grad():
        wanted = network.avgpool(network.features(network_input(torch.from_numpy(video), encoder.spec)))
    found = encoder.encode(video)
    assert (found - wanted.mean((2, 3, 4))).abs().max() < 1e-5 * wanted.abs().max()


def test_a_file_of_another_network_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.pth")
    for name in ("resnet152", "resnext101", "s3d", "s3d-howto100m"):
        with pytest.raises(SettingsError, match=r"other\.pth: a checkpoint of another network .* is missing|not known"):
            build_encoder(name, weights=tmp_path / "other.pth")


def test_weights_on_a_cloud_drive_are_named_with_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLPREP_WEIGHTS", str(tmp_path))
    with pytest.raises(SettingsError, match=r"S3D_kinetics400\.pt .*github\.com/kylemin/S3D") as error:
        build_encoder("videobert-s3d")
    assert str(tmp_path) in str(error.value)


def test_overrides_reach_the_recipe_before_any_weights_are_loaded() -> None:
    with pytest.raises(SettingsError, match="no such setting"):
        build_encoder("s3d", weights="/nowhere", overrides={"frames": 3})


def test_a_frame_longer_clip_of_images_is_their_mean() -> None:
    encoder = build_encoder("resnet152", weights="random:0", overrides={"resize": 32, "crop": 32, "clip_frames": 2})
    pair = clips(1, 2)
    singles = build_encoder("resnet152", weights="random:0", overrides=SMALL).encode(pair[0][:, None])
    assert (encoder.encode(pair)[0] - singles.mean(0)).abs().max() <= 1e-5 * singles.abs().max()


def test_an_override_keeps_the_preset() -> None:
    before = preset("s3d").spec
    override(before, {"fps": 10})
    assert preset("s3d").spec.fps == 20
