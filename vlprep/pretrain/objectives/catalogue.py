"""The objectives by name: what `--objective` takes and `vlprep objectives` lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from vlprep.errors import SettingsError
from vlprep.pretrain.base import Matcher, Objective
from vlprep.pretrain.clip_reader import ClipReader
from vlprep.pretrain.dual import DualObjective
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.milnce import padding_row
from vlprep.pretrain.objectives.cbt import CbtTasks
from vlprep.pretrain.objectives.frame_order import FrameOrder
from vlprep.pretrain.objectives.howto100m import RankedPairs, RankedPairSettings
from vlprep.pretrain.objectives.itm import ImageTextMatching, MatchingSettings
from vlprep.pretrain.objectives.lxmert import LxmertTasks
from vlprep.pretrain.objectives.milnce import (
    DecodedClips,
    EndToEndSettings,
    MilNceTask,
    MilNceTaskSettings,
    StoredClips,
)
from vlprep.pretrain.objectives.mlm import MaskedLanguage, MaskedLanguageSettings
from vlprep.pretrain.objectives.oscar import OscarTasks, OscarTaskSettings
from vlprep.pretrain.objectives.regions import MaskedRegionSettings, RegionClasses, RegionDistributions, RegionFeatures
from vlprep.pretrain.objectives.sequences import SequenceRule, ThinnedSettings
from vlprep.pretrain.objectives.told_clips import SegmentRule, SegmentSettings
from vlprep.pretrain.objectives.univl import UnivlRetrieval, UnivlRetrievalSettings, UnivlTasks, UnivlTaskSettings
from vlprep.pretrain.objectives.video import Alignment, MaskedTokenSettings, MaskedVisualTokens
from vlprep.pretrain.objectives.vilbert import VilbertTasks, VilbertTaskSettings
from vlprep.pretrain.objectives.vlp import CaptionSettings, MaskedCaption
from vlprep.pretrain.settings import ModelSettings, ObjectiveSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveEntry:
    """One objective for people: what it is, and what model it trains."""

    make: Callable[[SequenceRule, Any], Objective]
    """From its settings."""
    systems: str
    formula: str
    source: str
    settings: type[ObjectiveSettings] = ObjectiveSettings
    kind: str = "single-stream"


OBJECTIVES: Mapping[str, ObjectiveEntry] = {
    "mlm": ObjectiveEntry(
        settings=MaskedLanguageSettings,
        make=lambda rule, settings: MaskedLanguage(rule=_thinned(rule, settings), settings=settings),
        systems="UNITER, VideoBERT",
        formula="mean over masked pieces of -log p(piece)",
        source="UNITER data/mlm.py, model/pretrain.py:107-127",
    ),
    "mrfr": ObjectiveEntry(
        settings=MaskedRegionSettings,
        make=lambda rule, settings: RegionFeatures(rule=rule, settings=settings),
        systems="UNITER",
        formula="mean over masked regions and dimensions of (prediction - feature)^2",
        source="UNITER model/pretrain.py:135-154",
    ),
    "mrc": ObjectiveEntry(
        make=lambda rule, settings: RegionClasses(rule=rule),
        systems="UNITER",
        formula="mean over masked regions of -log p(likeliest foreground class)",
        source="UNITER model/pretrain.py:220-227",
    ),
    "mrc-kl": ObjectiveEntry(
        settings=MaskedRegionSettings,
        make=lambda rule, settings: RegionDistributions(rule=rule, settings=settings),
        systems="UNITER",
        formula="mean over masked regions (and classes) of KL(detector || p)",
        source="UNITER model/pretrain.py:216-220",
    ),
    "itm": ObjectiveEntry(
        settings=MatchingSettings,
        make=lambda rule, settings: ImageTextMatching(rule=rule, settings=settings),
        systems="UNITER",
        formula="mean over pairs of -log p(match or not) + wra * transport distance",
        source="UNITER data/itm.py, model/pretrain.py:156-199, model/ot.py",
    ),
    "mfm": ObjectiveEntry(
        settings=MaskedTokenSettings,
        make=lambda rule, settings: MaskedVisualTokens(rule=_thinned(rule, settings), settings=settings),
        systems="VideoBERT",
        formula="mean over masked visual tokens of -log p(token)",
        source="Sun et al. 2019 §3.2",
    ),
    "align": ObjectiveEntry(
        settings=ThinnedSettings,
        make=lambda rule, settings: Alignment(rule=_thinned(rule, settings)),
        systems="VideoBERT",
        formula="mean over pairs of -log p(aligned or not)",
        source="Sun et al. 2019 §3.2",
    ),
    "lxmert": ObjectiveEntry(
        make=lambda rule, settings: LxmertTasks(rule=rule),
        systems="LXMERT",
        formula="match + mlm + (objects + attributes, by confidence, + masked features) / 0.15 + answers",
        source="LXMERT lxrt/modeling.py:635-1000",
        kind="lxmert",
    ),
    "oscar": ObjectiveEntry(
        settings=OscarTaskSettings,
        make=lambda rule, settings: OscarTasks(rule=rule, settings=settings),
        systems="OSCAR, Oscar+",
        formula="contrast (clean, wrong tags, wrong caption) + mean over masked pieces of caption and tags of -log p",
        source="Oscar oscar/datasets/oscar_tsv.py:256-341, 619-702",
        kind="oscar",
    ),
    "vilbert": ObjectiveEntry(
        settings=VilbertTaskSettings,
        make=lambda rule, settings: VilbertTasks(rule=rule, settings=settings),
        systems="ViLBERT",
        formula="align + mlm + mean over masked regions of KL(detector || p), or of MSE or NCE of their features",
        source="ViLBERT vilbert.py:1490-1600, concept_cap_dataset.py:230-700",
        kind="vilbert",
    ),
    "howto100m": ObjectiveEntry(
        settings=RankedPairSettings,
        make=lambda rule, settings: RankedPairs(vectors=rule.words.vectors, settings=settings),
        systems="HowTo100M",
        formula="mean over texts i and clips j of w_ij [max(0, m + s_ij - s_ii) + max(0, m + s_ij - s_jj)]",
        source="howto100m loss.py, youtube_dataloader.py:76-141",
        kind="howto100m",
    ),
    "vlp": ObjectiveEntry(
        settings=CaptionSettings,
        make=lambda rule, settings: MaskedCaption(rule=rule, settings=settings),
        systems="VLP",
        formula="mean over masked pieces of -log p(piece), 75 % of the captions seen from the left only",
        source="VLP vlp/seq2seq_loader.py:249-301",
        kind="vlp",
    ),
    "univl-retrieval": ObjectiveEntry(
        settings=UnivlRetrievalSettings,
        make=lambda rule, settings: UnivlRetrieval(words=rule.words, settings=settings),
        systems="UniVL (stage one)",
        formula="mean over videos of MIL-NCE of mean states, the middle of three consecutive segments asked for",
        source="UniVL modules/until_module.py:193-221",
        kind="univl",
    ),
    "univl": ObjectiveEntry(
        settings=UnivlTaskSettings,
        make=lambda rule, settings: UnivlTasks(words=rule.words, settings=settings),
        systems="UniVL (stage two)",
        formula="retrieval + mlm + masked clips by NCE + align + decoder, each the mean over what it counts",
        source="UniVL modules/modeling.py:185-300",
        kind="univl",
    ),
    "milnce": ObjectiveEntry(
        settings=MilNceTaskSettings,
        make=lambda rule, settings: MilNceTask(
            name="milnce", showing=StoredClips(), pad=padding_row(rule.words), settings=settings
        ),
        systems="MIL-NCE",
        formula="mean over clips of -log of the candidates' share of exp(clip . text), all texts and all clips",
        source="Miech et al. 2020; MIL-NCE_HowTo100M loss.py, video_loader.py",
        kind="milnce",
    ),
    "milnce-end-to-end": ObjectiveEntry(
        settings=EndToEndSettings,
        make=lambda rule, settings: MilNceTask(
            name="milnce-end-to-end",
            showing=DecodedClips(ClipReader(settings.clips)),
            pad=padding_row(rule.words),
            settings=settings,
        ),
        systems="MIL-NCE (end to end)",
        formula="as milnce; clips are decoded, and the video network is trained",
        source="Miech et al. 2020; MIL-NCE_HowTo100M loss.py, video_loader.py",
        kind="milnce",
    ),
    "frame-order": ObjectiveEntry(
        settings=SegmentSettings,
        make=lambda rule, settings: FrameOrder(rule=SegmentRule(words=rule.words, settings=settings)),
        systems="HERO",
        formula="mean over moved clips of -log p(own place)",
        source="HERO data/fom.py, model/model.py:298-337",
        kind="hero",
    ),
    "cbt": ObjectiveEntry(
        settings=SegmentSettings,
        make=lambda rule, settings: CbtTasks(segments=SegmentRule(words=rule.words, settings=settings)),
        systems="CBT",
        formula="masked clips by NCE + NCE of the mutual information of text and clips",
        source="Sun et al. 2019; no code was published",
        kind="cbt",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedObjective:
    name: str
    systems: str
    kind: str
    inputs: tuple[str, ...]
    formula: str
    source: str
    settings: Mapping[str, Any]
    """What `[objectives.NAME]` of a recipe may set, and what it is otherwise."""


def find_objective(name: str) -> ObjectiveEntry:
    """Raises `SettingsError` for an unknown name."""
    if name not in OBJECTIVES:
        raise SettingsError(f"--objective {name}: there are {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def list_objectives() -> list[ListedObjective]:
    """All objectives, with what a sample must have for each."""
    rule = _probe()
    return [
        ListedObjective(
            name=name,
            systems=entry.systems,
            kind=entry.kind,
            inputs=tuple(sorted(entry.make(rule, entry.settings()).needs())),
            formula=entry.formula,
            source=entry.source,
            settings=asdict(entry.settings()),
        )
        for name, entry in OBJECTIVES.items()
    ]


def needs_of(settings: Mapping[str, ObjectiveSettings]) -> frozenset[str]:
    """All that the objectives of a recipe need of samples (`Objective.needs`), before there is any vocabulary."""
    made = make_objectives(settings, _probe()).values()
    return frozenset[str]().union(*(objective.needs() for objective in made))


def rankers() -> list[str]:
    """The objectives whose models rank texts and what is seen."""
    rule = _probe()
    made = {name: entry.make(rule, entry.settings()) for name, entry in OBJECTIVES.items()}
    return [name for name, objective in made.items() if isinstance(objective, DualObjective | Matcher)]


def _thinned(rule: SequenceRule, settings: ThinnedSettings) -> SequenceRule:
    return replace(rule, thin_up_to=settings.thin_up_to)


def _probe() -> SequenceRule:
    """A rule for objectives that are only asked what they are."""
    return SequenceRule(words=TextVocabulary(size=8, pad=0, cls=1, sep=2, mask=3, first_word=4))


def make_objectives(settings: Mapping[str, ObjectiveSettings], rule: SequenceRule) -> dict[str, Objective]:
    """The objectives of a recipe. Raises `SettingsError` for an unknown name or for none at all."""
    if not settings:
        raise SettingsError("no objective: name some with --objective mlm+mfm, or take a --recipe")
    return {name: find_objective(name).make(rule, chosen) for name, chosen in settings.items()}


def require_fit(objectives: Mapping[str, ObjectiveSettings], model: ModelSettings) -> None:
    """Raises `SettingsError` where an objective trains another kind of model than the recipe's, or contradicts its
    settings.
    """
    for name, chosen in objectives.items():
        trained = find_objective(name)
        if trained.kind != model.kind:
            fitting = ", ".join(other for other, entry in OBJECTIVES.items() if entry.kind == model.kind)
            raise SettingsError(
                f"objective {name} trains a {trained.kind} model, and model.kind is {model.kind}, which has"
                f" {fitting}: take a --recipe of {trained.systems}"
            )
        chosen.require_fit(model)
