"""S3D and S3D-G: one network, torchvision's, for every published checkpoint.

Xie et al., Rethinking Spatiotemporal Feature Learning, 2018. What differs between the files:

| file | stem | pools | gates | batch norm's eps |
| --- | --- | --- | --- | --- |
| kylemin `S3D_kinetics400.pt`, torchvision's `s3d-*.pth` | separable 7 | symmetric | none | 1e-3 |
| MIL-NCE `s3d_howto100m.pth` | 2x2x2 space to depth, then (2, 4, 4) | SAME | all | 1e-5 |
| trained with the MIL-NCE repository | (3, 7, 7), stride 2 | SAME | all | 1e-5 |

Trunks are `torchvision.models.video.S3D.features`, whose positions name the layers here; MIL-NCE's are in
`vlprep.networks.s3dg`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn
from torchvision.models.video.s3d import S3D

from vlprep.clips.network import Arrays, ClipNetwork
from vlprep.networks.s3dg import CHANNELS, STEM_KERNEL, from_published, make_trunk, stem_of


def make_s3d(_: Mapping[str, Tensor] | None = None) -> ClipNetwork:
    """S3D of Kinetics-400: 1024 channels, 400 classes."""
    network = S3D(num_classes=400)
    classifier = network.classifier[1]
    return ClipNetwork(network.features, nn.Linear(classifier.in_channels, classifier.out_channels))


def rename_s3d(arrays: Arrays) -> Arrays:
    """From kylemin's names or torchvision's."""
    renamed = {}
    for name, value in arrays.items():
        for pattern, by in _KYLEMIN:
            name = re.sub(pattern, by, name)
        is_classifier = name.startswith("head.weight")
        renamed[name] = value.flatten(1) if is_classifier else value
    return renamed


_KYLEMIN = (
    (r"^(base|features)\.", "trunk."),
    (r"^(fc\.0|classifier\.1)\.", "head."),
    (r"\.branch0\.0\.conv\.", ".branch0.0."),
    (r"\.branch0\.0\.bn\.", ".branch0.1."),
    (r"\.conv_s\.", ".0.0."),
    (r"\.bn_s\.", ".0.1."),
    (r"\.conv_t\.", ".1.0."),
    (r"\.bn_t\.", ".1.1."),
    (r"\.conv\.", ".0."),
    (r"\.bn\.", ".1."),
)


def make_s3d_howto100m(arrays: Mapping[str, Tensor] | None = None) -> ClipNetwork:
    """S3D-G of MIL-NCE: 1024 channels (`mixed_5c`) and their projection to the 512 of the joint space."""
    kernel = None if arrays is None else arrays.get(f"trunk.{STEM_KERNEL}")
    stem = "space-to-depth" if kernel is None else stem_of(kernel)
    return ClipNetwork(make_trunk(stem), nn.Linear(CHANNELS, 512))


def rename_s3d_howto100m(arrays: Arrays) -> Arrays:
    """From MIL-NCE's names; the text tower's are left out."""
    head = {name.replace("fc.", "head."): value for name, value in arrays.items() if name.startswith("fc.")}
    return head | {f"trunk.{name}": value for name, value in from_published(arrays).items()}
