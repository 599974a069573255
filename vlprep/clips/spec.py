"""What makes a clip feature: sampling, geometry, colour, network and pooling, as one frozen value.

Everything in a `ClipSpec` changes the numbers, so the whole of it goes into a store's fingerprint.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any, Literal, get_args

from vlprep.errors import SettingsError
from vlprep.media.video import FrameStream
from vlprep.media.video.base import Interpolation

Network = Literal["resnet152", "resnext101", "s3d", "s3d-howto100m"]
Tail = Literal["black", "repeat", "drop"]
Pooling = Literal["mean", "pool2"]

FEATURES: Mapping[str, Mapping[str, int]] = {
    "resnet152": {"pooled": 2048, "logits": 1000},
    "resnext101": {"pooled": 2048, "logits": 400},
    "s3d": {"pooled": 1024, "logits": 400},
    "s3d-howto100m": {"mixed_5c": 1024, "video_embedding": 512},
}
"""What each network can give, and its size: its pooled map, then what its own linear layer makes of that.

`mixed_5c` and `video_embedding` are MIL-NCE's names. S3D's published classifier goes with `pooling="pool2"`.
"""

_FEWEST_FRAMES = {"resnet152": 1, "resnext101": 1, "s3d": 5, "s3d-howto100m": 2}
_FEWEST_FRAMES_POOL2 = 13
_SMALLEST_SIDE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSpec:
    """One encoder's recipe. `presets` holds the published ones; `override` makes others."""

    network: Network
    fps: Fraction
    """Frames per second taken from the video, by the rule of ffmpeg's fps filter."""
    clip_frames: int
    """Length of a clip in those frames."""
    stride: int | None = None
    """Frames from one clip's start to the next one's; None for `clip_frames`, that is neither gap nor overlap."""
    pick: tuple[int, ...] = ()
    """Positions in the clip of the frames that the network gets, in order, repeats allowed; empty for all of them."""
    tail: Tail = "black"
    """The unfilled clip at the end: filled with black (before the mean comes off), with its last frame, or dropped."""
    resize: int | tuple[int, int]
    """Short side in pixels, the other side truncated to a whole pixel; or exactly (width, height)."""
    crop: int | None = None
    """Side of the centre square cut out after resizing; None keeps the whole width."""
    square_first: bool = False
    """Cut the largest centre square before resizing (MIL-NCE)."""
    interpolation: Interpolation = "bicubic"
    pixel_range: tuple[float, float] = (0.0, 1.0)
    """What levels 0 and 255 become before mean and std. Channels are RGB."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    std_epsilon: float = 0.0
    """Added to `std` before dividing; 1e-8 in video_feature_extractor."""
    feature: str = "pooled"
    """One of `FEATURES[network]`."""
    pooling: Pooling = "mean"
    """`mean` over time and space; or `pool2` (S3D's classifier, video_features): inner time steps count twice."""
    l2: bool = False
    """Divide each feature by its L2 norm, as the HowTo100M extractors do by default."""

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_sampling()
        self.frame_stream()  # checks the geometry
        sides = self.resize if isinstance(self.resize, tuple) else (self.resize,)
        if min(*sides, self.crop or min(sides)) < _SMALLEST_SIDE:
            raise SettingsError(f"resize={self.resize}, crop={self.crop}: at least {_SMALLEST_SIDE} pixels")
        if min(self.std) + self.std_epsilon <= 0:
            raise SettingsError(f"std={self.std}: must be greater than zero")
        if self.pixel_range[0] >= self.pixel_range[1]:
            raise SettingsError(f"pixel_range={self.pixel_range}: the first must be less than the second")

    def _check_choices(self) -> None:
        known: dict[str, tuple[str, ...]] = {
            "network": get_args(Network),
            "tail": get_args(Tail),
            "pooling": get_args(Pooling),
            "interpolation": get_args(Interpolation),
        }
        known["feature"] = tuple(FEATURES.get(self.network, ()))
        for name, choices in known.items():
            if getattr(self, name) not in choices:
                raise SettingsError(f"{name}={getattr(self, name)!r} for {self.network}: one of {', '.join(choices)}")
        if self.pooling == "pool2" and self.network != "s3d":
            raise SettingsError(f"pooling=pool2 is a rule of s3d, not of {self.network}: use pooling=mean")

    def _check_sampling(self) -> None:
        if self.fps <= 0:
            raise SettingsError(f"fps={self.fps}: must be greater than zero")
        if self.clip_frames < 1 or self.step < 1:
            raise SettingsError(f"clip_frames={self.clip_frames}, stride={self.stride}: at least one frame")
        if self.pick and not 0 <= min(self.pick) <= max(self.pick) < self.clip_frames:
            raise SettingsError(f"pick={self.pick}: positions from 0 to {self.clip_frames - 1} (clip_frames - 1)")
        fewest = _FEWEST_FRAMES_POOL2 if self.pooling == "pool2" else _FEWEST_FRAMES[self.network]
        if self.network_frames < fewest:
            raise SettingsError(f"{self.network_frames} frames a clip: {self.network} needs at least {fewest}")

    @property
    def step(self) -> int:
        """Frames from one clip's start to the next one's."""
        return self.clip_frames if self.stride is None else self.stride

    @property
    def network_frames(self) -> int:
        """Frames of a clip that the network gets."""
        return len(self.pick) or self.clip_frames

    @property
    def feature_dim(self) -> int:
        return FEATURES[self.network][self.feature]

    @property
    def through_head(self) -> bool:
        """Whether the feature is what the network's linear layer makes of the pooled map."""
        return self.feature != next(iter(FEATURES[self.network]))

    def frame_stream(self) -> FrameStream:
        """What to ask of the decoder."""
        return FrameStream(
            fps=self.fps,
            resize=self.resize,
            crop=self.crop,
            square_first=self.square_first,
            interpolation=self.interpolation,
        )

    def settings(self) -> dict[str, Any]:
        """JSON-ready, every field."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: str(value) if isinstance(value, Fraction) else value for name, value in values.items()}


def override(spec: ClipSpec, values: Mapping[str, Any]) -> ClipSpec:
    """The recipe with other values, each as a Python value or as the text a command line has (`fps=2/3`, `l2=true`).

    Raises:
        SettingsError: An unknown name, a value that is not of its kind, or a recipe that makes no sense.
    """
    parsed = {}
    for name, value in values.items():
        if name == "network":
            raise SettingsError("network cannot be overridden: choose a preset of that network")
        if name not in _PARSERS:
            close = difflib.get_close_matches(name, _PARSERS, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise SettingsError(f"{name}: no such setting of a clip encoder{hint}; there are {', '.join(_PARSERS)}")
        try:
            parsed[name] = _PARSERS[name](value)
        except (ValueError, TypeError) as error:
            raise SettingsError(f"{name}={value!r}: {error}") from error
    return replace(spec, **parsed)


def _optional_int(value: Any) -> int | None:
    return None if value is None or value == "none" else _int(value)


def _int(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError("expected a whole number")
    return int(value)


def _fps(value: Any) -> Fraction:
    try:
        return Fraction(value).limit_denominator(100_000) if isinstance(value, float) else Fraction(value)
    except (ValueError, ArithmeticError) as error:
        raise ValueError("expected frames a second, such as 20 or 2/3") from error


def _flag(value: Any) -> bool:
    words = {True: True, False: False, "true": True, "false": False}
    if value not in words:
        raise ValueError("expected true or false")
    return words[value]


def _tuple_of(kind: Callable[[Any], Any], length: int | None = None) -> Callable[[Any], tuple[Any, ...]]:
    def parse(value: Any) -> tuple[Any, ...]:
        parts = [part for part in value.split(",") if part] if isinstance(value, str) else value
        if length is not None and len(parts) != length:
            raise ValueError(f"expected {length} numbers separated by commas")
        return tuple(kind(part) for part in parts)

    return parse


def _resize(value: Any) -> int | tuple[Any, ...]:
    is_pair = isinstance(value, (tuple, list)) or (isinstance(value, str) and "," in value)
    return _tuple_of(_int, 2)(value) if is_pair else _int(value)


_PARSERS: Mapping[str, Callable[[Any], Any]] = {
    "fps": _fps,
    "clip_frames": _int,
    "stride": _optional_int,
    "pick": _tuple_of(_int),
    "tail": str,
    "resize": _resize,
    "crop": _optional_int,
    "square_first": _flag,
    "interpolation": str,
    "pixel_range": _tuple_of(float, 2),
    "mean": _tuple_of(float, 3),
    "std": _tuple_of(float, 3),
    "std_epsilon": float,
    "feature": str,
    "pooling": str,
    "l2": _flag,
}
