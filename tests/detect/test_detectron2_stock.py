"""What `d2` does with files that are not stock models, and its resizer. Its numbers: `test_detectron2_golden.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vlprep.detect import d2_stock
from vlprep.errors import SettingsError


def build(path: Path) -> None:
    d2_stock.build(weights=str(path), device="cpu", precision="fp32", overrides={})


def test_another_model_is_sent_to_the_library(tmp_path: Path) -> None:
    torch.save({"model": {"backbone.stages.0.weight": torch.zeros(2)}}, tmp_path / "swin.pth")
    with pytest.raises(SettingsError, match=r"swin\.pth: not a Faster R-CNN R50 or R101.*detectron2:CONFIG"):
        build(tmp_path / "swin.pth")


def test_a_mask_head_is_not_dropped_in_silence(tmp_path: Path) -> None:
    arrays = {f"backbone.bottom_up.res4.{block}.conv1.weight": torch.zeros(1) for block in range(6)}
    arrays |= {
        "backbone.fpn_lateral2.weight": torch.zeros(1),
        "roi_heads.box_predictor.cls_score.bias": torch.zeros(4),
        "roi_heads.mask_head.predictor.weight": torch.zeros(1),
    }
    torch.save(arrays, tmp_path / "mask.pth")
    with pytest.raises(SettingsError, match=r"mask\.pth: a checkpoint of another network"):
        build(tmp_path / "mask.pth")


@pytest.mark.parametrize(
    ("height", "width", "wanted"), [(480, 640, (800, 1067)), (640, 480, (1067, 800)), (300, 1000, (400, 1333))]
)
def test_shortest_edge(height: int, width: int, wanted: tuple[int, int]) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    assert d2_stock.resize_shortest_edge(image, short_side=800, long_side=1333).shape[:2] == wanted
