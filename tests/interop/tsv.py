"""LXMERT's TSV, written by hand."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np

D = 8


def regions(count: int = 3, seed: int = 0) -> dict[str, Any]:
    """The values of one row, confidences not in order (as Caffe leaves them)."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 40, (count, 2))
    return {
        "img_h": 50,
        "img_w": 100,
        "objects_id": rng.integers(0, 1600, count),
        "objects_conf": rng.permutation(np.linspace(0.1, 0.9, count)).astype(np.float32),
        "attrs_id": np.zeros(count, np.int64),
        "attrs_conf": np.zeros(count, np.float32),
        "num_boxes": count,
        "boxes": np.concatenate([corners, corners + 5], 1).astype(np.float32),
        "features": rng.random((count, D)).astype(np.float32),
    }


def line(image_id: str, values: dict[str, Any], *, python3: bool = False, end: str = "\r\n") -> bytes:
    """`python3`: arrays as `b'...'`, as the writer for Python 2 leaves them when Python 3 runs it."""

    def cell(value: Any) -> str:
        if not isinstance(value, np.ndarray):
            return str(value)
        encoded = base64.b64encode(value.tobytes())
        return str(encoded) if python3 else encoded.decode()

    return ("\t".join([image_id, *map(cell, values.values())]) + end).encode()


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(lines))
    return path
