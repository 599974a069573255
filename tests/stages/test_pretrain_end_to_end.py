"""MIL-NCE end to end through the stage: a folder of videos with narration to a file that MIL-NCE's code opens."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pretrain.stores import that_has_seen_nothing
from pretrain.test_end_to_end import CLIPS, COLOURS, RECIPE, write_colour

from vlprep.errors import SettingsError, VlprepError
from vlprep.pretrain.batching import BatchSettings
from vlprep.pretrain.checkpoint import read_model
from vlprep.pretrain.objectives.milnce import EndToEndSettings
from vlprep.pretrain.places import CorpusSettings
from vlprep.pretrain.run_folder import read_metrics
from vlprep.stages.checkpoints import export_checkpoint
from vlprep.stages.evaluate import evaluate_retrieval
from vlprep.stages.pretrain import pretrain
from vlprep.stages.tokenize_text import tokenize_text
from vlprep.text.word_vectors import VECTORS_NAME
from vlprep.weights import load_arrays

NAMES = ("red", "green", "blue", "yellow", "cyan", "purple")


@pytest.fixture(scope="module")
def howto(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of one colour each, narrated, and words with vectors."""
    folder = tmp_path_factory.mktemp("howto")
    (folder / "videos").mkdir()
    captions = {}
    for number, (name, colour) in enumerate(zip(NAMES, COLOURS, strict=True)):
        video = f"colour{number:05}"
        write_colour(folder / "videos" / f"{video}.mp4", colour)
        captions[video] = {"start": [0.0, 3.0], "end": [3.0, 6.0], "text": [f"{name} things", f"look, {name}"]}
    (folder / "caption.json").write_text(json.dumps(captions))
    tokenize_text(folder, "words:train:16", out=folder / "vlprep" / "words")
    return folder


def recipe(steps: int = 2, **model: object):  # type: ignore[no-untyped-def]
    return replace(
        RECIPE,
        model=replace(RECIPE.model, **model),
        data=CorpusSettings(text="words"),
        batches=BatchSettings(samples=3),
        objectives={"milnce-end-to-end": EndToEndSettings(candidates=2, max_words=4, clips=CLIPS)},
        train=replace(RECIPE.train, steps=steps, log_every=1, save_every=steps, loaders=0, validation_share=0.4),
    )


def test_from_videos_to_the_published_file_and_on(howto: Path, tmp_path: Path) -> None:
    report = pretrain([howto], recipe(), out=tmp_path / "run", device="cpu")
    assert report is not None
    assert [entry["left_out"] for entry in read_metrics(report.folder) if entry["kind"] == "train"] == [0, 0]
    [file] = export_checkpoint(report.folder, "milnce").files
    arrays = load_arrays(file)
    assert len(arrays) == 537
    assert arrays["conv1.conv1.weight"].shape == (64, 3, 3, 7, 7)
    again = pretrain([howto], recipe(1, init=str(file)), out=tmp_path / "again", device="cpu")
    assert again is not None
    found = evaluate_retrieval(report.folder, howto)
    assert (found.texts, found.held_out) == (found.candidates, True)


def test_segments_of_a_broken_file_are_left_out_of_the_evaluation(howto: Path, tmp_path: Path) -> None:
    report = pretrain([howto], recipe(1), out=tmp_path / "run", device="cpu")
    elsewhere = shutil.copytree(howto, tmp_path / "copy")
    broken = elsewhere / "videos" / "colour00002.mp4"
    broken.write_bytes(broken.read_bytes()[:300])
    found = evaluate_retrieval(that_has_seen_nothing(report.folder, tmp_path / "new"), elsewhere)
    assert (found.texts, found.candidates) == (10, 10)
    assert len(found.left_out) == 2
    assert all(broken.name in why for why in found.left_out)


@pytest.mark.parametrize("loaders", [0, 1])
def test_videos_that_are_all_of_no_use_end_the_run_with_one_line(howto: Path, tmp_path: Path, loaders: int) -> None:
    folder = shutil.copytree(howto, tmp_path / "copy")
    for path in (folder / "videos").iterdir():
        path.write_bytes(b"no video")
    chosen = replace(recipe(), train=replace(recipe().train, loaders=loaders))
    with pytest.raises(VlprepError, match=r"^0 of 3 samples .*: .*colour.*\.mp4: cannot be opened"):
        pretrain([folder], chosen, out=tmp_path / "run", device="cpu")


def test_end_to_end_needs_narration_but_no_store_of_features(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no words store yet|no text store yet"):
        pretrain([tmp_path], recipe(), device="cpu")


@pytest.mark.slow
def test_frozen_words_keep_their_vectors_and_need_some(howto: Path, tmp_path: Path) -> None:
    vectors = np.load(howto / "vlprep" / "words" / VECTORS_NAME)
    for freeze in (True, False):
        report = pretrain([howto], recipe(freeze_words=freeze), out=tmp_path / str(freeze), device="cpu")
        assert report is not None
        trained = read_model(report.checkpoint)["text_module.word_embd.weight"].numpy()
        assert len(trained) == len(vectors) + 1  # and the padding
        assert np.array_equal(trained[:-1], vectors) == freeze
    np.save(tmp_path / "dict.npy", np.array(NAMES))
    tokenize_text(howto, f"words:{tmp_path / 'dict.npy'}", out=howto / "vlprep" / "dictionary")
    bare = replace(recipe(freeze_words=True), data=CorpusSettings(text="dictionary"))
    with pytest.raises(SettingsError, match="the words have no vectors"):
        pretrain([howto], bare, out=tmp_path / "bare", device="cpu")
    free = replace(bare, model=replace(bare.model, freeze_words=False))
    report = pretrain([howto], free, out=tmp_path / "free", device="cpu")
    assert report is not None
    assert len(read_model(report.checkpoint)["text_module.word_embd.weight"]) == 1 + len(NAMES)  # its own padding
