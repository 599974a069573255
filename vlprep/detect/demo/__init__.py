"""The `demo` detector: finds the coloured shapes of `vlprep.media.scenes`, with weights that come in the package.

It lets a newcomer see sense without a download, and tests check that what comes out is right. The weights are made by
`python -m vlprep.detect.demo.train`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from vlprep.detect.base import Detector
from vlprep.detect.demo.network import demo_network
from vlprep.detect.loading import load_network, overridden, random_network
from vlprep.detect.torchvision_faster_rcnn import torchvision_detector
from vlprep.media.scenes import CLASS_NAMES
from vlprep.weights import is_random, load_arrays, resolve

SHIPPED_WEIGHTS = Path(__file__).with_name("weights.safetensors")
_DEFAULTS = {"post_nms": 100}


def build(*, weights: str | None, device: str, precision: str, overrides: Mapping[str, Any]) -> Detector:
    """The detector on its device. Overrides: `post_nms`, how many regions an image keeps before selection."""
    make = partial(demo_network, **overridden(_DEFAULTS, overrides, "demo"))
    if is_random(weights):
        network, record = random_network(make, str(weights))
    else:
        path = SHIPPED_WEIGHTS if weights is None else resolve(weights)
        network, record = load_network(make, load_arrays(path), path=path, source=weights or "vlprep:demo")
    return torchvision_detector(
        network,
        name="demo",
        class_names=(None, *CLASS_NAMES),
        weights=record,
        device=device,
        precision=precision,
        settings={},
    )
