"""What every benchmark shares: CPU seconds, the machine, tables, JSON.

CPU seconds of this process and its threads, not the wall clock: they mean the same on a busy machine.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parents[1]
TESTS = REPOSITORY / "tests"
SHARED = REPOSITORY.parent / "shared"


def synchronise(device: torch.device | str) -> None:
    """Wait for what a GPU has been given; nothing on a CPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


class Steps:
    """Seconds by step: CPU time on a CPU, wall clock on a GPU, where the CPU only waits."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.seconds: dict[str, float] = {}
        self._device = torch.device(device)
        self._clock = time.perf_counter if self._device.type == "cuda" else time.process_time

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        synchronise(self._device)
        began = self._clock()
        yield
        synchronise(self._device)
        self.seconds[step] = self.seconds.get(step, 0.0) + self._clock() - began


def seconds_of(call: Callable[[], object], device: torch.device | str = "cpu", *, repeats: int = 1) -> float:
    """Of the fastest of `repeats` calls."""
    fastest = float("inf")
    for _ in range(repeats):
        steps = Steps(device)
        with steps("call"):
            call()
        fastest = min(fastest, steps.seconds["call"])
    return fastest


def matmul_rate(dtype: torch.dtype, device: torch.device | str = "cpu") -> float:
    """FLOP/s of a large square matrix product: what this device can reach, whatever its data sheet says."""
    side = 8192 if torch.device(device).type == "cuda" else 1536
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    left @ right
    return 2 * side**3 / seconds_of(lambda: left @ right, device, repeats=5)


def machine() -> dict[str, Any]:
    """The machine and the versions behind a figure."""
    from vlprep import __version__

    found = {
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "vlprep": __version__,
    }
    return found | ({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {})


def _cpu_name() -> str:
    """With what decides the speed of low precision."""
    info = Path("/proc/cpuinfo")
    pairs = (line.partition(":") for line in info.read_text().splitlines()) if info.is_file() else ()
    told = {name.strip(): value.strip() for name, _, value in pairs}
    units = [unit for unit in ("avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16") if unit in told.get("flags", "")]
    name = told.get("model name", platform.processor() or platform.machine())
    return f"{name}, family {told.get('cpu family', '?')} model {told.get('model', '?')}: {' '.join(units)}"


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """The first column to the left, the others to the right."""
    cells = [list(header), *([_text(value) for value in row] for row in rows)]
    widths = [max(len(text) for text in column) for column in zip(*cells, strict=True)]
    print(f"\n{title}")
    for first, *others in cells:
        right = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
        print("  ".join([first.ljust(widths[0]), *right]).rstrip())


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def save(name: str, result: Mapping[str, Any], folder: Path | None = None) -> None:
    """Write `NAME.json` with the machine's description beside the result."""
    folder = folder or REPOSITORY / "out"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    path.write_text(json.dumps({"machine": machine(), "command": command, **result}, indent=1) + "\n")
    print(f"\n{path}")
