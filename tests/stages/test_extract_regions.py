"""The region stage whole, with real worker processes and a detector that needs no network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import inline_engine
import numpy as np
import pytest
from dummy_detector import HANG, KILL, NOT_FINITE, RAISE, REFUSE, DummyDetector
from PIL import Image
from region_fixtures import make_pictures, run_settings, settings, spoil

from vlprep.detect.selection import CaffeRule, select
from vlprep.engines.base import ItemPoisoned, ItemsDone, PartFinished
from vlprep.errors import SettingsError
from vlprep.media.image import read_image
from vlprep.shards import Status, StoreReader
from vlprep.stages import run
from vlprep.stages.extract_regions import dry_run, extract_regions
from vlprep.stages.run import Planned


@pytest.fixture
def _inline(monkeypatch):
    monkeypatch.setattr(run, "run_parts", inline_engine.run_parts)


inline = pytest.mark.usefixtures("_inline")


def reasons(status: Status) -> dict[str, str]:
    return {failure.id: failure.message for failure in status.failures}


@inline
def test_rows_are_what_detector_and_rule_say(tmp_path):
    ids = make_pictures(tmp_path)
    report = extract_regions(tmp_path, settings(selection="caffe", store_dtype="float32"), run_settings())
    assert report.folder == tmp_path / "vlprep" / "regions"
    assert (report.done, report.status.rows, report.status.pending) == (12, 12, 0)
    reader = StoreReader(report.folder)
    assert reader.ids == ids
    detector = DummyDetector("cpu")
    for row in reader:
        image = detector.prepare(read_image(tmp_path / row["id"]))
        [regions] = detector.detect([image])
        chosen = select(regions, CaffeRule(min_boxes=5, max_boxes=20))
        order = np.argsort(-chosen.max_conf_k.numpy(), kind="stable")
        kept = chosen.keep_k.numpy()[order]
        assert (row["height"], row["width"]) == (image.height, image.width)
        assert row["path"] == row["id"]
        assert row["source_id"] == str(int(Path(row["id"]).stem))
        assert np.all(np.diff(row["max_conf"]) <= 0)
        np.testing.assert_array_equal(row["max_conf"], chosen.max_conf_k.numpy()[order])
        np.testing.assert_array_equal(row["boxes"], chosen.boxes_k4.numpy()[order])
        for column, tensor in {
            "proposals": regions.proposals_R4,
            "features": regions.features_RD,
            "class_probs": regions.class_probs_RK,
            "background_prob": regions.background_R,
            "attribute_probs": regions.attribute_probs_RA,
            "object_ids": regions.class_probs_RK.argmax(dim=1),
        }.items():
            np.testing.assert_array_equal(row[column], tensor.numpy()[kept], err_msg=column)


@inline
def test_soft_labels_as_asked(tmp_path):
    make_pictures(tmp_path, 3)
    folders = {}
    for choice in ("full", "top4", "none"):
        out = tmp_path / "vlprep" / choice
        folders[choice] = extract_regions(tmp_path, settings(soft_labels=choice), run_settings(out=out)).folder
    full, top, none = (StoreReader(folders[choice])[0] for choice in ("full", "top4", "none"))
    assert "class_probs" not in none
    for probs, ids, some, rest in zip(
        full["class_probs"], top["class_ids"], top["class_probs"], top["remainder_prob"], strict=True
    ):
        np.testing.assert_array_equal(some, np.sort(probs)[::-1][:4])
        np.testing.assert_array_equal(some, probs[ids])
        assert rest == pytest.approx(probs.sum(dtype=np.float64) - some.sum(dtype=np.float64), abs=1e-3)


@inline
def test_given_boxes_keep_their_order(tmp_path):
    ids = make_pictures(tmp_path, 3)
    boxes = {ids[0]: [[1, 2, 9, 9], [0, 0, 20, 20], [3, 3, 5, 8]], ids[1]: [[0, 1, 4, 5]]}
    lines = [f'{{"image": "{item}", "boxes": {rows}}}' for item, rows in boxes.items()]
    (tmp_path / "boxes.jsonl").write_text("\n".join(lines))
    chosen = settings(given_boxes=tmp_path / "boxes.jsonl")
    report = extract_regions(tmp_path, chosen, run_settings())
    reader = StoreReader(report.folder)
    assert reader.ids == ids[:2]
    for row in reader:
        np.testing.assert_array_equal(row["boxes"], boxes[row["id"]])
        np.testing.assert_array_equal(row["proposals"], boxes[row["id"]])
    assert list(reasons(report.status)) == [ids[2]]
    assert "no boxes for it in" in reasons(report.status)[ids[2]]


@inline
def test_given_boxes_may_stick_out_but_not_lie_outside(tmp_path):
    ids = make_pictures(tmp_path, 4)  # 32 x 24, 24 x 32, 40 x 40, 32 x 24
    out = [[-500, -500, -400, -400], [0, 0, 9, 9]]
    boxes = {ids[0]: [[-5, -5, 900, 900]], ids[1]: out, ids[2]: [[0, 99, 9, 120]], ids[3]: [[0, 0, 0, 0]]}
    lines = [f'{{"image": "{item}", "boxes": {rows}}}' for item, rows in boxes.items()]
    (tmp_path / "boxes.jsonl").write_text("\n".join(lines))
    report = extract_regions(tmp_path, settings(given_boxes=tmp_path / "boxes.jsonl"), run_settings())
    failed = reasons(report.status)
    assert set(failed) == {ids[1], ids[2]}
    height, width = read_image(tmp_path / ids[1]).shape[:2]
    assert str(tmp_path / "boxes.jsonl") in failed[ids[1]]
    assert "[-500.0, -500.0, -400.0, -400.0] lies outside" in failed[ids[1]]
    assert f"{width} pixels wide and {height} high" in failed[ids[1]]


@inline
def test_names_that_are_not_unicode_are_read_and_told(tmp_path):
    ids = make_pictures(tmp_path, 2)
    names = [os.fsdecode(name) for name in (b"bad\xff.png", b"torn\xff.png", b"a\\b.png")]
    for name in names:
        (tmp_path / name).write_bytes((tmp_path / ids[0]).read_bytes())
    (tmp_path / names[1]).write_bytes(b"no picture")
    report = extract_regions(tmp_path, settings(), run_settings())
    assert {*StoreReader(report.folder).ids} == {*ids, "bad\\xff.png", "a\\b.png"}
    failed = reasons(report.status)
    assert list(failed) == ["torn\\xff.png"]
    assert "not a picture" in failed["torn\\xff.png"]


@inline
def test_bad_inputs_are_failures_with_their_reason(tmp_path):
    ids = make_pictures(tmp_path)
    (tmp_path / ids[1]).write_bytes(b"")
    (tmp_path / ids[2]).write_text("hello")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.jpg").mkdir()
    spoil(tmp_path, ids[6], REFUSE)
    spoil(tmp_path, ids[8], NOT_FINITE)
    report = extract_regions(tmp_path, settings(), run_settings())
    failed = reasons(report.status)
    assert set(failed) == {ids[1], ids[2], ids[6], ids[8], "dangling.jpg", "folder.jpg"}
    assert failed[ids[6]] == "too red"
    assert "features has values that are not finite" in failed[ids[8]]
    assert report.status.rows == 8


def test_events_tell_plan_progress_and_what_befell_a_worker(tmp_path):
    ids = make_pictures(tmp_path)
    spoil(tmp_path, ids[6], HANG)
    events: list[object] = []
    report = extract_regions(tmp_path, settings(), run_settings(item_timeout=2.0), events.append)
    assert isinstance(events[0], Planned)
    assert (events[0].items, events[0].parts, events[0].before.rows) == (12, 3, 0)
    assert [event.count for event in events if isinstance(event, ItemsDone)][-1] == 12
    assert sum(event.done.rows for event in events if isinstance(event, PartFinished)) == 11
    assert [(event.item, event.what) for event in events if isinstance(event, ItemPoisoned)] == [
        (ids[6], "took longer than 2 s")
    ]
    assert reasons(report.status) == {ids[6]: "took longer than 2 s"}
    assert report.status.rows == 11
    assert set(report.steps) == {"decode", "wait", "network", "select", "write"}


@pytest.mark.slow
def test_items_that_kill_hang_or_break_a_worker_are_failures(tmp_path):
    ids = make_pictures(tmp_path)
    for item, red in ((ids[1], KILL), (ids[6], HANG), (ids[11], RAISE)):
        spoil(tmp_path, item, red)
    report = extract_regions(tmp_path, settings(), run_settings(workers=2, item_timeout=2.0))
    assert reasons(report.status) == {
        ids[1]: "killed its worker (signal 11)",
        ids[6]: "took longer than 2 s",
        ids[11]: "raised ValueError: cannot add apples",
    }
    assert report.status.rows == 9


@inline
def test_a_second_run_does_nothing_and_a_third_what_is_new(tmp_path):
    ids = make_pictures(tmp_path, 6)
    extract_regions(tmp_path, settings(), run_settings())
    assert extract_regions(tmp_path, settings(), run_settings()).done == 0
    Image.new("RGB", (30, 30)).save(tmp_path / "new.png")
    report = extract_regions(tmp_path, settings(), run_settings())
    assert (report.done, report.status.rows) == (1, 7)
    assert set(StoreReader(report.folder).ids) == {*ids, "new.png"}


@inline
def test_failures_are_tried_again_when_asked(tmp_path):
    ids = make_pictures(tmp_path)
    whole = (tmp_path / ids[4]).read_bytes()
    (tmp_path / ids[4]).write_bytes(whole[:100])
    assert extract_regions(tmp_path, settings(), run_settings()).status.failed == 1
    (tmp_path / ids[4]).write_bytes(whole)
    assert extract_regions(tmp_path, settings(), run_settings()).status.failed == 1
    report = extract_regions(tmp_path, settings(), run_settings(retry_failed=True))
    assert (report.done, report.status.failed, report.status.rows) == (1, 0, 12)


@inline
def test_shards_share_the_parts(tmp_path):
    make_pictures(tmp_path)
    first = extract_regions(tmp_path, settings(), run_settings(part_size=2, shard_of="1/2"))
    assert (first.done, first.status.pending) == (6, 6)
    second = extract_regions(tmp_path, settings(), run_settings(part_size=2, shard_of="2/2"))
    assert (second.done, second.status.pending, second.status.rows) == (6, 0, 12)


@inline
def test_other_settings_are_refused(tmp_path):
    make_pictures(tmp_path, 3)
    extract_regions(tmp_path, settings(), run_settings())
    with pytest.raises(SettingsError, match=r"settings\.detector\.feature_dim: the store has 16, this run 8"):
        extract_regions(tmp_path, settings(overrides={"feature_dim": 8}), run_settings())
    extract_regions(tmp_path, settings(overrides={"feature_dim": 8}), run_settings(overwrite=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": "100-10"}, "--boxes 100-10: write 36"),
        ({"boxes": "0"}, "--boxes 0"),
        ({"soft_labels": "top0"}, "--soft-labels top0: full, none"),
        ({"precision": "fp8"}, "--precision fp8: one of fp32, bf16, fp16"),
        ({"detector": "no_such_module:build"}, "no_such_module:build: not one of ours, and not to be imported"),
        ({"detector": "no-such-family"}, "--detector no-such-family: one of butd"),
        ({"weights": "missing"}, "--weights missing: no such file"),
    ],
)
@inline
def test_wrong_settings_say_which(tmp_path, changes, message):
    make_pictures(tmp_path, 1)
    with pytest.raises(SettingsError, match=message):
        extract_regions(tmp_path, settings(**changes), run_settings())


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b"])
def test_a_wrong_shard_is_refused(shard):
    with pytest.raises(SettingsError, match="--shard-of"):
        run_settings(shard_of=shard)


@inline
def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="no pictures"):
        extract_regions(tmp_path, settings(), run_settings())


def files_below(folder: Path) -> Sequence[Path]:
    return sorted(folder.rglob("*"))


@inline
def test_a_dry_run_leaves_no_trace_and_expects_what_comes(tmp_path):
    make_pictures(tmp_path, 40)
    before = files_below(tmp_path)
    plan = dry_run(tmp_path, settings(), run_settings())
    assert files_below(tmp_path) == before
    assert (plan.items, plan.parts, plan.measured, plan.failed, plan.devices) == (40, 8, 8, 0, ("cpu",))
    report = extract_regions(tmp_path, settings(), run_settings(limit=20))
    rest = dry_run(tmp_path, settings(), run_settings())
    assert (rest.items, rest.parts) == (20, 4)
    assert 0.5 < 2 * report.status.bytes / plan.bytes < 2
    assert plan.hours > 0


@inline
def test_a_dry_run_with_nothing_to_do(tmp_path):
    make_pictures(tmp_path, 3)
    extract_regions(tmp_path, settings(), run_settings())
    plan = dry_run(tmp_path, settings(), run_settings())
    assert (plan.items, plan.parts, plan.measured, plan.bytes, plan.hours) == (0, 0, 0, 0, 0.0)
