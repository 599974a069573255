"""The benchmark scripts run, at a size where their figures mean nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(out: Path, script: str, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    command = [sys.executable, str(BENCHMARKS / script), "--tiny", "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done, json.loads((out / f"{Path(script).stem}.json").read_text())


def test_regions(tmp_path: Path) -> None:
    done, result = run(tmp_path, "regions.py")
    assert "Ours against the usual way" in done.stdout
    assert result["machine"]["cpu"]
    assert set(result["seconds_an_image"]) == {"usual", "fp32", "bf16"}
    assert result["agreement"]["fp32"]["equal_boxes"] == 1
    assert result["agreement"]["fp32"]["feature_over_max"] < 1e-5
    assert result["agreement"]["bf16"]["cosine_least"] > 0.999
    assert all(seconds > 0 for steps in result["steps"].values() for seconds in steps.values())


def test_gpu_check_on_a_cpu(tmp_path: Path) -> None:
    _, result = run(tmp_path, "gpu_check.py", "--device", "cpu")
    assert all(check["passed"] for check in result["checks"])
    assert result["speed"]["regions, fp32"]["images_a_second"] > 0


def test_gpu_check_says_that_there_is_no_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu_check.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no CUDA device" in done.stderr
