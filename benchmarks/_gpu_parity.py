"""Whether a device gives the CPU's numbers. Each function returns `Check`s; on the CPU itself they test only the code.

Shape suffixes: R regions, K classes, N vectors or clips, D feature size, T packed tokens, H heads, E size of a head, 4
corners of a box.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from _regions import family_arrays
from detect.networks import picture, published_weights, tiny
from torch import Tensor
from torch.nn.functional import cosine_similarity

from vlprep.clips.encoder import build_encoder
from vlprep.cluster.assign import Assigner, AssignRule
from vlprep.cluster.train import TrainSettings, train
from vlprep.detect.base import Detector
from vlprep.detect.boxes import pairwise_iou
from vlprep.detect.butd import BUTD, BUTD_CAFFE
from vlprep.detect.checkpoints import load_checkpoint
from vlprep.detect.detector import RegionDetector
from vlprep.detect.families import build_detector
from vlprep.detect.network import RegionNetwork
from vlprep.detect.selection import rank_parallel_nms, settled_nms
from vlprep.detect.spec import RegionSpec
from vlprep.media.scenes import random_scene, render
from vlprep.pretrain.attention import Backend, Layout, attend
from vlprep.weights import WeightsRecord

LOW_PRECISIONS = ("bf16", "fp16")
CLIPS = ("resnet152", "resnext101", "s3d", "s3d-howto100m")


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table."""

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def passed(self) -> bool:
        low = -np.inf if self.least is None else self.least
        high = np.inf if self.most is None else self.most
        return bool(low <= self.value <= high)


def region_detectors(device: str, *, small: bool) -> Iterator[Check]:
    """Proposals, features of given boxes and classes of both bottom-up-attention forms, and of `demo`."""
    for spec in (BUTD, BUTD_CAFFE):
        spec = replace(tiny(spec) if small else spec, short_side=240, long_side=400, post_nms=50)
        arrays = published_weights(spec) if small else family_arrays(spec)
        yield from _region_family(spec, arrays, device)
    here, there = (build_detector("demo", device=where) for where in ("cpu", device))
    scene = render(random_scene(3))
    yield Check("demo: proposals that are the CPU's", _equal_proposals(here, there, scene), least=0.95)


def _region_family(spec: RegionSpec, arrays: dict[str, Tensor], device: str) -> Iterator[Check]:
    image = picture()
    given = np.array([(5, 5, 90, 60), (40, 10, 200, 150), (0, 0, 260, 180), (100, 60, 180, 170)], np.float32)
    here = _detector(spec, arrays, "cpu", "fp32")
    [reference] = here.detect([here.prepare(image)], [given])
    for precision in ("fp32", *LOW_PRECISIONS):
        there = _detector(spec, arrays, device, precision)
        [found] = there.detect([there.prepare(image)], [given])
        label = f"{spec.name}, {precision}"
        if precision == "fp32":
            yield Check(f"{label}: proposals that are the CPU's", _equal_proposals(here, there, image), least=0.95)
            yield Check(f"{label}: features, over max", over_max(found.features_RD, reference.features_RD), most=1e-4)
            gap = float((found.class_probs_RK.cpu() - reference.class_probs_RK).abs().max())
            yield Check(f"{label}: class probabilities", gap, most=1e-3)
        else:
            yield Check(f"{label}: least cosine", cosine(found.features_RD, reference.features_RD), least=0.999)


def _detector(spec: RegionSpec, arrays: dict[str, Tensor], device: str, precision: str) -> RegionDetector:
    network = RegionNetwork(spec)
    load_checkpoint(network, arrays, spec, "benchmark")
    return RegionDetector(
        spec,
        network,
        weights=WeightsRecord("benchmark", ""),
        class_names=(),
        attribute_names=(),
        device=torch.device(device),
        precision=precision,
    )


def _equal_proposals(here: Detector, there: Detector, image: np.ndarray) -> float:
    """Share of the CPU's proposals that are there within half a pixel."""
    boxes = [where.detect([where.prepare(image)])[0].proposals_R4.cpu() for where in (here, there)]
    gaps = (boxes[0][:, None] - boxes[1][None]).abs().amax(dim=2)
    return float((gaps.amin(dim=1) <= 0.5).float().mean())


