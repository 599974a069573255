"""Recipes: what makes sense, what is refused, and what of the published ones is where."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from vlprep.clips.presets import PRESETS, preset
from vlprep.clips.spec import ClipSpec, override
from vlprep.errors import SettingsError
from vlprep.media.video import FrameStream

# reference/video.md, sections 1 and 8.5: fps, frames a clip, frames the network gets, feature size, L2
PUBLISHED = {
    "resnet152": (1, 1, 1, 2048, False),
    "howto100m-2d": (1, 1, 1, 2048, True),
    "resnext101": (24, 16, 16, 2048, False),
    "howto100m-3d": (24, 16, 16, 2048, True),
    "s3d": (20, 30, 30, 1024, False),
    "videobert-s3d": (20, 30, 30, 1024, False),
    "torchvision-s3d": (15, 128, 128, 1024, False),
    "s3d-howto100m": (10, 32, 32, 1024, False),
    "milnce-s3dg": (10, 32, 32, 1024, False),
    "univl": (16, 16, 16, 1024, True),
    "mmpt": (30, 30, 30, 512, True),
    "hero": (30, 45, 32, 1024, False),
    "hero-2d": (Fraction(2, 3), 1, 1, 2048, True),
}


def test_presets_have_the_published_numbers() -> None:
    found = {
        name: (it.spec.fps, it.spec.clip_frames, it.spec.network_frames, it.spec.feature_dim, it.spec.l2)
        for name, it in PRESETS.items()
    }
    assert found == PUBLISHED
    assert all(it.spec.step == it.spec.clip_frames for it in PRESETS.values()), "none of them overlaps"


def test_geometry_is_asked_of_the_decoder() -> None:
    assert preset("resnet152").spec.frame_stream() == FrameStream(fps=Fraction(1), resize=224)
    assert preset("s3d").spec.frame_stream() == FrameStream(
        fps=Fraction(20), resize=256, crop=224, interpolation="bilinear"
    )
    assert preset("milnce-s3dg").spec.frame_stream() == FrameStream(fps=Fraction(10), resize=224, square_first=True)
    assert preset("univl").spec.frame_stream() == FrameStream(fps=Fraction(16), resize=224, crop=224)


def test_hero_repeats_its_last_frame_ten_times_and_can_be_mended() -> None:
    hero = preset("hero").spec
    assert hero.pick[:4] == (0, 2, 4, 6)
    assert hero.pick[21:] == (42, *[44] * 10)
    even = override(hero, {"pick": [round(n * 44 / 31) for n in range(32)]})
    assert len(set(even.pick)) == 32


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"did you mean resnext101.*videobert-s3d"):
        preset("resnext-101")


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("fps", "2/3", Fraction(2, 3)),
        ("fps", 12.5, Fraction(25, 2)),
        ("fps", 0.1, Fraction(1, 10)),
        ("clip_frames", "16", 16),
        ("stride", "none", None),
        ("stride", 8, 8),
        ("pick", "0,2,2,4,5", (0, 2, 2, 4, 5)),
        ("pick", [], ()),
        ("resize", "256,240", (256, 240)),
        ("resize", [256, 240], (256, 240)),
        ("resize", "256", 256),
        ("crop", None, None),
        ("l2", "true", True),
        ("l2", False, False),
        ("mean", "0.5,0.5,0.5", (0.5, 0.5, 0.5)),
        ("pixel_range", [0, 1], (0.0, 1.0)),
        ("pooling", "pool2", "pool2"),
        ("tail", "drop", "drop"),
        ("feature", "logits", "logits"),
    ],
)
def test_every_value_can_be_overridden(name: str, given: Any, wanted: Any) -> None:
    assert getattr(override(preset("s3d").spec, {name: given}), name) == wanted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_frame": 8}, r"clip_frame: no such setting.*did you mean clip_frames"),
        ({"network": "resnet152"}, "choose a preset"),
        ({"fps": "fast"}, "fps='fast'"),
        ({"fps": "1/0"}, "fps='1/0'"),
        ({"fps": 0}, "greater than zero"),
        ({"clip_frames": 2.5}, "whole number"),
        ({"clip_frames": True}, "whole number"),
        ({"clip_frames": 0}, "at least one frame"),
        ({"clip_frames": 4}, "s3d needs at least 5"),
        ({"clip_frames": 12, "pooling": "pool2"}, "at least 13"),
        ({"stride": 0}, "at least one frame"),
        ({"pick": "0,30"}, "positions from 0 to 29"),
        ({"pick": "-1,0,1,2,3"}, "positions from 0 to 29"),
        ({"feature": "mixed_5c"}, "one of pooled, logits"),
        ({"pooling": "max"}, "one of mean, pool2"),
        ({"tail": "loop"}, "one of black, repeat, drop"),
        ({"interpolation": "nearest"}, "one of bicubic"),
        ({"crop": 300}, "larger than resize"),
        ({"crop": None, "resize": 16}, "at least 32 pixels"),
        ({"mean": "1,2"}, "expected 3 numbers"),
        ({"std": [0, 1, 1]}, "greater than zero"),
        ({"pixel_range": [1, 0]}, "less than the second"),
        ({"l2": "yes"}, "true or false"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        override(preset("s3d").spec, changes)


def test_pool2_belongs_to_s3d() -> None:
    with pytest.raises(SettingsError, match="use pooling=mean"):
        override(preset("resnext101").spec, {"pooling": "pool2"})


def test_stride_follows_the_clip_until_it_is_given() -> None:
    spec = override(preset("resnext101").spec, {"clip_frames": 8})
    assert spec.step == 8
    assert override(spec, {"stride": 4}).step == 4


def test_settings_say_everything_and_are_json() -> None:
    for it in PRESETS.values():
        said = json.loads(json.dumps(it.spec.settings()))
        network = said.pop("network")
        assert override(replace(it.spec, l2=not it.spec.l2), said) == it.spec
        assert network == it.spec.network
    assert set(preset("s3d").spec.settings()) == set(ClipSpec.__dataclass_fields__)


def test_recipes_do_not_load_torch() -> None:
    code = (
        "import sys, vlprep.clips.presets, vlprep.clips.windows, vlprep.clips.batches; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
