"""`vlprep pretrain` killed at any moment ends, run again, as the uninterrupted run; Ctrl-C, a full disk are clean."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from vlprep.pretrain.checkpoint import checkpoints, read_state

COMMAND = Path(sys.executable).with_name("vlprep")
STEPS = 60
SETTINGS = (
    "model.layers=1",
    "model.hidden=16",
    "model.heads=2",
    "model.intermediate=32",
    "batches.tokens=100",
    "train.log_every=4",
    "train.save_every=5",
    "train.validate_every=10",
    "train.validation_share=0.2",
    "train.loaders=1",
)
"""A log entry, a checkpoint and a validation often coincide, and often do not."""


def arguments(images: Path, out: Path, steps: int = STEPS) -> list[str]:
    settings = [f"--set={setting}" for setting in SETTINGS]
    return [str(COMMAND), "pretrain", str(images), *settings, f"--steps={steps}", "--device=cpu", f"--out={out}"]


def start(images: Path, out: Path, steps: int = STEPS, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments(images, out, steps),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def finish(process: subprocess.Popen[str]) -> str:
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return said


def result(run: Path) -> tuple[bytes, list[Any]]:
    """Final weights, and every figure that is no measure of time."""
    clock = ("tokens_per_second", "waiting", "starting")
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = [{name: value for name, value in entry.items() if name not in clock} for entry in entries]
    return (checkpoints(run / "checkpoints")[-1] / "model.safetensors").read_bytes(), curve


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    """Until the run has logged this step."""
    path = run / "metrics.jsonl"
    while process.poll() is None and (not path.is_file() or f'"step": {step},' not in path.read_text()):
        time.sleep(0.005)


def wait_for_a_checkpoint_in_the_making(process: subprocess.Popen[str], run: Path) -> None:
    while process.poll() is None and not list((run / "checkpoints").glob(".step-*.tmp")):
        pass


def kill_and_resume(images: Path, folder: Path, moments: int) -> None:
    """Two kills a moment: the first as it comes, the second after a resume."""
    finish(start(images, folder / "whole"))
    whole = result(folder / "whole")
    assert [entry["step"] for entry in whole[1] if entry["kind"] == "validation"] == [10, 20, 30, 40, 50, 60]
    rng = random.Random(5)
    for moment in range(moments):
        run = folder / f"killed-{moment}"
        for early, late in ((4, STEPS // 2), (STEPS // 2 + 2, STEPS)):
            process = start(images, run)
            if moment % 4 == 3:  # at its start, or not even in its loop
                time.sleep(rng.uniform(0, 8))
            else:
                wait_for_step(process, run, rng.randrange(early, late, 4))
                if moment % 2:
                    wait_for_a_checkpoint_in_the_making(process, run)
                time.sleep(rng.uniform(0, 0.005 if moment % 2 else 0.1))
            process.kill()
            process.communicate()
        finish(start(images, run))
        assert result(run) == whole
        assert [read_state(path).step for path in checkpoints(run / "checkpoints")] == [STEPS - 5, STEPS]
        assert not list((run / "checkpoints").glob(".*"))


def test_a_few_kills(images, tmp_path) -> None:
    kill_and_resume(images, tmp_path, moments=1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_kills(images, tmp_path) -> None:
    kill_and_resume(images, tmp_path, moments=10)


def test_a_second_run_in_the_folder_is_refused_and_harms_nothing(images, tmp_path) -> None:
    process = start(images, tmp_path / "run")
    wait_for_step(process, tmp_path / "run", 4)
    process.send_signal(signal.SIGSTOP)
    second = start(images, tmp_path / "run")
    _, said = second.communicate(timeout=120)
    process.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    assert f"{tmp_path / 'run'} is in use by process {process.pid} on" in said
    assert "Traceback" not in said
    finish(process)
    entries = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum(entry["step"] == STEPS for entry in entries) == 2  # a log entry and a validation


def test_a_lost_loader_ends_the_run_with_one_line(images, tmp_path) -> None:
    process = start(images, tmp_path / "run", steps=1_000_000)
    wait_for_step(process, tmp_path / "run", 12)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert "a process that makes batches was lost" in said
    [*_, last] = checkpoints(tmp_path / "run" / "checkpoints")
    assert read_state(last).step >= 10


def test_ctrl_c_says_how_to_go_on(images, tmp_path) -> None:
    said = interrupted(images, tmp_path / "run", 12)
    resume = said.splitlines()[-1].strip()
    assert said.splitlines()[-2].startswith("Stopped")
    assert resume.startswith(f"vlprep pretrain {images} ")
    [*_, last] = checkpoints(tmp_path / "run" / "checkpoints")
    said = interrupted(images, tmp_path / "run", read_state(last).step // 4 * 4 + 40)
    assert "going on after step" in said


def interrupted(images: Path, run: Path, step: int) -> str:
    """What a run says that is interrupted after this step, as by a terminal: its loaders are too. It would not end soon
    by itself.
    """
    process = start(images, run, steps=1_000_000)
    wait_for_step(process, run, step)
    os.killpg(process.pid, signal.SIGINT)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said + printed
    return said


def test_a_full_disk_keeps_the_last_checkpoint(images, tmp_path) -> None:
    """A limit on the size of a file stands in for the disk; metrics fit, the second save does not."""
    finish(start(images, tmp_path / "whole"))
    saved = checkpoints(tmp_path / "whole" / "checkpoints")[-1]
    sizes = {name: (saved / name).stat().st_size for name in ("model.safetensors", "training.pt")}
    for name in sizes:
        run = tmp_path / name
        process = start(images, run)
        wait_for_step(process, run, 12)
        limit = sizes[name] // 2
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1, said
        assert "could not be written" in said
        assert "Traceback" not in said
        assert not list((run / "checkpoints").glob(".*"))
        assert read_state(checkpoints(run / "checkpoints")[-1]).step >= 10
    finish(start(images, tmp_path / "training.pt"))
    assert result(tmp_path / "training.pt") == result(tmp_path / "whole")
