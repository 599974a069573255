"""What the region benchmarks run: pictures, weights, the usual way, ours.

Shape suffixes: R regions, k kept, D feature size, K classes.
"""

from __future__ import annotations

import base64
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from _measure import SHARED, TESTS, Steps
from numpy.typing import NDArray
from torch import Tensor

from vlprep.detect.anchors import map_anchors
from vlprep.detect.base import Regions
from vlprep.detect.butd import BUTD
from vlprep.detect.detector import RegionDetector
from vlprep.detect.head import stream
from vlprep.detect.proposals import propose
from vlprep.detect.resize import resize
from vlprep.detect.selection import CaffeRule, select
from vlprep.detect.spec import RegionSpec
from vlprep.engines.base import Job, PartDone
from vlprep.media.image import read_image
from vlprep.media.scenes import write_coco_folder
from vlprep.networks.exact import exact
from vlprep.shards import StoreReader
from vlprep.stages.extract_regions import Precision, RegionSettings, region_stage
from vlprep.stages.region_rows import by_confidence, region_row
from vlprep.stages.region_worker import RegionWorker

sys.path.insert(0, str(TESTS))
from detect.networks import GOLDEN_FOLDERS, published_weights
from detect.published import PublishedNetwork, max_conf_by_loop

FEWEST, MOST = 10, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much work an image is."""

    images: int
    short_side: int
    long_side: int
    proposals: int

    @property
    def spec(self) -> RegionSpec:
        return replace(BUTD, short_side=self.short_side, long_side=self.long_side, post_nms=self.proposals)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One family's weights and some pictures on disk."""

    size: Size
    dataset: Path
    images: tuple[Path, ...]
    arrays: dict[str, Tensor]
    checkpoint: Path
    golden: bool
    """The weights are those of the reference outputs, whose scores vary from region to region; else random ones."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is written of one image, in float32."""

    boxes_k4: NDArray[np.float32]
    features_kD: NDArray[np.float32]
    proposals_R4: NDArray[np.float32] | None = None
    """All, with their features, where they are at hand."""
    features_RD: NDArray[np.float32] | None = None


def make_case(folder: Path, size: Size, *, copies: int = 1, random: bool = False) -> Case:
    """Write pictures and a checkpoint in the published form below `folder`, each picture `copies` times."""
    dataset = folder / "pictures"
    for copy in range(copies):
        _write_pictures(dataset / f"copy-{copy:03}", size.images)
    golden = (SHARED / "golden/butd").is_dir() and not random
    arrays = family_arrays(BUTD) if golden else _random_arrays(BUTD)
    checkpoint = folder / "pytorch_model.bin"
    torch.save(arrays, checkpoint)
    return Case(
        size=size,
        dataset=dataset,
        images=tuple(sorted((dataset / "copy-000").rglob("*.jpg"))),
        arrays=arrays,
        checkpoint=checkpoint,
        golden=golden,
    )


def _write_pictures(folder: Path, count: int) -> None:
    photographs = sorted((SHARED / "samples/coco/train2014").glob("*.jpg"))[:count]
    folder.mkdir(parents=True)
    if len(photographs) < count:
        write_coco_folder(folder, count - len(photographs))
    for photograph in photographs:
        shutil.copy(photograph, folder)


def family_arrays(spec: RegionSpec) -> dict[str, Tensor]:
    """A family's weights: those of the reference outputs where they are at hand, else random ones."""
    golden = SHARED / "golden" / GOLDEN_FOLDERS[spec.name]
    return _golden_arrays(golden) if golden.is_dir() else _random_arrays(spec)


def _golden_arrays(folder: Path) -> dict[str, Tensor]:
    sys.path.insert(0, str(folder.parent))
    import golden_weights

    return {name: torch.as_tensor(array) for name, array in golden_weights.load(folder).items()}


def _random_arrays(spec: RegionSpec) -> dict[str, Tensor]:
    arrays = published_weights(spec)
    for name, array in arrays.items():
        if name.endswith("conv3.norm.weight"):
            array *= 0.25  # else 33 residual blocks double the activations 33 times
    return arrays


