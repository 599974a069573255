"""From a detector's tensors to the columns of a regions store.

Shape suffixes: R regions of one image that are kept (k where a selection names them), D feature size, K foreground
classes, A attributes, T the most probable classes of each region.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlprep.detect.base import PreparedImage, Regions
from vlprep.detect.selection import Selection
from vlprep.shards.schema import SoftLabels, StoreType

_DTYPES: dict[StoreType, torch.dtype] = {"float16": torch.float16, "float32": torch.float32}


def by_confidence(chosen: Selection) -> Selection:
    """The same regions, the most confident first; equal ones stay in order."""
    order_R = chosen.max_conf_k.sort(descending=True, stable=True).indices
    return Selection(chosen.keep_k[order_R], chosen.max_conf_k[order_R], chosen.boxes_k4[order_R])


def region_row(
    image: PreparedImage, found: Regions, chosen: Selection, *, dtype: StoreType, soft_labels: SoftLabels
) -> dict[str, Any]:
    """The columns of `vlprep.shards.schema.regions_schema` but for id, path and source_id, on the CPU.

    Everything is cut to size and type on the regions' own device, so that little is copied from it.
    """
    real = _DTYPES[dtype]
    regions = found.rows(chosen.keep_k)
    row = {
        "boxes": chosen.boxes_k4,
        "proposals": regions.proposals_R4,
        "features": regions.features_RD.to(real),
        "object_ids": regions.class_probs_RK.argmax(dim=1),
        "max_conf": chosen.max_conf_k.to(real),
        "background_prob": regions.background_R.to(real),
    }
    if soft_labels == "full":
        row["class_probs"] = regions.class_probs_RK.to(real)
    elif soft_labels != "none":
        class_probs_RT, class_ids_RT = regions.class_probs_RK.topk(soft_labels, dim=1)
        remainder_R = (regions.class_probs_RK.sum(dim=1) - class_probs_RT.sum(dim=1)).clamp(min=0)
        row |= {
            "class_ids": class_ids_RT,
            "class_probs": class_probs_RT.to(real),
            "remainder_prob": remainder_R.to(real),
        }
    if regions.attribute_probs_RA is not None:
        row["attribute_probs"] = regions.attribute_probs_RA.to(real)
    return {"width": image.width, "height": image.height, **{name: _array(column) for name, column in row.items()}}


def _array(column: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = column.cpu().numpy()
    return np.ascontiguousarray(array)
