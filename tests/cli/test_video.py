"""The commands for videos: options into settings, stores, exit codes, and what is shown of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

STAGES = Path(__file__).resolve().parents[1] / "stages"
sys.path.insert(0, str(STAGES))
import inline_engine  # noqa: E402
from video_folder import break_videos, make_videos  # noqa: E402

from vlprep.shards import StoreReader  # noqa: E402
from vlprep.stages import run  # noqa: E402

CLIPS, FRAMES = "dummy_encoder:clips", "dummy_encoder:frames"


@pytest.fixture(autouse=True)
def _inline(monkeypatch):
    monkeypatch.setattr(run, "run_parts", inline_engine.run_parts)


@pytest.fixture
def folder(tmp_path):
    """Six videos, the first of them with narration."""
    folder = tmp_path / "films"
    ids = make_videos(folder)
    narration = {Path(ids[0]).stem: {"start": [0.0, 0.4], "end": [0.3, 1.0], "text": ["first", "and then"]}}
    (folder / "caption.json").write_text(json.dumps(narration))
    return folder


@pytest.fixture
def tokens(vlprep, folder):
    """Clips and their tokens."""
    assert vlprep("extract-video", folder, "--model", CLIPS, "--device", "cpu", "-q").exit_code == 0
    arguments = ["--from", "dummy_encoder.clips", "--branching", "2", "--depth", "2", "--device", "cpu"]
    result = vlprep("cluster-video", folder, *arguments)
    assert result.exit_code == 0, result.stderr
    return result


def test_several_encoders_in_one_run(vlprep, document, folder):
    report = document("extract-video", folder, "--model", f"{CLIPS},{FRAMES}", "--device", "cpu")
    assert (report["done"], report["status"]["rows"], report["next"]) == (6, 6, None)
    stores = {name: Path(store) for name, store in report["stores"].items()}
    assert stores == {name: folder / "vlprep" / name.replace(":", ".") for name in (CLIPS, FRAMES)}
    assert all(len(StoreReader(store)) == 6 for store in stores.values())
    text = vlprep("extract-video", folder, "--model", f"{CLIPS},{FRAMES}", "--device", "cpu").stdout
    assert text.splitlines()[0].split() == ["encoder", "videos", "clips", "failed", "size", "store"]
    assert "6 of 6 done, 0 failed" in text


def test_options_change_the_recipe(document, folder, tmp_path):
    arguments = ["--fps", "4", "--clip-frames", "6", "--stride", "3", "--crop", "32", "--set", f"{CLIPS}.tail=drop"]
    weights = ["--weights", f"{FRAMES}=seconds:0", "--set", f"{FRAMES}.fps=2", "--decoder", "pyav"]
    where = ["--out", tmp_path / "out", "--device", "cpu", "--store-dtype", "float32"]
    chosen = ["--model", f"{CLIPS},{FRAMES}", "--limit", "1"]
    report = document("extract-video", folder, *chosen, *arguments, *weights, *where)
    recipes = [StoreReader(store).manifest.settings["encoder"] for store in report["stores"].values()]
    for recipe in recipes:
        assert (recipe["clip_frames"], recipe["stride"], recipe["crop"]) == (6, 3, 32)
    assert [recipe["fps"] for recipe in recipes] == ["4", "2"]
    assert [recipe["tail"] for recipe in recipes] == ["drop", "black"]


def test_one_encoder_needs_no_name(document, folder):
    report = document("extract-video", folder, "--model", CLIPS, "--weights", "seconds:0", "--set", "fps=5/2")
    (store,) = report["stores"].values()
    assert StoreReader(store).manifest.settings["encoder"]["fps"] == "5/2"
    assert report["folder"] == store


def test_broken_videos_are_3_and_can_be_retried(vlprep, folder):
    break_videos(folder)
    result = vlprep("extract-video", folder, "--model", CLIPS, "--device", "cpu", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 3
    assert (report["status"]["rows"], report["status"]["failed"]) == (6, 5)
    assert report["next"].endswith("--retry-failed")
    assert vlprep("extract-video", folder, "--model", CLIPS, "--device", "cpu").exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--model", "s4d"], "did you mean s3d"),
        (["--model", f"{CLIPS},{CLIPS}"], f"{CLIPS} comes twice"),
        (["--model", ","], "names no encoder"),
        (["--model", f"{CLIPS},{FRAMES}", "--weights", "x.pt"], "NAME=FILE"),
        (["--model", CLIPS, "--set", "fps"], "NAME.KEY=VALUE"),
        (["--model", CLIPS, "--set", "speed=3"], "speed"),
        (["--model", CLIPS, "--fps", "fast"], "fps"),
        (["--model", "s3d", "--weights", "random:0", "--fps", "1/0"], "frames a second, such as 20 or 2/3"),
        (["--model", CLIPS, "--decoder", "ffmpeg"], "ffmpeg"),
        (["--model", CLIPS, "--shard-of", "3/2"], "--shard-of"),
    ],
)
def test_wrong_options_are_2_and_named(vlprep, folder, arguments, named):
    result = vlprep("extract-video", folder, *arguments)
    assert result.exit_code == 2
    assert named in result.stderr


def test_missing_weights_are_2_and_say_what_to_fetch(vlprep, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("VLPREP_WEIGHTS", str(tmp_path))
    for command in (["extract-video"], ["cluster-video"]):
        result = vlprep(*command, folder)
        assert result.exit_code == 2
        assert f"put it at {tmp_path / 'S3D_kinetics400.pt'}" in result.stderr


def test_a_dry_run_prints_the_plan(vlprep, folder):
    result = vlprep("extract-video", folder, "--model", f"{CLIPS},{FRAMES}", "--device", "cpu", "--dry-run")
    assert result.exit_code == 0
    assert "6 videos in 1 part" in result.stdout
    assert not (folder / "vlprep").exists()


def test_tokens_come_with_the_levels_of_their_vocabulary(folder, tokens):
    lines = tokens.stdout.splitlines()
    assert lines[0].split()[:2] == ["level", "codes"]
    assert [line.split()[:2] for line in lines[1:3]] == [["1", "2"], ["2", "4"]]
    assert f"vocabulary  {folder / 'vlprep' / 'tokens' / 'vocabulary.safetensors'}" in lines
    assert "6 of 6 done" in tokens.stdout
    assert "vocabulary: trained on dummy_encoder.clips" in tokens.stderr


def test_clustering_as_json_and_again(document, folder, tokens):
    arguments = ["--from", "dummy_encoder.clips", "--branching", "2", "--depth", "2", "--device", "cpu"]
    report = document("cluster-video", folder, *arguments)
    assert (report["done"], report["next"], report["tokens"]) == (0, None, report["judged"])
    assert [level["quality"]["codes"] for level in report["levels"]] == [2, 4]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--from", "dummy_encoder.clips", "--assign", "nearest"], "--assign nearest"),
        (["--from", "dummy_encoder.clips", "--branching", "1"], "--branching"),
        (["--from", "dummy_encoder.clips", "--branching", "12", "--depth", "5"], "16-bit"),
        (["--from", "dummy_encoder.clips", "--vocabulary", "none.pt", "--out", "none"], "no such vocabulary"),
        (["--vocabulary", "none.pt", "--branching", "3"], "--branching beside --vocabulary"),
        (["--vocabulary", "none.pt", "--polish", "1"], "--polish beside --vocabulary"),
        (["--from", "nothing"], "extract-video"),
        (["--from", "dummy_encoder.clips", "--depth", "1"], "vocabulary.depth"),
    ],
)
def test_clustering_wrongly_is_2(vlprep, folder, tokens, arguments, named):
    result = vlprep("cluster-video", folder, *arguments)
    assert result.exit_code == 2
    assert named in result.stderr


def test_show_prints_tokens_along_the_narration(vlprep, document, folder, tokens):
    row = StoreReader(folder / "vlprep" / "tokens")[0]
    shown = document("show", folder, "--store", "tokens", "--id", row["id"])
    middles = row["times"].mean(axis=1)
    for line, start, end, text in zip(
        [line for line in shown["segments"] if line["text"]], (0.0, 0.4), (0.3, 1.0), ("first", "and then"), strict=True
    ):
        assert line["text"] == text
        assert line["tokens"] == row["tokens"][(start <= middles) & (middles < end)].tolist()
    table = vlprep("show", folder, "--store", "tokens").stdout
    assert "0:00.4  0:01.0  and then" in table


def test_show_prints_a_video_without_narration_too(document, folder, tokens):
    row = StoreReader(folder / "vlprep" / "tokens")[3]
    (line,) = document("show", folder, "--store", "tokens", "--id", row["id"])["segments"]
    assert (line["text"], line["tokens"]) == ("", row["tokens"].tolist())


def test_show_prints_the_clips_of_a_video(vlprep, document, folder, tokens):
    row = StoreReader(folder / "vlprep" / "dummy_encoder.clips")[1]
    shown = document("show", folder, "--store", "dummy_encoder.clips", "--id", row["id"])
    assert shown["status"] == "ok"
    assert [clip["times"] for clip in shown["clips"]] == row["times"].tolist()
    norms = np.linalg.norm(row["features"].astype(np.float32), axis=1)
    assert [clip["norm"] for clip in shown["clips"]] == pytest.approx(norms.tolist())
    assert "2 clips of 6 numbers" in vlprep("show", folder, "--store", "dummy_encoder.clips").stdout


def test_vocabulary_info_is_of_a_file_a_store_or_a_dataset(vlprep, document, folder, tokens, tmp_path):
    store = folder / "vlprep" / "tokens"
    found = document("vocabulary", "info", store)
    assert (found["branching"], found["depth"], found["tokens"]) == (2, 2, 4)
    assert [level["codes"] for level in found["levels"]] == [2, 4]
    text = vlprep("vocabulary", "info", store / "vocabulary.safetensors").stdout
    assert "4 = 2 ^ 2, vectors of 6 numbers" in text
    assert "by --assign tree" in text
    assert document("vocabulary", "info", folder) == found
    result = vlprep("vocabulary", "info", tmp_path)
    assert (result.exit_code, f"{tmp_path}: no such vocabulary file" in result.stderr) == (2, True)


def test_vocabulary_show_draws_frames(vlprep, document, folder, tokens, tmp_path):
    out = tmp_path / "page.png"
    result = vlprep("vocabulary", "show", folder, "--frames", "3", "--out", out)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == str(out)
    page = Image.open(out)
    assert page.width > 3 * 224
    shown = document("vocabulary", "show", folder, "--token", "1", "--frames", "2", "--out", out)
    (leaf,) = shown["leaves"]
    assert leaf["token"] == 1
    everywhere = [token for row in StoreReader(folder / "vlprep" / "tokens") for token in row["tokens"].tolist()]
    assert leaf["clips"] == everywhere.count(1)
    assert vlprep("vocabulary", "show", folder, "--token", "4").exit_code == 2


def test_help_needs_no_torch(spawn):
    for command in (["extract-video"], ["cluster-video"], ["vocabulary", "show"]):
        process = spawn(*command, "--help", PYTHONPROFILEIMPORTTIME="1")
        out, errors = process.communicate()
        assert process.returncode == 0
        assert "Usage" in out
        assert " torch" not in errors