def class_nms(device: str, *, small: bool) -> Iterator[Check]:
    """The way of a GPU against the loop of the CPU."""
    draw = torch.Generator().manual_seed(0)
    corners = torch.rand(40 if small else 300, 2, 2, generator=draw) * 600
    overlaps_RR = pairwise_iou(torch.cat((corners.amin(1), corners.amax(1) + 20), 1), plus_one=True) > 0.3
    scores_RK = (3 * torch.randn(len(corners), 20 if small else 1600, generator=draw)).softmax(1)
    found_RK = settled_nms(scores_RK.to(device), overlaps_RR.to(device)).cpu()
    same = float((found_RK == rank_parallel_nms(scores_RK, overlaps_RR)).float().mean())
    yield Check("NMS class by class: survivors that are the CPU's", same, least=1.0)


def clip_encoders(device: str, *, small: bool) -> Iterator[Check]:
    """Features of random pixels by made-up weights."""
    rng = np.random.default_rng(0)
    for name in CLIPS[:1] if small else CLIPS:
        reference = build_encoder(name, weights="random:0")
        frames, side = reference.spec.network_frames, 64 if small else 112
        clips_NTHW3 = rng.integers(0, 256, (2, frames, side, side, 3), dtype=np.uint8)
        expected_ND = reference.encode(clips_NTHW3)
        found_ND = build_encoder(name, weights="random:0", device=device).encode(clips_NTHW3)
        yield Check(f"{name}, fp32: features, over max", over_max(found_ND, expected_ND), most=1e-4)
        if not small:  # no fp16: made-up weights overflow it after 50 residual blocks
            found_ND = build_encoder(name, weights="random:0", device=device, precision="bf16").encode(clips_NTHW3)
            yield Check(f"{name}, bf16: least cosine", cosine(found_ND, expected_ND), least=0.999)


def attention_backends(device: str, *, small: bool) -> Iterator[Check]:
    """Each backend against the padded one on the CPU; the variable-length kernel runs in bf16 on a GPU only."""
    lengths_B = torch.tensor((7, 3, 12) if small else (120, 37, 64, 200, 9))
    size_TNE = (int(lengths_B.sum()), 2 if small else 12, 64)
    query, key, value = torch.randn(3, *size_TNE, generator=torch.Generator().manual_seed(0)).unbind()
    expected_TNE = attend(query, key, value, Layout(lengths_B, torch.device("cpu")), 0.0)
    backends: dict[Backend, torch.dtype] = {"padded": torch.float32, "jagged": torch.float32}
    if device != "cpu":
        backends["varlen"] = torch.bfloat16
    for backend, dtype in backends.items():
        layout = Layout(lengths_B, torch.device(device), backend)
        found_TNE = attend(*(part.to(device, dtype) for part in (query, key, value)), layout, 0.0)
        limit = 1e-4 if dtype == torch.float32 else 2e-2
        yield Check(f"attention {backend}: over max", over_max(found_TNE, expected_TNE), most=limit)


def clusters(device: str, *, small: bool) -> Iterator[Check]:
    """Tokens by the tree and by a beam."""
    vectors, dim, depth = (400, 16, 2) if small else (60_000, 256, 3)
    sample_ND = np.random.default_rng(0).standard_normal((vectors, dim), np.float32)
    vocabulary = train(sample_ND, TrainSettings(branching=4 if small else 12, depth=depth, iterations=5))
    for rule in ("tree", "beam:4"):
        expected, _ = Assigner(vocabulary, AssignRule.parse(rule))(sample_ND)
        found, _ = Assigner(vocabulary, AssignRule.parse(rule), device)(sample_ND)
        yield Check(f"k-means, {rule}: tokens that are the CPU's", float((found == expected).mean()), least=0.999)


def over_max(found: Tensor, expected: Tensor) -> float:
    """Largest difference over largest expected value."""
    return float((found.float().cpu() - expected).abs().max() / expected.abs().max())


def cosine(found_ND: Tensor, expected_ND: Tensor) -> float:
    """The least of the rows."""
    return float(cosine_similarity(found_ND.float().cpu(), expected_ND).min())
