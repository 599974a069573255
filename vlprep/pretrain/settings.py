"""What a recipe may set of the model, the objectives, the optimiser and the loop; batches and data have theirs beside
what they configure (`vlprep.pretrain.batching`, `places`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vlprep.errors import SettingsError
from vlprep.pretrain.attention import Backend
from vlprep.pretrain.clip_reader import ClipSettings
from vlprep.pretrain.encoder import EncoderConfig

ModelKind = Literal["single-stream", "lxmert", "vlp", "oscar", "vilbert", "univl", "cbt", "hero", "milnce", "howto100m"]

SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": {"layers": 2, "hidden": 128, "heads": 4, "intermediate": 512},
    "small": {"layers": 4, "hidden": 256, "heads": 4, "intermediate": 1024},
    "base": {"layers": 12, "hidden": 768, "heads": 12, "intermediate": 3072},
    "large": {"layers": 24, "hidden": 1024, "heads": 16, "intermediate": 4096},
}
"""Names that `--model` takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    kind: ModelKind = "single-stream"
    """`single-stream`: UNITER, VideoBERT."""
    layers: int = 12
    """Of the text, or of text and what is seen together."""
    hidden: int = 768
    heads: int = 12
    intermediate: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    region_layers: int = 5
    """`lxmert`, `vilbert`: layers of the regions."""
    cross_layers: int = 5
    """`lxmert`, `vilbert`, `univl`, `cbt`: layers that look across; 0 in `univl`'s first stage."""
    video_layers: int = 6
    """`univl`, `cbt`: layers of the clips."""
    decoder_layers: int = 3
    """`univl`: layers that write the text; 0 in its first stage."""
    text_places: int = 48
    """`univl`, `cbt`: positions that the cross encoder keeps for a text; clips stand behind them."""
    region_hidden: int = 1024
    """`vilbert`, as the next three: sizes of the region stream, …"""
    region_heads: int = 8
    """(also of co-attention)"""
    region_intermediate: int = 1024
    cross_hidden: int = 1024
    """… and of co-attention."""
    region_outputs: Literal["classes", "features"] = "classes"
    """`vilbert`: what its head says of a region; features for the objective's targets `mse` and `nce`."""
    contrast_classes: Literal[2, 3] = 3
    """`oscar`: 3 tell wrong tags from a wrong caption (Oscar+)."""
    normalise_regions: bool = False
    """`oscar`: LayerNorm on embedded regions (Oscar+)."""
    standardise_clips: float = 0.0
    """`univl`, `cbt`: normalised features begin with the training clips centred and of this spread, unless the layer is
    loaded from `init`; 0 to leave them as published (small models that learn from nothing need it).
    """
    positions: int = 512
    attention: Backend = "padded"
    freeze_centroids: bool = False
    """Visual token embeddings stay the vocabulary's centroids (VideoBERT)."""
    centre_regions: bool = False
    """A projection of region features that is not loaded from `init` begins centred on their mean (not published; small
    models that learn from nothing look sooner).
    """
    word_dim: int = 300
    """`milnce`, as the next three: size of the word vectors, …"""
    joint: int = 512
    """… of the space in which texts and clips are compared (also `howto100m`), …"""
    freeze_words: bool = True
    """… whether words keep the vectors that they begin with, …"""
    trunk: Literal["", "plain", "space-to-depth"] = ""
    """… and the stem of the video network that is trained with it, end to end: that of the training repository, or of
    `s3d_howto100m.pth`. None where features come from a store.
    """
    init: str = ""
    """Weights to start from: `bert-base-uncased`, a Hugging Face folder, `uniter-base.pt`, a run's folder."""

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
class ObjectiveSettings:
    weight: float = 1.0
    """Share of the steps that train it, in proportion."""
    wra: float = 0.0
    """`itm`: weight of the optimal-transport term (0.1 in UNITER)."""
    reduction: Literal["element", "region"] = "element"
    """`mrfr`, `mrc-kl`: mean over elements (UNITER) or over regions (mmf)."""
    video_only: float = 0.5
    """`mfm`: share of the sequences without narration."""
    text_only: float = 0.0
    """`mlm`: share of the sequences without what is seen."""
    left_to_right: float = 0.75
    """`vlp`: share of the captions that are seen from the left only."""
    drop_worst: float = 0.0
    """`vlp`: share of a micro-batch's captions, the worst, that are not learned from."""
    wrong_text: float = 0.25
    """`oscar`: share of the sequences with a wrong caption, up to 0.5; 0 in OSCAR, whose loss has two classes."""
    leak_protection: bool = True
    """`vilbert`: hide what overlaps a masked region, as the paper says and its code does not."""
    only_matched: bool = True
    """`vilbert`: learn from the masks of matching pairs only (--objective 1)."""
    target: Literal["kl", "mse", "nce"] = "kl"
    """`vilbert`: what a masked region is to be: its classes' distribution, its feature, or its feature among others'
    (--visual_target 0, 1, 2).
    """
    max_words: int = 48
    """`univl`, `cbt`, `milnce`, `howto100m`: pieces (words) of a text, special ones included; what is longer is cut."""
    max_clips: int = 64
    """`univl`, `cbt`: clips of a segment, its first."""
    min_seconds: float = 5.0
    """`univl`, `cbt`, `howto100m`: shorter segments are joined with their neighbours until they are as long; `milnce`:
    stretched.
    """
    neighbours: int = 3
    """`univl`: consecutive segments of a video that are drawn together."""
    candidates: int = 4
    """`milnce`, as the next three: texts that may belong to a clip (5 in the paper)."""
    positives: Literal["once", "twice"] = "once"
    """How often they count in the loss's denominator: once in the paper, twice in the published code."""
    gather: bool = True
    """(also `howto100m`) Whether the clips of all processes are negatives of each other."""
    clips: ClipSettings = field(default_factory=ClipSettings)
    """`milnce-end-to-end`: how they are decoded."""
    pairs: int = 64
    """`howto100m`, as the next two: segments drawn of each video, …"""
    margin: float = 0.1
    """… by how much a pair is to be nearer than what does not belong together, …"""
    hard_negatives: float = 0.5
    """… and the weight of all other pairs of the same video."""
    hide_text: float = 0.15
    """`univl`: share of the videos whose narration only the decoder sees."""
    learn_padding: bool = False
    """`univl`: the decoder also learns the padding behind a text, as published."""
    thin_up_to: int = 1
    """`mfm`, `align`, `mlm` on video: visual tokens thinned to every n-th, n up to this (VideoBERT: 5)."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    steps: int = 200_000
    accumulate: int = 1
    """Micro-batches a step and process."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 42
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
        if min(self.steps, self.accumulate, self.log_every, self.save_every, self.keep) < 1:
            raise SettingsError("steps, accumulate, log_every, save_every and keep are at least 1")
        if not 0 <= self.validation_share < 1:
            raise SettingsError(f"validation_share is from 0 to below 1, not {self.validation_share}")
