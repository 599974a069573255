"""What a recipe may set of every model and objective, of the optimiser and of the loop. Settings of one kind of model
or of one objective lie beside it, those of batches and data in `vlprep.pretrain.batching` and `places`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from vlprep.errors import SettingsError
from vlprep.pretrain.attention import Backend
from vlprep.pretrain.encoder import EncoderConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": {"layers": 2, "hidden": 128, "heads": 4, "intermediate": 512},
    "small": {"layers": 4, "hidden": 256, "heads": 4, "intermediate": 1024},
    "base": {"layers": 12, "hidden": 768, "heads": 12, "intermediate": 3072},
    "large": {"layers": 24, "hidden": 1024, "heads": 16, "intermediate": 4096},
}
"""Names that `--model` takes."""
_LEFT_OUT_BY_0 = ("cross_layers", "decoder_layers")
"""Numbers of layers that a model may do without."""


def require_numbers(settings: DataclassInstance, owner: str, *, may_be_0: Collection[str] = ()) -> None:
    """Raises `SettingsError` for a whole number below 1, or a real one that is below 0 or not finite."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if type(value) is int and value < (field.name not in may_be_0):
            raise SettingsError(f"{owner}.{field.name} is at least {int(field.name not in may_be_0)}, not {value}")
        if type(value) is float and not 0 <= value < math.inf:
            raise SettingsError(f"{owner}.{field.name} is a number from 0 on, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """What may be set of every model. Each kind has a dataclass of its own beside its network, which says what else."""

    kind: str
    """Which: a name in `vlprep.pretrain.models.kinds`."""
    init: str = ""
    """Weights to start from: `bert-base-uncased`, a Hugging Face folder, `uniter-base.pt`, a run's folder."""

    def __post_init__(self) -> None:
        require_numbers(self, "model", may_be_0=_LEFT_OUT_BY_0)

    @property
    def longest(self) -> int | None:
        """The most tokens that a sequence may have; None for any number."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerSettings(ModelSettings):
    """Of a model that is one transformer or more."""

    layers: int = 12
    """Of the text, or of text and what is seen together."""
    hidden: int = 768
    heads: int = 12
    intermediate: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    positions: int = 512
    attention: Backend = "padded"

    def __post_init__(self) -> None:
        ModelSettings.__post_init__(self)  # super() finds no slotted dataclass
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"model.{name} is from 0 to below 1, not {getattr(self, name)}")

    @property
    def longest(self) -> int | None:
        return self.positions

    def encoder(self, *, norm_eps: float = 1e-12) -> EncoderConfig:
        """The sizes of the (text) encoder."""
        return EncoderConfig(
            layers=self.layers,
            hidden=self.hidden,
            heads=self.heads,
            intermediate=self.intermediate,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            norm_eps=norm_eps,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionModelSettings(TransformerSettings):
    """Of one that may look at regions."""

    centre_regions: bool = False
    """A projection of region features that is not loaded from `init` begins centred on their mean (not published; small
    models that learn from nothing look sooner).
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipModelSettings(TransformerSettings):
    """Of one that encodes texts and clips apart and then looks across."""

    text_places: int = 48
    """Positions that the cross encoder keeps for a text; clips stand behind them."""
    standardise_clips: float = 0.0
    """Normalised features begin with the training clips centred and of this spread, unless the layer is loaded from
    `init`; 0 to leave them as published (small models that learn from nothing need it).
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSettings:
    """What may be set of every objective. One that has more has a dataclass of its own beside it."""

    weight: float = 1.0
    """Share of the steps that train it, in proportion."""

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise SettingsError(f"an objective's weight is above 0, not {self.weight}; leave it out by --objective")
        require_numbers(self, "objectives")

    def require_fit(self, model: ModelSettings) -> None:
        """Raises `SettingsError` where the model's settings contradict these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserSettings:
    lr: float = 5e-5
    text_lr: float = 1.0
    """`univl`: the text encoder's learning rate as a share of it (its authors' coef_lr)."""
    warmup: int = 10_000
    """Steps of linear warm-up."""
    schedule: Literal["linear", "cosine", "exponential"] = "linear"
    """What comes after it until the last step: down to 0, or by equal factors down to `final_lr`."""
    final_lr: float = 0.2
    """`exponential`: share of `lr` at the last step (HowTo100M's 0.9 an epoch is 0.2 after 15 of them)."""
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.01
    clip: float = 5.0
    """Largest global gradient norm; 0 for none."""

    def __post_init__(self) -> None:
        require_numbers(self, "optimiser", may_be_0=("warmup",))
        if not self.eps > 0:
            raise SettingsError(f"optimiser.eps is above 0, not {self.eps}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise SettingsError(f"optimiser.betas are from 0 to below 1, not {self.betas}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    steps: int = 200_000
    accumulate: int = 1
    """Micro-batches a step and process."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 42
    deterministic: bool = True
    """On a GPU, kernels that give the same bits each time, where torch has them; they are slower."""
    log_every: int = 50
    save_every: int = 2000
    keep: int = 2
    """Checkpoints kept, the newest."""
    validate_every: int = 2000
    """0: only at the end."""
    validation_share: float = 0.02
    """Share of the images or videos held out."""
    validation_batches: int = 20
    """Micro-batches an objective in each validation."""
    loaders: int = 1
    """Processes that make batches; 0 makes them in the training process."""
    bad_steps: int = 10
    """Steps in a row with a loss or gradient that is not finite, after which the run stops."""

    def __post_init__(self) -> None:
        require_numbers(self, "train", may_be_0=("seed", "loaders", "validate_every"))
        if self.seed >= 1 << 63:  # PyTorch's generators take no larger one
            raise SettingsError(f"train.seed is below 2^63, not {self.seed}")
        if not 0 <= self.validation_share < 1:
            raise SettingsError(f"validation_share is from 0 to below 1, not {self.validation_share}")
