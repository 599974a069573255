"""`vlprep extract-regions` and `vlprep demo`, whole: real workers, the demo detector, files on disk."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image

from vlprep.media.scenes import write_coco_folder
from vlprep.shards import StoreReader

IMAGES = 5


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """What `vlprep demo` leaves and says."""
    folder = tmp_path_factory.mktemp("demo") / "shapes"
    program = Path(sys.executable).with_name("vlprep")
    command = [program, "demo", "--out", folder, "--images", str(IMAGES)]
    return folder, subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(demo, tmp_path):
    """A copy to change."""
    return Path(shutil.copytree(demo[0], tmp_path / "shapes"))


def extract(*arguments: object) -> list[object]:
    return ["extract-regions", *arguments, "--detector", "demo", "--device", "cpu"]


def test_demo_ends_with_the_shards_and_the_sheet(demo):
    _, run = demo
    assert run.returncode == 0, run.stderr
    shards, sheet = (line.split()[-1] for line in run.stdout.splitlines()[-2:])
    assert len(StoreReader(Path(shards).parent)) == IMAGES
    assert Image.open(sheet).width > 1000
    assert f"{IMAGES} of {IMAGES} done, 0 failed" in run.stdout
    assert f"{IMAGES} images to do in 1 part" in run.stderr
    assert "to do" not in run.stdout


def test_demo_trains_where_there_is_enough_to_train_on(demo, vlprep, tmp_path):
    assert "no pretraining" in demo[1].stderr
    folder = tmp_path / "shapes"
    result = vlprep("demo", "--out", folder, "--images", "40", "--steps", "3")
    assert result.exit_code == 0, result.stderr
    facts = dict(line.split(maxsplit=1) for line in result.stdout.splitlines()[-4:])
    assert list(facts) == ["training", "metrics", "curves", "checkpoint"]
    assert "3 steps" in facts["training"]
    assert facts["training"].endswith("with another's")
    assert json.loads(Path(facts["metrics"]).read_text().splitlines()[-1])["kind"] == "validation"
    assert Image.open(facts["curves"]).width > 100
    assert Path(facts["checkpoint"]).is_dir()
    assert "step 3  validation" in result.stderr


def test_demo_again_is_the_same_and_another_is_refused(vlprep, folder):
    captions = (folder / "annotations" / "captions_demo.json").read_bytes()
    assert vlprep("demo", "--out", folder, "--images", IMAGES).exit_code == 0
    refused = vlprep("demo", "--out", folder, "--images", IMAGES - 1)
    assert refused.exit_code == 2
    assert "choose another folder" in refused.stderr
    assert (folder / "annotations" / "captions_demo.json").read_bytes() == captions


def test_demo_where_nothing_can_be_written_is_1(vlprep, tmp_path):
    (tmp_path / "file").write_text("mine")
    result = vlprep("demo", "--out", tmp_path / "file" / "shapes", "--images", 2)
    assert result.exit_code == 1
    assert "Not a directory): choose another folder with --out" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_same_settings_find_nothing_to_do(document, folder):
    report = document(*extract(folder))
    assert (report["done"], report["status"]["rows"], report["next"]) == (0, IMAGES, None)


def test_new_images_are_added_and_broken_ones_are_failures(vlprep, folder):
    (folder / "images" / "new.jpg").write_bytes((folder / "images" / "000000000001.jpg").read_bytes())
    (folder / "images" / "text.jpg").write_text("no picture")
    result = vlprep(*extract(folder, "--json"))
    report = json.loads(result.stdout)
    assert result.exit_code == 3
    assert (report["done"], report["status"]["rows"], report["status"]["failed"]) == (2, IMAGES + 1, 1)
    assert report["status"]["failures"][0]["id"] == "images/text.jpg"
    assert report["next"].endswith("--retry-failed")
    (folder / "images" / "text.jpg").write_bytes((folder / "images" / "000000000001.jpg").read_bytes())
    assert vlprep(*extract(folder, "--retry-failed")).exit_code == 0


def test_other_settings_are_refused_and_named(vlprep, folder):
    result = vlprep(*extract(folder, "--boxes", "5"))
    assert result.exit_code == 2
    assert "most_boxes" in result.stderr
    assert "--overwrite" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--boxes", "many"], "--boxes many"),
        (["--soft-labels", "some"], "--soft-labels some"),
        (["--set", "proposals"], "key=value"),
        (["--set", "colour=red"], "colour"),
        (["--detector", "no-such-family"], "no-such-family"),
        (["--weights", "missing.pth"], "missing.pth"),
        (["--given-boxes", "missing.csv"], "missing.csv: no such file"),
        (["--given-boxes", "missing.csv", "--boxes", "36"], "--boxes beside --given-boxes"),
        (["--given-boxes", "missing.csv", "--selection", "caffe"], "--selection beside --given-boxes"),
        (["--boxes", "101"], "post_nms=101"),
        (["--set", "post_nms=0"], "must be above 0"),
        (["--boxes", "11-20", "--set", "post_nms=10"], "post_nms=11"),
        (["--device", "tpu"], "tpu"),
    ],
)
def test_wrong_settings_are_2_and_say_which(vlprep, folder, arguments, named):
    result = vlprep(*extract(folder), *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert named in result.stderr


def test_no_folder_is_2(vlprep, tmp_path):
    result = vlprep(*extract(tmp_path / "nowhere"))
    assert result.exit_code == 2
    assert "nowhere" in result.stderr


@pytest.mark.slow
def test_a_dry_run_writes_nothing(document, tmp_path):
    write_coco_folder(tmp_path / "shapes", 3)
    plan = document(*extract(tmp_path / "shapes", "--dry-run", "--part-size", 2))
    assert (plan["items"], plan["parts"]) == (3, 2)
    assert plan["bytes"] > 3 * 10 * 256 * 2  # at least ten features of an image
    assert not (tmp_path / "shapes" / "vlprep").exists()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_signals_end_with_their_code_and_the_line_that_resumes(spawn, tmp_path, number, code):
    folder = tmp_path / "shapes"
    write_coco_folder(folder, 40)
    process = spawn(*extract(folder, "--part-size", 1, "--overwrite"))
    for line in process.stderr:
        if "to do" in line:
            process.send_signal(number)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == ""
    assert f"vlprep extract-regions {folder} --part-size 1 --detector demo --device cpu\n" in err
    assert "Traceback" not in err
    assert not list((folder / "vlprep" / "regions").glob(".*.tmp"))


def test_defaults_are_those_of_the_settings():
    from vlprep.stages.extract_regions import RegionSettings
    from vlprep_cli.extract import extract_regions

    given = extract_regions.make_context("extract-regions", ["folder"]).params
    settings = RegionSettings(**{field.name: given[field.name] for field in fields(RegionSettings)})
    assert settings == RegionSettings()
