"""`cluster-video`: from clip features to a visual vocabulary and a store of tokens."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlprep.cluster.assign import Assigner, AssignRule
from vlprep.cluster.polish import polish
from vlprep.cluster.quality import LevelQuality, level_quality, quantisation_error
from vlprep.cluster.source import VectorSource
from vlprep.cluster.train import TrainSettings, train
from vlprep.cluster.vocabulary import VOCABULARY_NAME, Array, Vocabulary
from vlprep.errors import SettingsError, VlprepError
from vlprep.shards import StoreReader, StoreSettings
from vlprep.shards.atomic import folder_lock, write_file
from vlprep.shards.describe import describe
from vlprep.shards.manifest import MANIFEST_NAME, read_manifest
from vlprep.shards.schema import tokens_schema
from vlprep.stages.run import OnStageEvent, RunSettings, Stage, StageReport, run_stage
from vlprep.weights import sha256_of

log = logging.getLogger(__name__)

DEFAULT_SOURCE = "s3d"
VECTORS_A_LEAF = 64
_JUDGED = 32_768
"""Vectors from which quantisation errors are computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """How tokens are made. All of it enters the store's fingerprint."""

    training: TrainSettings = field(default_factory=TrainSettings)
    sample: int | None = None
    """Vectors to train on; `VECTORS_A_LEAF` for each leaf if None, and never more than there are."""
    polish: int = 0
    """Lloyd iterations over the leaves after training."""
    assign: AssignRule = field(default_factory=AssignRule)
    source: str = DEFAULT_SOURCE
    """A video store of the dataset by name, or any video store's folder."""
    vocabulary: Path | None = None
    """An existing one to apply, instead of training."""

    def __post_init__(self) -> None:
        if self.sample is not None and self.sample < 1:
            raise SettingsError(f"--sample takes a number from 1, not {self.sample}")
        if self.polish < 0:
            raise SettingsError(f"--polish takes a number of iterations, not {self.polish}")

    @property
    def sample_size(self) -> int:
        return self.sample or VECTORS_A_LEAF * self.training.branching**self.training.depth

    def recipe(self) -> dict[str, Any]:
        """What decides a vocabulary besides the vectors, JSON-ready."""
        return {**asdict(self.training), "sample_size": self.sample_size, "polish": self.polish}


