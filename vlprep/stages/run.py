"""What every stage does around its own work: open the store, plan, run the missing parts, report."""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from vlprep.engines.base import Event, PartDone, PartFinished, WorkerSpec
from vlprep.engines.devices import parse_devices
from vlprep.engines.local import run_parts
from vlprep.errors import SettingsError, VlprepError
from vlprep.shards import Status, Store, StoreSettings
from vlprep.stages.store_group import GroupStage, Output

_MEASURED = 8
"""Items run by a dry run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """How a stage is run. Nothing here changes a number in the store."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:0,1`."""
    workers: int = 1
    """Processes a device."""
    part_size: int | None = None
    item_timeout: float = 300.0
    """Seconds of work on one item, after which it counts as hung."""
    limit: int | None = None
    """Plan no more than the first items by id."""
    retry_failed: bool = False
    overwrite: bool = False
    out: Path | None = None
    """The store's folder, if not `<dataset>/vlprep/<store>`."""
    shard_of: str | None = None
    """`i/n`, i from 1: do only every n-th part, where n machines share a file system."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise SettingsError(f"--workers takes a number from 1, not {self.workers}")
        if not self.item_timeout > 0:  # so that NaN is refused too
            raise SettingsError(f"--item-timeout takes seconds above 0, not {self.item_timeout:g}")
        if self.limit is not None and self.limit < 1:
            raise SettingsError(f"--limit takes a number from 1, not {self.limit}")
        parts_of_shard([], self.shard_of)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a stage brings: its items, its store and the worker that fills it."""

    folder: Path
    """Where the store goes unless the user says otherwise."""
    items: Sequence[str]
    """Ids, which the plan sorts."""
    schema: pa.Schema
    settings: StoreSettings
    worker: str
    """`WorkerSpec.target`; gets `store` besides `arguments`."""
    arguments: Mapping[str, Any]
    gpu_part: int = 512
    """Items a part where the user does not say: minutes of work, the most that a kill can cost."""
    cpu_part: int = 64

    def at(self, folder: Path | None) -> Stage:
        """The same with its store elsewhere."""
        return replace(self, folder=folder) if folder else self

    def open(self, *, overwrite: bool = False) -> Store:
        """Make the store or open it. Raises as `open_store` does."""
        return self._output.open(overwrite=overwrite)

    def finished(self, *, retry_failed: bool) -> set[str]:
        """Items that a run would not do again."""
        return self._output.finished(retry_failed=retry_failed)

    @property
    def _output(self) -> Output:
        return Output(folder=self.folder, schema=self.schema, settings=self.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The first event of a run."""

    folder: Path
    parts: int
    items: int
    """To be done by this run."""
    before: Status
    """Of the store before it."""


StageEvent: TypeAlias = Planned | Event
OnStageEvent: TypeAlias = Callable[[StageEvent], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """How a run ended, and how the store stands."""

    folder: Path
    seconds: float
    """Of this run, by the wall clock."""
    done: int
    """Items finished by this run, failures included."""
    status: Status
    """Of the whole store: rows, failures with their reasons, what is pending for other shards."""
    steps: Mapping[str, float] = field(default_factory=dict)
    """Seconds of this run by step of the pipeline, summed over workers and threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """What a run would do."""

    folder: Path
    items: int
    """Without a row or failure yet."""
    parts: int
    devices: tuple[str, ...]
    measured: int
    """Items run to estimate the rest; 0 if there is nothing to do."""
    failed: int
    """Of those measured."""
    bytes: int
    """Expected size of what is to be done."""
    hours: float


def run_stage(stage: Stage | GroupStage, run: RunSettings, on_event: OnStageEvent) -> StageReport:
    """Do what is missing in the stage's store, or in its stores.

    Raises `SettingsError` before any work, `VlprepError` where the run cannot go on, `KeyboardInterrupt` and
    `vlprep.engines.local.Terminated` on signals. In each case the same call resumes.
    """
    began = time.monotonic()
    devices = parse_devices(run.device)
    store = stage.at(run.out).open(overwrite=run.overwrite)
    store.plan(_limited(stage.items, run.limit), _part_size(stage, run, devices))
    if run.retry_failed:
        store.retry_failed()
    parts = parts_of_shard(store.pending(), run.shard_of)
    items = sum(len(store.part_items(part)) for part in parts)
    on_event(Planned(folder=store.folder, parts=len(parts), items=items, before=store.status()))
    steps: Counter[str] = Counter()
    done = 0

    def watch(event: Event) -> None:
        nonlocal done
        if isinstance(event, PartFinished):
            done += event.done.rows + event.done.failures
            steps.update(event.done.stats)
        on_event(event)

    run_parts(
        WorkerSpec(stage.worker, {**stage.arguments, "store": store}),
        parts,
        devices=devices,
        workers=run.workers,
        item_timeout=run.item_timeout,
        on_event=watch,
    )
    if gone := set(parts).intersection(store.pending()):
        raise VlprepError(
            f"{store.folder} was overwritten by another run meanwhile: {len(gone):,} of this run's {len(parts):,} "
            "parts are gone. Without --overwrite the same command makes what is missing"
        )
    return StageReport(
        folder=store.folder, seconds=time.monotonic() - began, done=done, status=store.status(), steps=steps
    )


def plan_stage(stage: Stage | GroupStage, run: RunSettings) -> PlanReport:
    """Say what `run_stage` would do, from running a few items into a folder that is then removed.

    Time is extrapolated from the later half of them, when caches are warm and libraries loaded. Processes on one device
    share it, so only further devices count as making it faster.
    """
    devices = parse_devices(run.device)
    stage = stage.at(run.out)
    part_size = _part_size(stage, run, devices)
    items = _missing(stage, run)
    parts = parts_of_shard(range(-(-len(items) // part_size)), run.shard_of)
    share = len(parts) / -(-len(items) // part_size) if items else 0.0
    sample = items[:: max(1, len(items) // _MEASURED)][:_MEASURED]
    seconds, status = _trial(replace(stage, items=sample), devices[0], run.item_timeout) if sample else (0.0, None)
    return PlanReport(
        folder=stage.folder,
        items=round(len(items) * share),
        parts=len(parts),
        devices=devices,
        measured=len(sample),
        failed=status.failed if status else 0,
        bytes=round(status.bytes / len(sample) * len(items) * share) if status else 0,
        hours=seconds * len(items) * share / len(devices) / 3600,
    )


def parts_of_shard(parts: Sequence[int], shard_of: str | None) -> list[int]:
    """Those of the parts that are shard `i/n`'s: i from 1, by the number of the part, whatever is already done."""
    if shard_of is None:
        return list(parts)
    match = re.fullmatch(r"(\d+)/(\d+)", shard_of)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise SettingsError(f"--shard-of {shard_of}: write i/n with i from 1 to n, such as 3/16")
    number, shards = int(match[1]), int(match[2])
    return [part for part in parts if part % shards == number - 1]


def _part_size(stage: Stage | GroupStage, run: RunSettings, devices: Sequence[str]) -> int:
    return run.part_size or (stage.cpu_part if devices == ("cpu",) else stage.gpu_part)


def _limited(items: Sequence[str], limit: int | None) -> Sequence[str]:
    return items if limit is None else sorted(items)[:limit]


def _missing(stage: Stage | GroupStage, run: RunSettings) -> list[str]:
    """Items that a run would do, sorted."""
    done = set() if run.overwrite else stage.finished(retry_failed=run.retry_failed)
    return [item for item in sorted(_limited(stage.items, run.limit)) if item not in done]


def _trial(stage: Stage | GroupStage, device: str, item_timeout: float) -> tuple[float, Status]:
    """Seconds an item, and the state of the store that was made for it."""
    finished: list[PartDone] = []

    def watch(event: StageEvent) -> None:
        if isinstance(event, PartFinished):
            finished.append(event.done)

    with tempfile.TemporaryDirectory(prefix="vlprep-plan-") as scratch:
        half = -(-len(stage.items) // 2)
        settings = RunSettings(device=device, part_size=half, item_timeout=item_timeout, out=Path(scratch))
        report = run_stage(stage, settings, watch)
    last = finished[-1]
    return last.seconds / (last.rows + last.failures), report.status
