"""The objectives by name: what `--objective` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from vlprep.errors import SettingsError
from vlprep.pretrain.base import Objective
from vlprep.pretrain.objectives.itm import ImageTextMatching
from vlprep.pretrain.objectives.mlm import MaskedLanguage
from vlprep.pretrain.objectives.regions import RegionClasses, RegionDistributions, RegionFeatures
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.objectives.video import Alignment, MaskedVisualTokens
from vlprep.pretrain.recipe import ObjectiveSettings

_MAKERS: Mapping[str, Callable[[SequenceRule, ObjectiveSettings], Objective]] = {
    "mlm": lambda rule, settings: MaskedLanguage(rule=rule, text_only=settings.text_only),
    "mrfr": lambda rule, settings: RegionFeatures(rule=rule, reduction=settings.reduction),
    "mrc": lambda rule, settings: RegionClasses(rule=rule),
    "mrc-kl": lambda rule, settings: RegionDistributions(rule=rule, reduction=settings.reduction),
    "itm": lambda rule, settings: ImageTextMatching(rule=rule, wra=settings.wra),
    "mfm": lambda rule, settings: MaskedVisualTokens(rule=rule, video_only=settings.video_only),
    "align": lambda rule, settings: Alignment(rule=rule),
}


def objective_names() -> tuple[str, ...]:
    return tuple(_MAKERS)


def make_objectives(settings: Mapping[str, ObjectiveSettings], rule: SequenceRule) -> dict[str, Objective]:
    """The objectives of a recipe. Raises `SettingsError` for an unknown name or for none at all."""
    if not settings:
        raise SettingsError("no objective: name some with --objective mlm+mfm, or take a --recipe")
    if unknown := settings.keys() - _MAKERS.keys():
        raise SettingsError(f"--objective {', '.join(sorted(unknown))}: there are {', '.join(_MAKERS)}")
    return {
        name: _MAKERS[name](replace(rule, thin_up_to=chosen.thin_up_to), chosen) for name, chosen in settings.items()
    }
