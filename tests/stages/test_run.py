"""A run whose store is overwritten under its hands, and settings that no run can have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shards.filling import FEATURE_DIM, ITEMS, fill, open_videos
from shards.filling import settings as store_settings

from vlprep.errors import SettingsError, VlprepError
from vlprep.shards import Store, open_store
from vlprep.shards.schema import video_schema
from vlprep.stages import run
from vlprep.stages.run import RunSettings, Stage, run_stage

SCHEMA = video_schema(FEATURE_DIM)


def stage(folder: Path) -> Stage:
    return Stage(folder=folder, items=ITEMS[:12], schema=SCHEMA, settings=store_settings(), worker="none", arguments={})


def begin_anew(folder: Path, part_size: int, **changes: Any) -> Store:
    store = open_store(folder, SCHEMA, replace(store_settings(), **changes), overwrite=True)
    store.plan(ITEMS[:12], part_size)
    return store


def other_settings_whole(folder: Path) -> None:
    fill(begin_anew(folder, 3, weights=None))


def part_of_it(folder: Path) -> None:
    store = begin_anew(folder, 3)
    with store.write_part(0) as writer:
        for item in store.part_items(0):
            writer.fail(item, ValueError())


@pytest.mark.parametrize(
    "overwrite",
    [lambda folder: begin_anew(folder, 3), lambda folder: begin_anew(folder, 12), part_of_it, other_settings_whole],
)
def test_an_overwritten_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: Callable[[Path], object]
) -> None:
    def run_parts(spec: Any, parts: object, **_: object) -> None:
        fill(spec.arguments["store"])
        overwrite(tmp_path)

    monkeypatch.setattr(run, "run_parts", run_parts)
    with pytest.raises(VlprepError, match=f"{tmp_path} was overwritten by another run meanwhile") as caught:
        run_stage(stage(tmp_path), RunSettings(device="cpu", part_size=3), lambda event: None)
    assert caught.value.exit_code == 1


def test_a_run_that_was_not_overwritten_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "run_parts", lambda spec, parts, **_: fill(spec.arguments["store"]))
    report = run_stage(stage(tmp_path), RunSettings(device="cpu", part_size=3), lambda event: None)
    assert (report.status.pending, report.status.failed) == (0, 1)


def test_a_store_with_other_settings_by_now_takes_no_plan(tmp_path: Path) -> None:
    old = open_videos(tmp_path)
    new = begin_anew(tmp_path, 3, weights=None)
    for attempt in (lambda: old.plan(ITEMS, 4), old.pending, old.status, old.retry_failed, lambda: old.part_items(0)):
        with pytest.raises(VlprepError, match="was overwritten by another run meanwhile, with other settings"):
            attempt()
    assert new.pending() == [0, 1, 2, 3]


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_timeout_is_a_number_of_seconds(seconds: float) -> None:
    with pytest.raises(SettingsError, match="--item-timeout takes seconds above 0"):
        RunSettings(item_timeout=seconds)
