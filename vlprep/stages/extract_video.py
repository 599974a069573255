"""`extract-video`: from a folder of videos to a store of clip features for each encoder, by one decode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_args

from vlprep.clips.encoder import ClipEncoder, Precision, build_encoder
from vlprep.datasets import open_dataset
from vlprep.errors import SettingsError
from vlprep.media.video.backends import DEFAULT_BACKEND, require_backend
from vlprep.shards import StoreSettings
from vlprep.shards.schema import StoreType, video_schema
from vlprep.stages.own_code import import_own
from vlprep.stages.run import OnStageEvent, PlanReport, RunSettings, StageReport, plan_stage, run_stage
from vlprep.stages.store_group import GroupStage, Output


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderChoice:
    """One encoder, and what differs from its recipe."""

    name: str
    """A preset of `vlprep.clips.presets`, or `package.module:function` of one's own with the signature of
    `vlprep.clips.encoder.build_encoder` less the name."""
    weights: str | None = None
    """A path, `hf://owner/repo/file`, `random:SEED`, or None for the preset's public place."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the recipe by name (`vlprep.clips.spec.override`)."""

    @property
    def store(self) -> str:
        """The name of its store."""
        return self.name.replace(":", ".")


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSettings:
    """What is extracted. All of it but the paths of files changes the numbers and enters the stores' fingerprints."""

    encoders: tuple[EncoderChoice, ...] = (EncoderChoice(name="s3d"),)
    precision: Precision = "fp32"
    store_dtype: StoreType = "float16"
    decoder: str = DEFAULT_BACKEND
    """A backend of `vlprep.media.video.backends`, or `module:function`."""

    def __post_init__(self) -> None:
        for option, value, choices in (
            ("--precision", self.precision, get_args(Precision)),
            ("--store-dtype", self.store_dtype, get_args(StoreType)),
        ):
            if value not in choices:
                raise SettingsError(f"{option} {value}: one of {', '.join(choices)}")
        names = [choice.name for choice in self.encoders]
        if not names:
            raise SettingsError("--model names no encoder: give one or more")
        if doubled := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise SettingsError(f"--model {','.join(names)}: {doubled[0]} comes twice; give each once")
        require_backend(self.decoder)


def extract_video(
    dataset: Path, settings: VideoSettings, run: RunSettings, on_event: OnStageEvent = lambda event: None
) -> StageReport:
    """Fill `<dataset>/vlprep/<encoder>` for each encoder (in `run.out` instead; below it, if they are several).

    The report is of all stores together. Raises as `run_stage` does; the same call resumes.
    """
    return run_stage(video_stage(dataset, settings, run), run, on_event)


def dry_run(dataset: Path, settings: VideoSettings, run: RunSettings) -> PlanReport:
    """What `extract_video` would do, how large the result would be and how long it would take."""
    return plan_stage(video_stage(dataset, settings, run), run)


def video_stage(dataset: Path, settings: VideoSettings, run: RunSettings) -> GroupStage:
    """The stage for this folder. Loads each encoder once (on the CPU) for its size and settings."""
    videos = open_dataset(dataset).videos
    if not videos:
        raise SettingsError(f"{dataset}: no videos in this folder, nor in those below it")
    outputs = {choice.name: _output(dataset, choice, settings) for choice in settings.encoders}
    several = len(outputs) > 1
    return GroupStage(
        folder=dataset / "vlprep" if several else outputs[settings.encoders[0].name].folder,
        outputs=outputs,
        items=[video.id for video in videos],
        worker="vlprep.stages.video_worker:VideoWorker",
        arguments={
            "dataset": dataset,
            "settings": settings,
            "silence": run.item_timeout,
            "source_ids": {video.id: video.source_id for video in videos if video.source_id is not None},
            "odd_paths": {video.id: video.path for video in videos if "\\" in video.id},
        },
        gpu_part=64,
        cpu_part=16,
    )


def store_folders(dataset: Path, settings: VideoSettings, run: RunSettings) -> dict[str, Path]:
    """Where the store of each encoder is."""
    if run.out is not None and len(settings.encoders) == 1:
        return {settings.encoders[0].name: run.out}
    return {choice.name: (run.out or dataset / "vlprep") / choice.store for choice in settings.encoders}


def load_encoder(choice: EncoderChoice, precision: Precision, device: str) -> ClipEncoder:
    """The encoder that is meant, on its device."""
    build: Callable[..., ClipEncoder] = partial(build_encoder, choice.name)
    if ":" in choice.name:
        build = import_own(choice.name, option="--model")
    return build(weights=choice.weights, device=device, precision=precision, overrides=choice.overrides)


def _output(dataset: Path, choice: EncoderChoice, settings: VideoSettings) -> Output:
    encoder = load_encoder(choice, settings.precision, "cpu")
    return Output(
        folder=dataset / "vlprep" / choice.store,
        schema=video_schema(encoder.feature_dim, dtype=settings.store_dtype),
        settings=StoreSettings(
            kind="video",
            settings={"encoder": {"name": choice.name, **encoder.settings()}, "decoder": settings.decoder},
            weights=asdict(encoder.weights),
        ),
    )
