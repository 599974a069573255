"""A row of a regions store in words: each box with its class and the most probable classes by name.

Shape suffixes: R regions, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionView:
    """One region as people look at it."""

    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels of the image as a person sees it."""
    name: str
    """The most probable foreground class."""
    confidence: float
    """By the selection rule."""
    background: float | None
    """Its probability; None where the store has none."""
    likely: tuple[tuple[str, float], ...]
    """The most probable foreground classes, the first one first; empty where the store keeps no distribution."""


def region_views(row: Mapping[str, Any], class_names: Sequence[str], likely: int = 5) -> list[RegionView]:
    """All regions of a row, the most confident first (as they are stored), with at most `likely` classes each."""
    return [
        RegionView(
            box=tuple(row["boxes"][region].tolist()),
            name=_first_synonym(class_names[row["object_ids"][region]]),
            confidence=float(row["max_conf"][region]),
            background=float(row["background_prob"][region]) if "background_prob" in row else None,
            likely=_likely(row, region, class_names, likely),
        )
        for region in range(len(row["boxes"]))
    ]


def _likely(row: Mapping[str, Any], region: int, names: Sequence[str], count: int) -> tuple[tuple[str, float], ...]:
    if "class_probs" not in row:
        return ()
    probs_K = row["class_probs"][region]
    order = np.argsort(-probs_K, kind="stable")[:count]
    ids = row["class_ids"][region][order] if "class_ids" in row else order
    return tuple((_first_synonym(names[index]), float(probs_K[place])) for index, place in zip(ids, order, strict=True))


def _first_synonym(name: str) -> str:
    """Visual Genome's vocabulary writes `headboard,head board`."""
    return name.partition(",")[0]
