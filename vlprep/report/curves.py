"""The losses and validation figures of a run as a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_WIDTH, _HEIGHT = 4.2, 2.8
"""Inches of one panel."""


def draw_curves(entries: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draw the entries of `metrics.jsonl` to a PNG: one panel a figure, training and validation in it together.

    A figure "without" (another sample's image or text) is drawn beside the one with.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, and a second to import
    from matplotlib.figure import Figure

    panels: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        values = entry["losses"] if entry["kind"] == "train" else entry["figures"]
        for name, value in values.items():
            figure = name.removesuffix(" without")
            figure = figure if "/" in figure else f"{figure}/loss"
            label = entry["kind"] + (" without" if name.endswith(" without") else "")
            if value is not None:
                panels[figure][label].append((entry["step"], value))
    columns = min(3, max(1, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    page = Figure(figsize=(_WIDTH * columns, _HEIGHT * rows), layout="constrained")
    for place, (name, lines) in enumerate(sorted(panels.items()), start=1):
        axes = page.add_subplot(rows, columns, place)
        for label, points in sorted(lines.items()):
            style = "-" if label == "train" else "o--"
            axes.plot(*zip(*points, strict=True), style, label=label, linewidth=1.2, markersize=3)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    FigureCanvasAgg(page).print_png(str(path))
    return path
