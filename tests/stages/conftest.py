"""A dataset that many tests share; and this folder's helper modules importable, as `tests` is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from stages.small_datasets import image_dataset

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_dataset(tmp_path_factory.mktemp("coco"))
