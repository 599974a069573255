"""A run's folder: one run at a time in it, and what a killed one leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vlprep.errors import SettingsError
from vlprep.pretrain.checkpoint import TrainingState, checkpoints, save_checkpoint
from vlprep.pretrain.run_folder import METRICS_NAME, MetricsLog, forget_run, hold_run, read_metrics, starting_point
from vlprep.pretrain.trainer import Logged

HOLD = """
import os, pathlib, sys, time
from vlprep.pretrain.run_folder import hold_run
with hold_run(pathlib.Path(sys.argv[1])):
    if os.fork() == 0:  # as a loader process, which may outlive its parent a little
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    save(folder, 4)
    save(folder, 8)
    return folder


def save(folder: Path, step: int, keep: int = 3) -> Path:
    state = TrainingState(step=step, samples=0, tokens=0, skipped=0)
    return save_checkpoint(folder / "checkpoints", state, torch.nn.Linear(2, 2), {}, keep=keep)


def logged(step: int) -> Logged:
    return Logged(
        step=step,
        lr=0.1,
        losses={"mlm": 1.0},
        grad_norm=1.0,
        tokens_per_second=1.0,
        waiting=0.0,
        starting=0.0,
        skipped=0,
        left_out=0,
        seconds_left=0.0,
    )


def test_a_second_run_is_refused_until_the_first_is_dead(run: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLD, run], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(SettingsError, match=rf"{run} is in use by process {first.pid} on .*--out"), hold_run(run):
            pass
        assert len(checkpoints(run / "checkpoints")) == 2
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        with hold_run(run):
            pass
    finally:
        os.killpg(first.pid, signal.SIGKILL)


def test_what_a_killed_run_left_is_removed(run: Path) -> None:
    torn = run / "checkpoints" / ".step-00000012.tmp"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    stale = run / ".metrics.jsonl.0.tmp"
    stale.write_text("half")
    with hold_run(run):
        assert not torn.exists()
        assert not stale.exists()
        assert len(checkpoints(run / "checkpoints")) == 2


def test_a_checkpoint_is_never_removed_by_halves(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while the oldest goes: no folder of a checkpoint's name lacks a file."""

    def killed(path: Path, **options: object) -> None:
        (path / "training.pt").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr("vlprep.pretrain.checkpoint.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        save(run, 12, keep=2)
    folders = sorted((run / "checkpoints").glob("step-*"))
    assert [path.name for path in folders] == ["step-00000008", "step-00000012"]
    assert checkpoints(run / "checkpoints") == folders


def test_where_a_run_starts(run: Path, tmp_path: Path) -> None:
    first, newest = checkpoints(run / "checkpoints")
    assert starting_point(run, "auto") == starting_point(run, str(newest)) == newest
    assert starting_point(run, "never") is None
    assert starting_point(tmp_path / "other", "auto") is None
    assert starting_point(tmp_path / "other", str(first)) == first
    with pytest.raises(SettingsError, match=r"later checkpoints than .*up to step-00000008.*--out"):
        starting_point(run, str(first))


def test_the_log_survives_a_kill_at_any_byte(tmp_path: Path) -> None:
    """Whatever of the last lines was written: what is kept ends with the checkpoint's step, each step once."""
    log = MetricsLog(tmp_path, 0)
    for step in range(1, 6):
        log.add(logged(step))
    log.close()
    whole = (tmp_path / METRICS_NAME).read_bytes()
    saved = 3
    least = sum(len(line) for line in whole.splitlines(keepends=True)[:saved])  # logged before the checkpoint
    for size in range(least, len(whole) + 1):
        (tmp_path / METRICS_NAME).write_bytes(whole[:size])
        again = MetricsLog(tmp_path, saved)
        again.add(logged(4))
        again.close()
        assert [entry["step"] for entry in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert all(json.loads(line) for line in (tmp_path / METRICS_NAME).read_text().splitlines())


def test_what_is_no_run_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "checkpoints" / "mine"
    theirs.mkdir(parents=True)
    (theirs / "weights.pt").write_bytes(b"theirs")
    for begin_anew in (True, False):
        with pytest.raises(SettingsError, match=r"is no run of vlprep pretrain: choose another --out"):
            forget_run(tmp_path, begin_anew=begin_anew)
    assert (theirs / "weights.pt").read_bytes() == b"theirs"


def test_a_checkpoint_that_has_lost_a_file_is_removed_only_when_asked(tmp_path: Path) -> None:
    (save(tmp_path, 10) / "training.pt").unlink()
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(SettingsError, match=r"step-00000010 is no whole checkpoint.*--resume never"):
        forget_run(tmp_path, begin_anew=False)
    assert (tmp_path / "checkpoints" / "step-00000010" / "model.safetensors").is_file()
    forget_run(tmp_path, begin_anew=True)
    assert not (tmp_path / "checkpoints").exists()


def test_the_log_of_a_run_that_saved_nothing_makes_room(tmp_path: Path) -> None:
    for name in ("model.json", "metrics.jsonl", "recipe.toml"):
        (tmp_path / name).write_text("")
    forget_run(tmp_path, begin_anew=False)
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]


def test_a_loader_lost_while_saving_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(*given: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr(torch, "save", lose)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        save(tmp_path, 10)
    assert not list((tmp_path / "checkpoints").iterdir())
