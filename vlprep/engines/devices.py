"""Which devices a run uses, found out without importing torch into the driver."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys

from vlprep.errors import SettingsError

_COUNT = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"


def parse_devices(text: str) -> tuple[str, ...]:
    """Read `auto`, `cpu`, `cuda` (all of them) or `cuda:0,1`; returns `("cpu",)` or `("cuda:0", ...)`.

    `auto` is all CUDA devices, or the CPU where there are none. Raises `SettingsError` for anything else and for
    devices that this machine (or `CUDA_VISIBLE_DEVICES`) does not have.
    """
    if text == "cpu":
        return ("cpu",)
    if not (text in {"auto", "cuda"} or re.fullmatch(r"cuda:\d+(,\d+)*", text)):
        raise SettingsError(f"--device {text}: write auto, cpu, cuda (all of them) or cuda:0,1")
    count = cuda_count()
    if text == "auto":
        return tuple(f"cuda:{index}" for index in range(count)) or ("cpu",)
    if not count:
        raise SettingsError(f"--device {text}: torch finds no CUDA device here; check nvidia-smi, or use --device cpu")
    if text == "cuda":
        return tuple(f"cuda:{index}" for index in range(count))
    indices = dict.fromkeys(int(index) for index in text.removeprefix("cuda:").split(","))
    if missing := [index for index in indices if index >= count]:
        raise SettingsError(f"--device {text}: there is no cuda:{missing[0]}; torch sees {count}, counted from 0")
    return tuple(f"cuda:{index}" for index in indices)


def cuda_count() -> int:
    """Number of CUDA devices that torch can use. Asks a child process, and only where a driver is installed."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    answer = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True, check=False)
    return int(answer.stdout) if answer.returncode == 0 else 0


def visible_alone(device: str) -> dict[str, str]:
    """The environment in which `device` is the only CUDA device, within an outer `CUDA_VISIBLE_DEVICES`."""
    if not device.startswith("cuda:"):
        return {"CUDA_VISIBLE_DEVICES": ""}
    index = int(device.removeprefix("cuda:"))
    outer = [entry for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry]
    return {"CUDA_VISIBLE_DEVICES": outer[index] if outer else str(index)}


def cores() -> int:
    """CPU cores that this process may use (affinity and `taskset` respected)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
