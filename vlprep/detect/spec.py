"""A detector family as data: every choice in which the bottom-up-attention family's published forms differ.

One network (`vlprep.detect.network`) serves all of them. The values come from the prototxt of
peteanderson80/bottom-up-attention, airsplay/py-bottom-up-attention with Hugging Face's port of it, and
MILVLG/bottom-up-attention.pytorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Resizer = Literal["hf_float", "caffe_cv2", "pb_pil"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorSpec:
    """Anchors of one map cell, used where a checkpoint has none of its own."""

    sizes: tuple[float, ...]
    """Side of the square anchors, in network pixels."""
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width."""
    convention: Literal["caffe", "detectron"]
    """`caffe`: whole pixels, centred on 7.5, all sizes of a ratio together. `detectron`: centred on 0, all ratios of a
    size together."""

    def __len__(self) -> int:
        return len(self.sizes) * len(self.ratios)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionSpec:
    """One family: what its pixels, network, boxes and checkpoint files look like."""

    name: str

    # Pixels. Channels are always in BGR order, in grey levels.
    resizer: Resizer
    pixel_mean: tuple[float, float, float] = (102.9801, 115.9465, 122.7717)
    short_side: int = 600
    long_side: int = 1000

    # Backbone: a ResNet up to its fourth stage.
    blocks: tuple[int, int, int, int] = (3, 4, 23, 3)
    width: int = 64
    """Channels of the stem; the stages have 4, 8, 16 and 32 times as many."""
    stem_pool: Literal["caffe", "padded"] = "caffe"
    """3×3 with stride 2: without padding and rounded up, or with padding 1 and rounded down."""
    stride_in: Literal["1x1", "3x3"] = "1x1"
    """The convolution of a stage's first block that halves the map."""
    preactivation: bool = False
    """Norm and ReLU stand before the convolutions (ResNet v2), and a norm on the pixels."""
    norm_eps: float = 1e-5

    # Proposals.
    rpn_width: int = 512
    anchors: AnchorSpec
    pre_nms: int = 6000
    post_nms: int = 300
    rpn_nms: float = 0.7

    # Box convention.
    plus_one: bool
    """Corners are whole pixels inside the box: a side is x2 - x1 + 1, and boxes are clipped to w - 1."""
    min_side: float = 0.0
    """Proposals must have longer sides than this, in pixels of the original image."""
    filter_first: bool = False
    """Small boxes are dropped before the best `pre_nms` are taken, not after."""
    box_weights: tuple[float, float, float, float]
    """The second stage's deltas are divided by these."""

    # Region head.
    roi_op: Literal["max", "align"] = "max"
    roi_size: int = 14
    sampling: int = 0
    """Samples a side of each bin in `align`; 0 takes as many as the bin has cells."""
    res5_stride: int = 1
    res5_dilation: int = 2

    # Classes.
    classes: int = 1600
    attributes: int = 400
    """0 for a family without."""
    attribute_none: bool = True
    """One more attribute column says "none of them"."""

    # How the family's files differ from the network's own form (background last, one logit an anchor).
    background_first: bool = False
    """Also of the "none" attribute."""
    rpn_logits: Literal[1, 2] = 1
    """Per anchor; 2 are background and foreground."""

    default_selection: Literal["caffe", "max-class"] = "caffe"

    @property
    def feature_dim(self) -> int:
        """Channels of the last stage."""
        return 32 * self.width

    @property
    def attribute_columns(self) -> int:
        """Of the attribute head, with "none" where the family has it."""
        return self.attributes + int(self.attribute_none and self.attributes > 0)
