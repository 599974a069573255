"""The kinds of models by name: what `[model] kind` of a recipe takes and `model.json` records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from vlprep.pretrain.base import StoreFacts
from vlprep.pretrain.encoder import EncoderConfig
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.cbt import Cbt, CbtConfig, cbt_config
from vlprep.pretrain.models.hero import Hero, HeroConfig, hero_config
from vlprep.pretrain.models.howto100m import HowTo100M, HowTo100MConfig, howto100m_config
from vlprep.pretrain.models.lxmert import Lxmert, LxmertConfig, lxmert_config
from vlprep.pretrain.models.milnce import MilNce, MilNceConfig, milnce_config
from vlprep.pretrain.models.oscar import Oscar, OscarConfig, oscar_config
from vlprep.pretrain.models.single_stream import SingleStream, SingleStreamConfig, single_stream_config
from vlprep.pretrain.models.univl import Univl, UnivlConfig, univl_config
from vlprep.pretrain.models.vilbert import Vilbert, VilbertConfig, vilbert_config
from vlprep.pretrain.models.vlp import Vlp, VlpConfig, vlp_config
from vlprep.pretrain.settings import ModelKind, ModelSettings


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

    config: type[Any]
    build: Callable[[Any], nn.Module]
    configure: Callable[[ModelSettings, TextVocabulary, StoreFacts], ModelConfig]


KINDS: Mapping[ModelKind, Kind] = {
    "cbt": Kind(CbtConfig, Cbt, cbt_config),
    "single-stream": Kind(SingleStreamConfig, SingleStream, single_stream_config),
    "hero": Kind(HeroConfig, Hero, hero_config),
    "lxmert": Kind(LxmertConfig, Lxmert, lxmert_config),
    "howto100m": Kind(HowTo100MConfig, HowTo100M, howto100m_config),
    "milnce": Kind(MilNceConfig, MilNce, milnce_config),
    "oscar": Kind(OscarConfig, Oscar, oscar_config),
    "univl": Kind(UnivlConfig, Univl, univl_config),
    "vilbert": Kind(VilbertConfig, Vilbert, vilbert_config),
    "vlp": Kind(VlpConfig, Vlp, vlp_config),
}


def kind_of(config: ModelConfig) -> ModelKind:
    """The name of a configuration's kind."""
    return next(name for name, kind in KINDS.items() if isinstance(config, kind.config))


def build_model(config: ModelConfig) -> nn.Module:
    """The network, with initial weights from torch's generator."""
    return KINDS[kind_of(config)].build(config)