class UsualWay:
    """One image at a time, float32, modules as published, NMS class by class, a line of base64 an image."""

    def __init__(self, case: Case) -> None:
        self.spec = case.size.spec
        self.network = PublishedNetwork(self.spec).eval()
        self.network.load_state_dict(case.arrays)
        self._cell_A4 = case.arrays["proposal_generator.anchor_generator.cell_anchors.0"]

    @torch.inference_mode()
    def __call__(self, path: Path, steps: Steps) -> Kept:
        network = self.network
        with steps("decode"):
            image = read_image(path)
        with steps("resize"):
            resized = resize(image, self.spec)
        with steps("backbone"):
            map_1Chw = network.map(resized.pixels_3hw)
        with steps("proposals"):
            anchors = map_anchors(self._cell_A4, *map_1Chw.shape[2:])
            size = (resized.pixels_3hw.shape[1], resized.pixels_3hw.shape[2])
            boxes_R4, _ = propose(*network.rpn(map_1Chw), anchors, self.spec, size, resized.scale_xy)
        with steps("region head"):
            features_RD = network.features(map_1Chw, boxes_R4)
        with steps("scores"):
            class_probs_RK, _, _ = network.scores(features_RD)
        with steps("selection"):
            original_R4 = boxes_R4 / boxes_R4.new_tensor(resized.scale_xy * 2)
            keep_k = self._selected(original_R4, features_RD, class_probs_RK)
        with steps("write"):
            kept = Kept(
                proposals_R4=original_R4.numpy(),
                features_RD=features_RD.numpy(),
                boxes_k4=original_R4[keep_k].numpy(),
                features_kD=features_RD[keep_k].numpy(),
            )
            "\t".join(base64.b64encode(column).decode() for column in (kept.boxes_k4, kept.features_kD))
        return kept

    @staticmethod
    def _selected(boxes_R4: Tensor, features_RD: Tensor, class_probs_RK: Tensor) -> Tensor:
        """As LXMERT's and UNITER's extraction scripts."""
        foreground_RK, background_R = class_probs_RK[:, :-1], class_probs_RK[:, -1]
        regions = Regions(boxes_R4, background_R, features_RD, foreground_RK, background_R, boxes_R4)
        rule = CaffeRule(min_boxes=FEWEST, max_boxes=MOST)
        max_conf_R = max_conf_by_loop(regions, rule.nms, plus_one=True)
        keep_k = (max_conf_R >= rule.threshold).nonzero().flatten()
        if FEWEST <= len(keep_k) <= MOST:
            return keep_k
        return max_conf_R.sort(descending=True).indices[: min(max(len(keep_k), FEWEST), MOST)]


class OurWay:
    """The stage's own worker in this process: reads ahead, batches, writes behind."""

    def __init__(self, case: Case, precision: Precision, store: Path, *, device: str = "cpu", threads: int = 1) -> None:
        size = case.size
        self.case, self.device = case, device
        settings = RegionSettings(
            detector="butd",
            weights=str(case.checkpoint),
            selection="caffe",
            boxes=f"{FEWEST}-{MOST}",
            precision=precision,
            store_dtype="float32",
            overrides={"short_side": size.short_side, "long_side": size.long_side, "post_nms": size.proposals},
        )
        stage = region_stage(case.dataset, settings).at(store)
        self.store = stage.open()
        self.store.plan(stage.items, part_size=size.images)
        self.worker = RegionWorker(device=device, threads=threads, store=self.store, **stage.arguments)
        self.detector = self.worker.detector

    def run(self, part: int) -> PartDone:
        """Do all pictures of one copy."""
        return self.worker.run(Job(part), _NoBeat())

    def kept(self) -> list[Kept]:
        """What the store has of the first copy, in order of the pictures."""
        rows = [row for row in StoreReader(self.store.folder) if row["id"].startswith("copy-000")]
        return [Kept(row["boxes"], row["features"]) for row in rows]

    def features_at(self, path: Path, boxes_R4: NDArray[np.float32]) -> Tensor:
        """Features of given boxes, which no ranking touches."""
        return self.detector.detect([self.detector.prepare(read_image(path))], [boxes_R4])[0].features_RD.cpu()

    def apart(self, path: Path, steps: Steps) -> None:
        """The same work step by step, one image at a time."""
        detector = self.detector
        assert isinstance(detector, RegionDetector)
        with steps("decode"):
            image = read_image(path)
        with steps("resize"):
            prepared = detector.prepare(image)
        with exact():
            network = detector.network
            with steps("backbone"):
                kind = next(network.backbone.parameters()).dtype
                pixels_13hw = prepared.pixels[None].to(self.device, kind, memory_format=torch.channels_last)
                map_1Chw = network.backbone(pixels_13hw)
            with steps("proposals"):
                logits_1N, deltas_1N4 = network.rpn(map_1Chw)
                anchors_N4 = map_anchors(network.rpn.anchors_A4.float(), *map_1Chw.shape[2:])
                size = (prepared.pixels.shape[1], prepared.pixels.shape[2])
                boxes_R4, objectness_R = propose(
                    logits_1N[0], deltas_1N4[0], anchors_N4, detector.spec, size, prepared.scale_xy
                )
            with steps("region head"):
                [features_RD] = stream(detector.head, [map_1Chw[0]], [boxes_R4])
            with steps("scores"):
                predictions = network.predictor(features_RD)
            with steps("selection"):
                regions = Regions(
                    boxes_R4 / boxes_R4.new_tensor(prepared.scale_xy * 2),
                    objectness_R,
                    features_RD,
                    predictions.class_probs_RK[:, :-1],
                    predictions.class_probs_RK[:, -1],
                    boxes_R4,
                    predictions.attribute_probs_RA,
                )
                chosen = by_confidence(select(regions, CaffeRule(min_boxes=FEWEST, max_boxes=MOST)))
            with steps("write"):
                region_row(prepared, regions, chosen, dtype="float32", soft_labels="full")


class _NoBeat:
    """Nobody watches this worker."""

    def begin(self, item: str) -> None: ...

    def set_aside(self, item: str) -> None: ...

    def done(self, item: str) -> None: ...
