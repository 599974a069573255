"""Regions: ours against the usual way, in CPU seconds an image, in one run; and where the time goes.

    python benchmarks/regions.py            three photographs at 600/1000, 150 proposals: 3 to 6 minutes
    python benchmarks/regions.py --full     300 proposals, all six photographs
    python benchmarks/regions.py --tiny     does it run at all?

The usual way (`_regions.UsualWay`) has the same weights and the same arithmetic in the published arrangement. Each
round runs it on every picture, then ours in each precision; the fastest round of each counts.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _measure import Steps, machine, matmul_rate, print_table, save, seconds_of
from _regions import Case, Kept, OurWay, Size, UsualWay, make_case

QUICK = Size(images=3, short_side=600, long_side=1000, proposals=150)
FULL = Size(images=6, short_side=600, long_side=1000, proposals=300)
TINY = Size(images=2, short_side=64, long_side=96, proposals=12)
NUMBER_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SAME_BOX = 0.5
"""Pixels of the original between corners of what counts as the same box."""


def compare(size: Size, *, rounds: int, random: bool) -> dict[str, Any]:
    """Time both ways, compare what they give, and print the tables."""
    with tempfile.TemporaryDirectory(prefix="vlprep-bench-") as scratch:
        case = make_case(Path(scratch), size, copies=rounds, random=random)
        usual = UsualWay(case)
        ours = {precision: OurWay(case, precision, Path(scratch) / precision) for precision in NUMBER_TYPES}
        seconds: dict[str, list[float]] = {"usual": [], **{precision: [] for precision in NUMBER_TYPES}}
        expected: list[Kept] = []
        usual_steps = Steps()
        for part in range(rounds):
            steps = Steps()
            expected = [usual(path, steps) for path in case.images]
            seconds["usual"].append(sum(steps.seconds.values()))
            if seconds["usual"][-1] == min(seconds["usual"]):
                usual_steps = steps
            for precision, way in ours.items():
                seconds[precision].append(seconds_of(lambda way=way, part=part: way.run(part)))
        result = {
            "size": {name: getattr(size, name) for name in Size.__slots__},
            "weights": "golden" if case.golden else "random",
            "matmul_gflops": {name: matmul_rate(kind) / 1e9 for name, kind in NUMBER_TYPES.items()},
            "seconds_an_image": {name: min(runs) / size.images for name, runs in seconds.items()},
            "agreement": {name: agreement(way, case, expected) for name, way in ours.items()},
            "steps": {"usual": usual_steps.seconds, **{name: apart(way) for name, way in ours.items()}},
        }
    report(result)
    return result


def agreement(way: OurWay, case: Case, expected: list[Kept]) -> dict[str, float]:
    """How near ours comes to the usual way: whether the same boxes are kept, and features of equal boxes."""
    same = total = 0
    worst_box = worst_feature = 0.0
    cosines = []
    for found, wanted, path in zip(way.kept(), expected, case.images, strict=True):
        gaps = np.abs(found.boxes_k4[:, None] - wanted.boxes_k4[None]).max(axis=2)
        matched = gaps.min(axis=0) <= SAME_BOX
        same, total = same + int(matched.sum()), total + max(len(found.boxes_k4), len(wanted.boxes_k4))
        if matched.any():
            worst_box = max(worst_box, float(gaps.min(axis=0)[matched].max()))
        features = way.features_at(path, wanted.proposals_R4)
        reference = torch.from_numpy(wanted.features_RD)
        worst_feature = max(worst_feature, float((features - reference).abs().max() / reference.abs().max()))
        cosines.append(torch.nn.functional.cosine_similarity(features, reference))
    every = torch.cat(cosines)
    return {
        "equal_boxes": same / total,
        "box_px": worst_box,
        "feature_over_max": worst_feature,
        "cosine_least": float(every.min()),
        "cosine_mean": float(every.mean()),
    }


def apart(way: OurWay) -> dict[str, float]:
    steps = Steps()
    for path in way.case.images:
        way.apart(path, steps)
    return steps.seconds


def report(result: dict[str, Any]) -> None:
    """Everything as tables."""
    size, seconds, told = result["size"], result["seconds_an_image"], machine()
    print(f"{told['cpu']}; {told['threads']} thread(s); torch {told['torch']}")
    print(
        f"{size['images']} images at {size['short_side']}/{size['long_side']}, {size['proposals']} proposals, "
        f"{result['weights']} weights"
    )
    matmul = result["matmul_gflops"]
    print(
        f"matrix products reach {matmul['fp32']:.0f} GFLOP/s in fp32, {matmul['bf16']:.0f} in bf16 "
        f"({matmul['bf16'] / matmul['fp32']:.2f} times as many)"
    )
    rows: list[list[object]] = [["usual way, fp32", seconds["usual"], 1.0, "", "", "", ""]]
    for precision, agreed in result["agreement"].items():
        cells = [
            f"{100 * agreed['equal_boxes']:.1f} %",
            f"{agreed['box_px']:.4f}",
            f"{agreed['feature_over_max']:.1e}",
            f"{agreed['cosine_least']:.6f}",
        ]
        rows.append([f"vlprep, {precision}", seconds[precision], seconds["usual"] / seconds[precision], *cells])
    header = ["", "CPU s/image", "ratio", "equal boxes", "box px", "feature/max", "least cosine"]
    print_table("Ours against the usual way", header, rows)

    spent = {name: {step: s / size["images"] for step, s in steps.items()} for name, steps in result["steps"].items()}
    sums = {name: sum(steps.values()) for name, steps in spent.items()}
    table: list[list[object]] = [[step] for step in spent["usual"]]
    for row in table:
        for name, steps in spent.items():
            row += [steps[row[0]], f"{100 * steps[row[0]] / sums[name]:.1f} %"]
    table.append(["sum", *(cell for total in sums.values() for cell in (total, ""))])
    print_table("CPU seconds an image by step", ["", *(cell for name in spent for cell in (name, "share"))], table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="six images, 300 proposals")
    parser.add_argument("--tiny", action="store_true", help="small enough for a test; the figures mean nothing")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--random", action="store_true", help="random weights even where ../shared/golden is")
    parser.add_argument("--out", type=Path, help="folder for regions.json  [default: out/]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = TINY if options.tiny else FULL if options.full else QUICK
    result = compare(size, rounds=1 if options.tiny else options.rounds, random=options.random or options.tiny)
    save("regions", result, options.out)


if __name__ == "__main__":
    main()
