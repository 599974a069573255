from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vlprep.detect.butd import BUTD, build
from vlprep.detect.families import build_detector, families
from vlprep.detect.vocabulary import attribute_names, class_names
from vlprep.errors import SettingsError


def test_every_family_has_a_line_and_a_builder() -> None:
    listed = families()
    assert {"butd", "butd-caffe", "coco", "demo", "detectron2:CONFIG"} <= listed.keys()
    assert all(0 < len(line) < 100 for line in listed.values())


@pytest.mark.parametrize("name", ["nothing", "butd:x", "detectron2", ""])
def test_unknown_families_are_told_the_names(name: str) -> None:
    with pytest.raises(SettingsError, match=r"butd-caffe.*detectron2:CONFIG"):
        build_detector(name)


def test_listing_loads_no_torch() -> None:
    code = "import sys, vlprep.detect.families as f; f.families(); print([m for m in ('torch',) if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_weights_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLPREP_WEIGHTS", str(tmp_path))
    with pytest.raises(SettingsError) as caught:
        build_detector("butd-caffe")
    assert str(tmp_path / "butd-caffe/bua-caffe-frcn-r101-k10-100.pth") in str(caught.value)
    assert "MILVLG" in str(caught.value)


def test_settings_that_are_not_the_familys(tmp_path: Path) -> None:
    for overrides, complaint in (({"width": 8}, "no setting 'width'"), ({"post_nms": "many"}, "post_nms='many'")):
        with pytest.raises(SettingsError, match=complaint):
            build("butd", weights="random:0", device="cpu", precision="fp32", overrides=overrides)
    with pytest.raises(SettingsError, match="--precision int8"):
        build("butd", weights="random:0", device="cpu", precision="int8", overrides={})


@pytest.mark.parametrize("family", ["butd", "coco", "d2", "demo"])
@pytest.mark.parametrize("value", [0, -3])
def test_a_detector_that_proposes_nothing_is_refused(family: str, value: int) -> None:
    with pytest.raises(SettingsError, match=f"post_nms={value} for --detector {family}: must be above 0"):
        build_detector(family, weights="random:0", overrides={"post_nms": value})


@pytest.mark.slow
def test_random_weights_are_recorded_and_repeat(caplog: pytest.LogCaptureFixture) -> None:
    options = {"weights": "random:3", "overrides": {"short_side": 64, "long_side": 100, "post_nms": 5}}
    one, two = (build_detector("butd", **options) for _ in range(2))
    assert "random:3" in caplog.text
    assert one.weights == two.weights
    assert one.weights.source == "random:3"
    assert json.loads(json.dumps(one.settings()))["short_side"] == 64
    prepared = one.prepare(torch.zeros(50, 60, 3, dtype=torch.uint8).numpy())
    assert torch.equal(one.detect([prepared])[0].features_RD, two.detect([prepared])[0].features_RD)


def test_visual_genome_names() -> None:
    assert (len(class_names()), len(attribute_names())) == (BUTD.classes, BUTD.attributes)
    assert class_names()[:3] == ("yolk", "goal", "bathroom")
    assert attribute_names()[:3] == ("gray", "multi colored", "double decker")
