"""The objectives by name: what `--objective` takes and `vlprep objectives` lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from vlprep.errors import SettingsError
from vlprep.pretrain.base import Matcher, Objective
from vlprep.pretrain.clip_reader import ClipReader
from vlprep.pretrain.dual import DualObjective
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.objectives.cbt import CbtTasks
from vlprep.pretrain.objectives.frame_order import FrameOrder
from vlprep.pretrain.objectives.howto100m import RankedPairs
from vlprep.pretrain.objectives.itm import ImageTextMatching
from vlprep.pretrain.objectives.lxmert import LxmertTasks
from vlprep.pretrain.objectives.milnce import DecodedClips, MilNceTask, StoredClips
from vlprep.pretrain.objectives.mlm import MaskedLanguage
from vlprep.pretrain.objectives.oscar import OscarTasks
from vlprep.pretrain.objectives.regions import RegionClasses, RegionDistributions, RegionFeatures
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.objectives.told_clips import SegmentRule
from vlprep.pretrain.objectives.univl import UnivlRetrieval, UnivlTasks
from vlprep.pretrain.objectives.video import Alignment, MaskedVisualTokens
from vlprep.pretrain.objectives.vilbert import VilbertTasks
from vlprep.pretrain.objectives.vlp import MaskedCaption
from vlprep.pretrain.settings import ModelKind, ObjectiveSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveEntry:
    """One objective for people: what it is, and what model it trains."""

    make: Callable[[SequenceRule, ObjectiveSettings], Objective]
    systems: str
    formula: str
    source: str
    kind: ModelKind = "single-stream"


OBJECTIVES: Mapping[str, ObjectiveEntry] = {
    "mlm": ObjectiveEntry(
        make=lambda rule, settings: MaskedLanguage(rule=rule, text_only=settings.text_only),
        systems="UNITER, VideoBERT",
        formula="mean over masked pieces of -log p(piece)",
        source="UNITER data/mlm.py, model/pretrain.py:107-127",
    ),
    "mrfr": ObjectiveEntry(
        make=lambda rule, settings: RegionFeatures(rule=rule, reduction=settings.reduction),
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
        make=lambda rule, settings: RegionDistributions(rule=rule, reduction=settings.reduction),
        systems="UNITER",
        formula="mean over masked regions (and classes) of KL(detector || p)",
        source="UNITER model/pretrain.py:216-220",
    ),
    "itm": ObjectiveEntry(
        make=lambda rule, settings: ImageTextMatching(rule=rule, wra=settings.wra),
        systems="UNITER",
        formula="mean over pairs of -log p(match or not) + wra * transport distance",
        source="UNITER data/itm.py, model/pretrain.py:156-199, model/ot.py",
    ),
    "mfm": ObjectiveEntry(
        make=lambda rule, settings: MaskedVisualTokens(rule=rule, video_only=settings.video_only),
        systems="VideoBERT",
        formula="mean over masked visual tokens of -log p(token)",
        source="Sun et al. 2019 §3.2",
    ),
    "align": ObjectiveEntry(
        make=lambda rule, settings: Alignment(rule=rule),
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
        make=lambda rule, settings: OscarTasks(rule=rule, wrong_text=settings.wrong_text),
        systems="OSCAR, Oscar+",
        formula="contrast (clean, wrong tags, wrong caption) + mean over masked pieces of caption and tags of -log p",
        source="Oscar oscar/datasets/oscar_tsv.py:256-341, 619-702",
        kind="oscar",
    ),
    "vilbert": ObjectiveEntry(
        make=lambda rule, settings: VilbertTasks(
            rule=rule,
            leak_protection=settings.leak_protection,
            only_matched=settings.only_matched,
            target=settings.target,
        ),
        systems="ViLBERT",
        formula="align + mlm + mean over masked regions of KL(detector || p), or of MSE or NCE of their features",
        source="ViLBERT vilbert.py:1490-1600, concept_cap_dataset.py:230-700",
        kind="vilbert",
    ),
    "howto100m": ObjectiveEntry(
        make=lambda rule, settings: RankedPairs(
            vectors=rule.words.vectors,
            pairs=settings.pairs,
            max_words=settings.max_words,
            min_seconds=settings.min_seconds,
            margin=settings.margin,
            hard_negatives=settings.hard_negatives,
            gather=settings.gather,
        ),
        systems="HowTo100M",
        formula="mean over texts i and clips j of w_ij [max(0, m + s_ij - s_ii) + max(0, m + s_ij - s_jj)]",
        source="howto100m loss.py, youtube_dataloader.py:76-141",
        kind="howto100m",
    ),
    "vlp": ObjectiveEntry(
        make=lambda rule, settings: MaskedCaption(
            rule=rule, left_to_right=settings.left_to_right, drop_worst=settings.drop_worst
        ),
        systems="VLP",
        formula="mean over masked pieces of -log p(piece), 75 % of the captions seen from the left only",
        source="VLP vlp/seq2seq_loader.py:249-301",
        kind="vlp",
    ),
    "univl-retrieval": ObjectiveEntry(
        make=lambda rule, settings: UnivlRetrieval(
            segments=SegmentRule.of(rule.words, settings), neighbours=settings.neighbours
        ),
        systems="UniVL (stage one)",
        formula="mean over videos of MIL-NCE of mean states, the middle of three consecutive segments asked for",
        source="UniVL modules/until_module.py:193-221",
        kind="univl",
    ),
    "univl": ObjectiveEntry(
        make=lambda rule, settings: UnivlTasks(
            segments=SegmentRule.of(rule.words, settings),
            neighbours=settings.neighbours,
            hide_text=settings.hide_text,
            learn_padding=settings.learn_padding,
        ),
        systems="UniVL (stage two)",
        formula="retrieval + mlm + masked clips by NCE + align + decoder, each the mean over what it counts",
        source="UniVL modules/modeling.py:185-300",
        kind="univl",
    ),
    "milnce": ObjectiveEntry(
        make=lambda rule, settings: MilNceTask.of("milnce", StoredClips(), rule.words, settings),
        systems="MIL-NCE",
        formula="mean over clips of -log of the candidates' share of exp(clip . text), all texts and all clips",
        source="Miech et al. 2020; MIL-NCE_HowTo100M loss.py, video_loader.py",
        kind="milnce",
    ),
    "milnce-end-to-end": ObjectiveEntry(
        make=lambda rule, settings: MilNceTask.of(
            "milnce-end-to-end", DecodedClips(ClipReader(settings.clips)), rule.words, settings
        ),
        systems="MIL-NCE (end to end)",
        formula="as milnce; clips are decoded, and the video network is trained",
        source="Miech et al. 2020; MIL-NCE_HowTo100M loss.py, video_loader.py",
        kind="milnce",
    ),
    "frame-order": ObjectiveEntry(
        make=lambda rule, settings: FrameOrder(rule=SegmentRule.of(rule.words, settings)),
        systems="HERO",
        formula="mean over moved clips of -log p(own place)",
        source="HERO data/fom.py, model/model.py:298-337",
        kind="hero",
    ),
    "cbt": ObjectiveEntry(
        make=lambda rule, settings: CbtTasks(segments=SegmentRule.of(rule.words, settings)),
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
    kind: ModelKind
    inputs: tuple[str, ...]
    formula: str
    source: str


def list_objectives() -> list[ListedObjective]:
    """All objectives, with what a sample must have for each."""
    rule = _probe()
    return [
        ListedObjective(
            name=name,
            systems=entry.systems,
            kind=entry.kind,
            inputs=tuple(sorted(entry.make(rule, ObjectiveSettings()).needs())),
            formula=entry.formula,
            source=entry.source,
        )
        for name, entry in OBJECTIVES.items()
    ]


def rankers() -> list[str]:
    """The objectives whose models rank texts and what is seen."""
    rule = _probe()
    made = {name: entry.make(rule, ObjectiveSettings()) for name, entry in OBJECTIVES.items()}
    return [name for name, objective in made.items() if isinstance(objective, DualObjective | Matcher)]


def _probe() -> SequenceRule:
    """A rule for objectives that are only asked what they are."""
    return SequenceRule(words=TextVocabulary(size=8, pad=0, cls=1, sep=2, mask=3, first_word=4))


def make_objectives(settings: Mapping[str, ObjectiveSettings], rule: SequenceRule) -> dict[str, Objective]:
    """The objectives of a recipe. Raises `SettingsError` for an unknown name or for none at all."""
    if not settings:
        raise SettingsError("no objective: name some with --objective mlm+mfm, or take a --recipe")
    if unknown := settings.keys() - OBJECTIVES.keys():
        raise SettingsError(f"--objective {', '.join(sorted(unknown))}: there are {', '.join(OBJECTIVES)}")
    return {
        name: OBJECTIVES[name].make(replace(rule, thin_up_to=chosen.thin_up_to), chosen)
        for name, chosen in settings.items()
    }


def require_kind(names: Iterable[str], kind: ModelKind) -> None:
    """Raises `SettingsError` where an objective trains another kind of model than the recipe's."""
    for name in names:
        if OBJECTIVES[name].kind != kind:
            fitting = ", ".join(other for other, entry in OBJECTIVES.items() if entry.kind == kind)
            raise SettingsError(
                f"objective {name} trains a {OBJECTIVES[name].kind} model, and model.kind is {kind}, which has"
                f" {fitting}: take a --recipe of {OBJECTIVES[name].systems}"
            )
