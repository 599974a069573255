"""`extract-regions`: from a folder of pictures to a regions store, on `vlprep.stages.run` and the detectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

from vlprep.datasets import open_dataset
from vlprep.datasets.boxes import boxes_by_item, load_boxes
from vlprep.detect.base import Detector
from vlprep.detect.families import build_detector, families
from vlprep.errors import SettingsError
from vlprep.shards import StoreSettings
from vlprep.shards.schema import SoftLabels, StoreType, regions_schema
from vlprep.stages.own_code import import_own
from vlprep.stages.run import OnStageEvent, PlanReport, RunSettings, Stage, StageReport, plan_stage, run_stage
from vlprep.weights import sha256_of

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionSettings:
    """What is extracted. All of it but the paths of files changes the numbers and enters the store's fingerprint."""

    detector: str = "butd"
    """A family (`vlprep.detect.families`), or `module:function` of one's own, called as the families' builders are."""
    weights: str | None = None
    """A path, `hf://owner/repo[/file]`, `random:SEED`, or None for the family's public place."""
    boxes: str = "10-100"
    """Boxes an image: `36`, or the fewest and the most, `10-100`."""
    selection: str | None = None
    """`caffe` or `max-class`; the family's own if None."""
    precision: Precision = "fp32"
    store_dtype: StoreType = "float16"
    soft_labels: str = "full"
    """`full`, `none`, or `topK` such as `top10`."""
    given_boxes: Path | None = None
    """Boxes to describe instead of proposals: JSONL, CSV or COCO instances."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """The family's own settings by name."""

    def __post_init__(self) -> None:
        box_limits(self.boxes)
        soft_labels(self.soft_labels)
        for option, value, choices in (
            ("--precision", self.precision, get_args(Precision)),
            ("--store-dtype", self.store_dtype, get_args(StoreType)),
        ):
            if value not in choices:
                raise SettingsError(f"{option} {value}: one of {', '.join(choices)}")

    def rule_name(self, detector: Detector) -> str:
        """The selection rule by its name, `given` included."""
        return "given" if self.given_boxes else self.selection or detector.default_selection


def box_limits(text: str) -> tuple[int, int]:
    """The fewest and the most boxes that `36` or `10-100` mean."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    fewest, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= fewest <= most:
        raise SettingsError(f"--boxes {text}: write 36, or the fewest and the most, such as 10-100")
    return fewest, most


def soft_labels(text: str) -> SoftLabels:
    """What `full`, `none` or `top10` mean for the store."""
    if match := re.fullmatch(r"top([1-9]\d*)", text):
        return int(match[1])
    if text not in ("full", "none"):
        raise SettingsError(f"--soft-labels {text}: full, none, or topK such as top10")
    return cast(SoftLabels, text)


def extract_regions(
    dataset: Path, settings: RegionSettings, run: RunSettings, on_event: OnStageEvent = lambda event: None
) -> StageReport:
    """Fill `<dataset>/vlprep/regions` (or `run.out`). Raises as `run_stage` does; the same call resumes."""
    return run_stage(region_stage(dataset, settings), run, on_event)


def dry_run(dataset: Path, settings: RegionSettings, run: RunSettings) -> PlanReport:
    """What `extract_regions` would do, how large the result would be and how long it would take."""
    return plan_stage(region_stage(dataset, settings), run)


def region_stage(dataset: Path, settings: RegionSettings) -> Stage:
    """The stage for this folder. Loads the detector once (on the CPU) for its sizes, names and settings."""
    images = open_dataset(dataset).images
    if not images:
        raise SettingsError(f"{dataset}: no pictures in this folder, nor in those below it")
    given = boxes_by_item(load_boxes(settings.given_boxes), images) if settings.given_boxes else None
    detector = load_detector(settings, "cpu")
    if given is None:
        _check_boxes(settings, detector)
    schema = regions_schema(
        detector.feature_dim,
        len(detector.class_names),
        dtype=settings.store_dtype,
        soft_labels=soft_labels(settings.soft_labels),
        num_attributes=len(detector.attribute_names),
    )
    return Stage(
        folder=dataset / "vlprep" / "regions",
        items=[image.id for image in images],
        schema=schema,
        settings=_store_settings(settings, detector),
        worker="vlprep.stages.region_worker:RegionWorker",
        arguments={
            "dataset": dataset,
            "settings": settings,
            "source_ids": {image.id: image.source_id for image in images if image.source_id is not None},
            "odd_paths": {image.id: image.path for image in images if "\\" in image.id},
            "given": given,
        },
    )


def load_detector(settings: RegionSettings, device: str) -> Detector:
    """The detector that the settings name, on its device."""
    build: Callable[..., Detector] = partial(build_detector, settings.detector)
    module, colon, _ = settings.detector.partition(":")
    if colon and module not in {family.partition(":")[0] for family in families()}:
        build = import_own(settings.detector, option="--detector")
    return build(weights=settings.weights, device=device, precision=settings.precision, overrides=settings.overrides)


def _check_boxes(settings: RegionSettings, detector: Detector) -> None:
    """Raise `SettingsError` where no image can ever have as many boxes as are asked for."""
    fewest, _ = box_limits(settings.boxes)
    proposals = detector.settings().get("post_nms")
    if proposals is not None and fewest > proposals:
        raise SettingsError(
            f"--boxes {settings.boxes}: --detector {detector.name} looks at {proposals} regions an image; "
            f"take fewer boxes, or --set post_nms={fewest}"
        )


def _store_settings(settings: RegionSettings, detector: Detector) -> StoreSettings:
    fewest, most = box_limits(settings.boxes)
    given = settings.given_boxes
    return StoreSettings(
        kind="regions",
        settings={
            "detector": {"name": detector.name, **detector.settings()},
            "selection": settings.rule_name(detector),
            "fewest_boxes": fewest,
            "most_boxes": most,
            "given_boxes_sha256": sha256_of(given) if given else None,
        },
        weights=asdict(detector.weights),
        names={"classes": detector.class_names, "attributes": detector.attribute_names},
    )
