"""What only a GPU can show: that it gives the CPU's numbers, and how fast it is. One device, under 8 minutes.

    make gpu-check                                         a table, and out/gpu_check.json with the device's name
    python benchmarks/gpu_check.py --device cpu --tiny     do the checks run at all?

Exit codes: 0 all within their limits, 1 some are not, 2 no CUDA device.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from _gpu_parity import Check, attention_backends, class_nms, clip_encoders, clusters, region_detectors
from _gpu_speed import TINY as TINY_TRAINING
from _gpu_speed import UNITER_BASE, pretraining, regions
from _measure import machine, matmul_rate, print_table, save
from _regions import Size, make_case

PICTURES = Size(images=6, short_side=600, long_side=1000, proposals=300)
TINY_PICTURES = Size(images=1, short_side=64, long_side=96, proposals=12)
PARTS = 32
"""Copies of the pictures; the first warms up."""
SPEED_LIMITS = (
    ("regions, bf16: head_utilisation", 0.40, None),
    ("regions, fp16: head_utilisation", 0.40, None),
    ("regions, bf16: share_waiting_for_pictures", None, 0.05),
    ("pretraining, bf16: utilisation", 0.45, None),
)
"""Least and most."""


def parity(device: str, *, small: bool) -> list[Check]:
    """Every comparison with the CPU, printed."""
    checks = [
        check
        for part in (region_detectors, class_nms, clip_encoders, attention_backends, clusters)
        for check in part(device, small=small)
    ]
    print_table(f"{device} against the CPU", ["", "found", "limit", ""], [_row(check) for check in checks])
    return checks


def speed(device: str, *, small: bool) -> tuple[dict[str, dict[str, float]], list[Check]]:
    """Throughput of the region stage by precision and of a pretraining step, printed."""
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="vlprep-gpu-") as scratch:
        size, copies = (TINY_PICTURES, 2) if small else (PICTURES, PARTS)
        case = make_case(Path(scratch), size, copies=copies, random=small)
        for precision in ("fp32",) if small else ("fp32", "bf16", "fp16"):
            figures[f"regions, {precision}"] = regions(case, precision, device, Path(scratch) / precision, parts=copies)
    figures["pretraining, bf16"] = pretraining(TINY_TRAINING if small else UNITER_BASE, device)
    lines = [(f"{part}: {name}", value) for part, told in figures.items() for name, value in told.items()]
    print_table("Speed", ["", "found"], lines)
    found = dict(lines)
    checks = [] if small else [Check(name, found[name], least, most) for name, least, most in SPEED_LIMITS]
    if checks:
        print_table("Speed against its targets", ["", "found", "limit", ""], [_row(check) for check in checks])
    return figures, checks


def _row(check: Check) -> list[object]:
    limit = f">= {check.least:g}" if check.least is not None else f"<= {check.most:g}"
    return [check.name, check.value, limit, "ok" if check.passed else "FAILED"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small enough for a test on a CPU; no limits on speed")
    parser.add_argument("--out", type=Path, help="folder for gpu_check.json  [default: out/]")
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        print("gpu_check: this machine has no CUDA device", file=sys.stderr)
        sys.exit(2)
    told = machine()
    print(f"{told.get('gpu', told['cpu'])}; torch {told['torch']}")
    print(f"matrix products in bf16: {matmul_rate(torch.bfloat16, options.device) / 1e12:.3g} TFLOP/s")
    checks = parity(options.device, small=options.tiny)
    figures, limits = speed(options.device, small=options.tiny)
    checks += limits
    results = [{"name": check.name, "value": check.value, "passed": check.passed} for check in checks]
    save("gpu_check", {"device": options.device, "checks": results, "speed": figures}, options.out)
    sys.exit(0 if all(check.passed for check in checks) else 1)


if __name__ == "__main__":
    main()
