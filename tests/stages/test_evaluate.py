"""Evaluating what a short run has left: which samples take part, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pretrain.stores import learnable_images, that_has_seen_nothing, told_videos
from stages.small_datasets import SHRINK, give_tokenizer, shrunk

from vlprep.errors import SettingsError
from vlprep.pretrain.recipe import load_recipe, with_objectives, with_settings
from vlprep.stages.caption import caption
from vlprep.stages.evaluate import evaluate, evaluate_retrieval
from vlprep.stages.pretrain import pretrain
from vlprep.stages.trained import open_trained
from vlprep_cli.main import cli

MATCHERS = {"uniter-small": "itm", "lxmert-small": "lxmert", "vilbert-small": "vilbert", "oscar-small": "oscar"}


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    pretrain([images], with_settings(load_recipe("uniter-small"), SHRINK), out=out, device="cpu")
    return out


def test_of_what_was_trained_on_only_held_out_items_take_part(run: Path, images: Path, tmp_path: Path) -> None:
    own = evaluate(run, images, "mlm")
    moved = evaluate(run, shutil.copytree(images, tmp_path / "moved"), "mlm")
    assert own.held_out
    assert own.samples < 40
    assert moved == own
    learnable_images(tmp_path / "new" / "vlprep", first=100)
    give_tokenizer(tmp_path / "new" / "vlprep" / "text")
    new = evaluate(run, tmp_path / "new", "mlm")
    assert (new.held_out, new.samples) == (False, 40)
    assert {"mlm/accuracy", "mlm/accuracy without"} <= own.figures.keys()
    assert not any(name.startswith("itm") for name in own.figures)


def test_held_out_items_are_known_in_another_order(run: Path, images: Path, tmp_path: Path) -> None:
    """The store was made anew after 60 images came in before the others."""
    learnable_images(tmp_path / "vlprep", count=100, first=-60)
    give_tokenizer(tmp_path / "vlprep" / "text")
    before, now = open_trained(run, images), open_trained(run, tmp_path)
    names = [
        {trained.corpus.item_ids()[item] for item in trained.corpus.items()[trained.samples]}
        for trained in (before, now)
    ]
    assert names[1] == names[0] | {f"{number:03}.jpg" for number in range(-60, 0)}


def test_a_run_goes_on_with_its_own_data_only(run: Path, images: Path, tmp_path: Path) -> None:
    began = shutil.copytree(run, tmp_path / "run")
    recipe = with_settings(load_recipe("uniter-small"), [*SHRINK, "train.steps=5"])
    assert pretrain([shutil.copytree(images, tmp_path / "moved")], recipe, out=began, device="cpu") is not None
    learnable_images(tmp_path / "more" / "vlprep", count=41)
    give_tokenizer(tmp_path / "more" / "vlprep" / "text")
    with pytest.raises(SettingsError, match=r"begun with other images or videos \(40 then, 41 now.*--init .*--out"):
        pretrain([tmp_path / "more"], with_settings(recipe, ["train.steps=6"]), out=began, device="cpu")


def test_match_has_accuracy_and_auc_and_twice_the_same(run: Path, images: Path) -> None:
    report = evaluate(run, images, "match")
    assert report.figures.keys() == {"itm/accuracy", "itm/auc"}
    assert evaluate(run, images, "match") == report


@pytest.mark.parametrize("recipe", MATCHERS)
def test_every_matching_system_ranks(recipe: str, images: Path, tmp_path: Path) -> None:
    pretrain([images], shrunk(recipe, "train.steps=1", "train.save_every=1"), out=tmp_path / "run", device="cpu")
    elsewhere = shutil.copytree(images, tmp_path / "copy")
    report = evaluate_retrieval(tmp_path / "run", elsewhere, most=6)
    assert (report.texts, report.candidates, report.seen) == (6, 6, "image")
    assert report.text_to_seen.recall[10].value == 1 == report.text_to_seen.chance[10]
    assert evaluate_retrieval(tmp_path / "run", elsewhere, most=6) == report


def test_scores_belong_to_their_pairs(run: Path, images: Path) -> None:
    """The matrix of all pairs, in batches, equals one pair at a time."""
    from vlprep.pretrain.pair_scores import pair_scores

    trained = open_trained(run, images)
    matcher = trained.objectives["itm"]
    samples = [trained.corpus.sample(number) for number in range(4)]
    at_once = pair_scores(trained.model, matcher, samples, samples, trained.device, tokens=70)
    for row, text in enumerate(samples):
        for column, seen in enumerate(samples):
            alone = pair_scores(trained.model, matcher, [text], [seen], trained.device)
            assert at_once[row, column] == pytest.approx(alone[0, 0], abs=1e-5)
    assert len(np.unique(at_once)) > 4


def test_videos_are_ranked_by_segment(tmp_path: Path) -> None:
    folder = tmp_path / "how"
    told_videos(folder / "vlprep", 6)
    give_tokenizer(folder / "vlprep" / "text")
    recipe = with_objectives(load_recipe("videobert-small"), "mlm+mfm+align")
    pretrain([folder], with_settings(recipe, SHRINK), out=tmp_path / "run", device="cpu")
    report = evaluate_retrieval(that_has_seen_nothing(tmp_path / "run", tmp_path / "new"), folder, most=10)
    assert (report.texts, report.candidates, report.seen) == (10, 10, "video")


def test_another_tokenizer_is_refused(run: Path, images: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(images, tmp_path / "copy")
    manifest = elsewhere / "vlprep" / "text" / "store.json"
    content = json.loads(manifest.read_text())
    content["settings"]["sha256"] = "other"
    manifest.write_text(json.dumps(content))
    with pytest.raises(SettingsError, match="another tokenizer"):
        evaluate(run, elsewhere, "mlm")


def test_a_model_that_matches_nothing_cannot_rank(images: Path, tmp_path: Path) -> None:
    recipe = with_settings(with_objectives(load_recipe("uniter-small"), "mlm"), SHRINK)
    pretrain([images], recipe, out=tmp_path / "run", device="cpu")
    with pytest.raises(SettingsError, match="cannot rank"):
        evaluate_retrieval(tmp_path / "run", images)
    with pytest.raises(SettingsError, match="evaluate match"):
        evaluate(tmp_path / "run", images, "match")


def test_commands(run: Path, images: Path) -> None:
    runner = CliRunner()
    shown = runner.invoke(cli, ["evaluate", "retrieval", str(run), str(images)])
    assert shown.exit_code == 0, shown.output
    assert "text to image" in shown.output
    assert "held out" in shown.output
    document = json.loads(runner.invoke(cli, ["evaluate", "match", str(run), str(images), "--json"]).stdout)
    assert 0 <= document["figures"]["itm/auc"] <= 1


def test_captions_of_held_out_images(images: Path, tmp_path: Path) -> None:
    recipe = with_settings(load_recipe("vlp-small"), [*SHRINK, "train.steps=1", "train.save_every=1"])
    pretrain([images], recipe, out=tmp_path / "run", device="cpu")
    report = caption(tmp_path / "run", images, most=3, beams=2)
    assert report.held_out
    assert len({image.image for image in report.images}) == len(report.images) == 3
    for image in report.images:
        assert len(image.written) == len(image.log_probabilities) == 2
        assert image.told
    assert caption(tmp_path / "run", images, most=3, beams=2) == report
    shown = CliRunner().invoke(cli, ["evaluate", "captions", str(tmp_path / "run"), str(images), "--most", "2"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith("2 held-out images")
    assert f"  told     {report.images[0].told[0]}" in shown.output


def test_a_model_that_does_not_write_says_so(run: Path, images: Path) -> None:
    with pytest.raises(SettingsError, match="does not write: vlp does"):
        caption(run, images)


def test_a_missing_text_store_is_to_be_made_with_the_runs_tokenizer(run: Path, images: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(images, tmp_path / "copy")
    shutil.rmtree(elsewhere / "vlprep" / "text")
    with pytest.raises(SettingsError, match=rf"--tokenizer {images}/vlprep/text/tokenizer\.json"):
        evaluate(run, elsewhere, "mlm")
    with pytest.raises(SettingsError, match="no such folder"):
        evaluate(run, tmp_path / "nowhere", "mlm")
