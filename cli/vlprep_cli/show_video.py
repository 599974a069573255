"""`vlprep show` for stores of videos: a video's tokens along its narration, or its clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from vlprep_cli.output import print_facts, print_json, print_table

if TYPE_CHECKING:
    from vlprep.datasets import Segment
    from vlprep.shards import Row


def show_tokens(dataset: Path, row: Row, *, as_json: bool) -> None:
    """Segments of the narration, each with the tokens of the clips whose middle lies in it."""
    from vlprep.datasets import open_dataset
    from vlprep.report.clock import clock_text
    from vlprep.stages.leaf_picture import Narrator

    lines = list(_along(row, Narrator(open_dataset(dataset)).segments(row["id"])))
    if as_json:
        print_json({"id": row["id"], "segments": lines})
        return
    print_facts([("video", row["id"]), ("clips", f"{len(row['tokens']):,}")])
    click.echo()
    print_table(
        ["start", "end", "said", "tokens"],
        (
            (
                clock_text(line["start"]),
                clock_text(line["end"]),
                line["text"] or "–",
                " ".join(map(str, line["tokens"])),
            )
            for line in lines
        ),
    )


def _along(row: Row, segments: Sequence[Segment]) -> Iterator[dict[str, Any]]:
    """By time: segments with their tokens (where they overlap, a clip is in each), and runs of clips in none."""
    middles_T = row["times"].mean(axis=1)
    silent = np.ones(len(middles_T), bool)
    lines = []
    for segment in segments:
        inside = (segment.start <= middles_T) & (middles_T < segment.end)
        silent &= ~inside
        lines.append(_line(segment.start, segment.end, segment.text, row["tokens"][inside]))
    for run in np.split(np.arange(len(silent)), np.flatnonzero(np.diff(silent)) + 1):
        if len(run) and silent[run[0]]:
            lines.append(_line(row["times"][run[0], 0], row["times"][run[-1], 1], "", row["tokens"][run]))
    yield from sorted(lines, key=lambda line: (line["start"], line["end"]))


def _line(start: float, end: float, text: str, tokens: Any) -> dict[str, Any]:
    return {"start": float(start), "end": float(end), "text": text, "tokens": tokens.tolist()}


def show_clips(row: Row, *, as_json: bool) -> None:
    """What is known of a video and of its clips: length of each feature, and how much differs from the one before."""
    from vlprep.report.clock import clock_text

    features_TD = row["features"].astype(np.float32)
    norms_T = np.linalg.norm(features_TD, axis=1)
    cosines = (features_TD[1:] * features_TD[:-1]).sum(1) / np.maximum(norms_T[1:] * norms_T[:-1], 1e-12)
    changes = [None, *(1 - cosines).tolist()]
    facts = {name: row[name] for name in ("id", "duration", "fps", "status", "frames", "errors")}
    if as_json:
        clips = zip(row["times"].tolist(), norms_T.tolist(), changes, strict=True)
        print_json(
            {**facts, "clips": [{"times": times, "norm": norm, "change": change} for times, norm, change in clips]}
        )
        return
    print_facts([(name, str(value)) for name, value in facts.items()])
    print_facts([("features", f"{features_TD.shape[0]:,} clips of {features_TD.shape[1]:,} numbers")])
    click.echo()
    print_table(
        ["start", "end", "norm", "change"],
        (
            (clock_text(start), clock_text(end), f"{norm:.3f}", "" if change is None else f"{change:.4f}")
            for (start, end), norm, change in zip(row["times"].tolist(), norms_T, changes, strict=True)
        ),
    )