@dataclass(frozen=True, slots=True)
class VocabularyFile:
    """A vocabulary and its file's content."""

    vocabulary: Vocabulary
    data: bytes
    origin: str
    """Where it came from, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedLevel:
    """A level of the vocabulary as the dataset's own vectors use it."""

    quality: LevelQuality
    error: float
    """Mean squared distance to the tokens' nodes, divided by the variance of the vectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterReport:
    stage: StageReport
    vocabulary: Path
    levels: tuple[JudgedLevel, ...]
    tokens: int
    """In the store."""
    judged: int
    """Vectors from which the errors were computed."""


def source_store(dataset: Path, name: str) -> Path:
    """The video store that `--from` means; it need not exist."""
    folder = dataset / "vlprep" / name
    return folder if folder.exists() or not Path(name).exists() else Path(name)


def tokens_store(dataset: Path, out: Path | None) -> Path:
    """Where the tokens go."""
    return out or dataset / "vlprep" / "tokens"


def lacks_features(dataset: Path, source: str) -> bool:
    """Whether features have to be extracted first: there is no such store, or it was never finished."""
    folder = source_store(dataset, source)
    return not (folder / MANIFEST_NAME).is_file() or describe(folder)["pending"] > 0


def find_or_train(
    dataset: Path,
    settings: ClusterSettings,
    run: RunSettings,
    on_node: Callable[[int, int], None] = lambda done, nodes: None,
) -> VocabularyFile:
    """The vocabulary that tokens are to be made with: the one given, the one trained before, or a new one.

    One that was trained before by the same settings is kept, even if there are more vectors now: new videos must not
    change the tokens of the others. `on_node(done, nodes)` hears of the training. Raises `SettingsError`, before any
    work, where the store of tokens was made with other settings, `VlprepError` where its vocabulary is damaged.
    """
    source = VectorSource(source_store(dataset, settings.source))
    folder = tokens_store(dataset, run.out)
    if not run.overwrite:
        _refuse_other_settings(folder, _store_settings(settings, source))
    if settings.vocabulary is not None:
        return _read(settings.vocabulary, source)
    if not run.overwrite and (folder / VOCABULARY_NAME).is_file():
        _refuse_damaged(folder)
        before = _read(folder / VOCABULARY_NAME, source)
        if before.vocabulary.settings.get("recipe") == settings.recipe():
            return before
    vocabulary = _train(source, settings, on_node)
    return VocabularyFile(vocabulary, vocabulary.to_bytes(), f"trained on {settings.source}")


def assign_tokens(
    dataset: Path,
    settings: ClusterSettings,
    file: VocabularyFile,
    run: RunSettings,
    on_event: OnStageEvent = lambda event: None,
) -> ClusterReport:
    """Fill `<dataset>/vlprep/tokens` (or `run.out`), with the vocabulary in its folder. The same call resumes."""
    source = VectorSource(source_store(dataset, settings.source))
    folder = tokens_store(dataset, run.out)
    path = folder / VOCABULARY_NAME
    weights = {"source": file.origin, "sha256": hashlib.sha256(file.data).hexdigest()}
    stage = Stage(
        folder=folder,
        items=source.reader.ids,
        schema=tokens_schema(),
        settings=replace(_store_settings(settings, source), weights=weights),
        worker="vlprep.stages.token_worker:TokenWorker",
        arguments={"source": source.reader.folder, "vocabulary": path, "rule": settings.assign},
        gpu_part=4096,
        cpu_part=1024,
    )
    stage.open(overwrite=run.overwrite)  # before the file, since a new store begins in an empty folder
    with folder_lock(folder):
        write_file(path, file.data)
    report = run_stage(stage, replace(run, overwrite=False), on_event)
    return _judge(report, path, file.vocabulary, settings, source)


def _train(source: VectorSource, settings: ClusterSettings, on_node: Callable[[int, int], None]) -> Vocabulary:
    training = settings.training
    sample_ND = source.sample(settings.sample_size, training.seed)
    nodes = sum(training.branching**level for level in range(training.depth))
    first = [sum(training.branching**above for above in range(level)) for level in range(training.depth)]
    vocabulary = train(sample_ND, training, lambda level, node: on_node(first[level] + node + 1, nodes))
    if settings.polish:
        vocabulary = polish(sample_ND, vocabulary, settings.polish)
    step = max(1, len(sample_ND) // _JUDGED)
    further = {
        "recipe": settings.recipe(),
        "made_from": {"store": settings.source, "fingerprint": source.reader.manifest.fingerprint},
        "errors": _errors(sample_ND[::step], vocabulary, settings.assign),
        "errors_by": str(settings.assign),
    }
    return replace(vocabulary, settings={**vocabulary.settings, **further})


def _read(path: Path, source: VectorSource) -> VocabularyFile:
    vocabulary = Vocabulary.load(path)
    size = source.dim
    if size is not None and size != vocabulary.dim:
        raise SettingsError(
            f"{path}: a vocabulary for vectors of {vocabulary.dim} numbers; those of {source.reader.folder} have {size}"
        )
    return VocabularyFile(vocabulary, path.read_bytes(), str(path))


def _store_settings(settings: ClusterSettings, source: VectorSource) -> StoreSettings:
    return StoreSettings(
        kind="tokens",
        settings={
            "assign": str(settings.assign),
            "vocabulary": "given" if settings.vocabulary else settings.recipe(),
            "source": {"store": settings.source, "fingerprint": source.reader.manifest.fingerprint},
        },
        weights=None,
    )


def _refuse_other_settings(folder: Path, settings: StoreSettings) -> None:
    """Raise now what would be raised after the training. The vocabulary itself is compared later."""
    if (folder / MANIFEST_NAME).is_file():
        known = replace(settings, weights=read_manifest(folder).weights)
        Stage(folder=folder, items=(), schema=tokens_schema(), settings=known, worker="", arguments={}).open()


def _refuse_damaged(folder: Path) -> None:
    """Where there are tokens, the vocabulary beside them must be theirs."""
    weights = read_manifest(folder).weights if (folder / MANIFEST_NAME).is_file() else None
    path = folder / VOCABULARY_NAME
    if weights and sha256_of(path) != weights["sha256"]:
        raise VlprepError(
            f"{path} is damaged, or not what the tokens beside it were made with: remove it and run the same command "
            "again, which trains it again, or begin anew with --overwrite"
        )


def _judge(
    report: StageReport, path: Path, vocabulary: Vocabulary, settings: ClusterSettings, source: VectorSource
) -> ClusterReport:
    counts_L = _usage(report.folder, vocabulary)
    sample_ND = source.sample(_JUDGED, settings.training.seed)
    errors = _errors(sample_ND, vocabulary, settings.assign)
    levels = []
    for level, error in enumerate(errors, start=1):
        codes = vocabulary.branching ** (vocabulary.depth - level)
        quality = level_quality(vocabulary, level, counts_L.reshape(-1, codes).sum(1))
        levels.append(JudgedLevel(quality=quality, error=error))
    return ClusterReport(
        stage=report, vocabulary=path, levels=tuple(levels), tokens=int(counts_L.sum()), judged=len(sample_ND)
    )


def _usage(store: Path, vocabulary: Vocabulary) -> NDArray[np.int64]:
    """(leaves,): how often each token is in the store."""
    counts_L = np.zeros(vocabulary.size, np.int64)
    for chunk in StoreReader(store).columns(["tokens"]).column("tokens").chunks:
        counts_L += np.bincount(chunk.values.to_numpy(), minlength=vocabulary.size)
    return counts_L


def _errors(vectors_ND: Array, vocabulary: Vocabulary, rule: AssignRule) -> list[float]:
    vectors = vectors_ND.astype(np.float32)
    return quantisation_error(vectors, Assigner(vocabulary, rule)(vectors)[0], vocabulary)
