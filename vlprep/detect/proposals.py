"""From the proposal head's logits and deltas to the boxes that regions are pooled from.

Shape suffixes: N anchors of the map, R proposals.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlprep.detect.boxes import clip, decode, longer_than, nms
from vlprep.detect.spec import RegionSpec

_UNWEIGHTED = (1.0, 1.0, 1.0, 1.0)


def propose(
    logits_N: Tensor,
    deltas_N4: Tensor,
    anchors_N4: Tensor,
    spec: RegionSpec,
    size_hw: tuple[int, int],
    scale_xy: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """Return (R, 4) proposals in network pixels and their logits, best first, R at most `spec.post_nms`.

    Sources: `proposal_layer.py` of py-faster-rcnn and `rpn_outputs.py` of MILVLG/bottom-up-attention.pytorch
    (`filter_first`), `find_top_rpn_proposals` of detectron2 (otherwise). Equal logits keep the anchors' order.

    Args:
        logits_N: Objectness before the sigmoid, which is also Caffe's two-way softmax of their difference.
        deltas_N4: For the same anchors.
        anchors_N4: In network pixels.
        spec: The family.
        size_hw: Sides of the network's input.
        scale_xy: Original pixels times this are network pixels.
    """
    least = (spec.min_side * scale_xy[0], spec.min_side * scale_xy[1])

    def boxes_of(rows: Tensor) -> Tensor:
        moved = decode(anchors_N4[rows], deltas_N4[rows], weights=_UNWEIGHTED, plus_one=spec.plus_one)
        return clip(moved, *size_hw, plus_one=spec.plus_one)

    ranked = torch.sort(logits_N, descending=True, stable=True).indices
    if not spec.filter_first:
        ranked = ranked[: spec.pre_nms]
    boxes_R4 = boxes_of(ranked)
    usable = longer_than(boxes_R4, least, plus_one=spec.plus_one)
    boxes_R4, ranked = boxes_R4[usable][: spec.pre_nms], ranked[usable][: spec.pre_nms]
    kept = nms(boxes_R4, logits_N[ranked], spec.rpn_nms, plus_one=spec.plus_one)[: spec.post_nms]
    return boxes_R4[kept], logits_N[ranked[kept]]
