"""The kinds of models by name: what `[model] kind` of a recipe takes and `model.json` records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from torch import nn

from vlprep.errors import SettingsError
from vlprep.pretrain.base import StoreFacts
from vlprep.pretrain.encoder import EncoderConfig
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.cbt import Cbt, CbtConfig, CbtSettings, cbt_config
from vlprep.pretrain.models.hero import Hero, HeroConfig, HeroSettings, hero_config
from vlprep.pretrain.models.howto100m import HowTo100M, HowTo100MConfig, HowTo100MSettings, howto100m_config
from vlprep.pretrain.models.lxmert import Lxmert, LxmertConfig, LxmertSettings, lxmert_config
from vlprep.pretrain.models.milnce import MilNce, MilNceConfig, MilNceSettings, milnce_config
from vlprep.pretrain.models.oscar import Oscar, OscarConfig, OscarSettings, oscar_config
from vlprep.pretrain.models.single_stream import (
    SingleStream,
    SingleStreamConfig,
    SingleStreamSettings,
    single_stream_config,
)
from vlprep.pretrain.models.univl import Univl, UnivlConfig, UnivlSettings, univl_config
from vlprep.pretrain.models.vilbert import Vilbert, VilbertConfig, VilbertSettings, vilbert_config
from vlprep.pretrain.models.vlp import Vlp, VlpConfig, VlpSettings, vlp_config
from vlprep.pretrain.settings import ModelSettings


class ModelConfig(Protocol):
    """What the configurations of all kinds have; each is a frozen dataclass."""

    @property
    def encoder(self) -> EncoderConfig | None:
        """Of the text; None where that is no transformer."""
        ...

    @property
    def vocabulary(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """A network and how its sizes follow from a recipe and its data."""

    settings: type[ModelSettings]
    config: type[Any]
    build: Callable[[Any], nn.Module]
    configure: Callable[[Any, TextVocabulary, StoreFacts], ModelConfig]


KINDS: Mapping[str, Kind] = {
    "cbt": Kind(CbtSettings, CbtConfig, Cbt, cbt_config),
    "single-stream": Kind(SingleStreamSettings, SingleStreamConfig, SingleStream, single_stream_config),
    "hero": Kind(HeroSettings, HeroConfig, Hero, hero_config),
    "lxmert": Kind(LxmertSettings, LxmertConfig, Lxmert, lxmert_config),
    "howto100m": Kind(HowTo100MSettings, HowTo100MConfig, HowTo100M, howto100m_config),
    "milnce": Kind(MilNceSettings, MilNceConfig, MilNce, milnce_config),
    "oscar": Kind(OscarSettings, OscarConfig, Oscar, oscar_config),
    "univl": Kind(UnivlSettings, UnivlConfig, Univl, univl_config),
    "vilbert": Kind(VilbertSettings, VilbertConfig, Vilbert, vilbert_config),
    "vlp": Kind(VlpSettings, VlpConfig, Vlp, vlp_config),
}


def find_kind(name: str) -> Kind:
    """Raises `SettingsError` for an unknown name."""
    if name not in KINDS:
        raise SettingsError(f"model.kind {name}: there are {', '.join(KINDS)}")
    return KINDS[name]


def kind_of(config: ModelConfig) -> str:
    """The name of a configuration's kind."""
    return next(name for name, kind in KINDS.items() if isinstance(config, kind.config))


def differences(before: ModelConfig, now: ModelConfig) -> list[str]:
    """In what two configurations differ, for a message."""
    if kind_of(before) != kind_of(now):
        return [f"kind: {kind_of(before)} in the model, {kind_of(now)} here"]
    old, new = asdict(before), asdict(now)  # type: ignore[call-overload]
    return [f"{name}: {old[name]} in the model, {new[name]} here" for name in old if old[name] != new[name]]


def build_model(config: ModelConfig) -> nn.Module:
    """The network, with initial weights from torch's generator."""
    return KINDS[kind_of(config)].build(config)
