"""The published recipes by name, each value as its authors' code has it, and where their weights are.

Sources (repository@commit): VFE = antoine77340/video_feature_extractor@4e6c728, LUO = ArrowLuo/VideoFeatureExtractor,
HERO = linjieli222/HERO_Video_Feature_Extractor@edcc012, MMPT = facebookresearch/fairseq examples/MMPT.
Values that a paper leaves open follow the authors of the weights.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from vlprep.clips.spec import ClipSpec
from vlprep.errors import SettingsError
from vlprep.weights import PublicPlace

_INRIA = "https://www.rocq.inria.fr/cluster-willow/amiech/howto100m"

RESNET152_V1 = PublicPlace(
    file="resnet152-394f9c45.pth",
    page="https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.resnet152.html",
    url="https://download.pytorch.org/models/resnet152-394f9c45.pth",
    sha256="394f9c45",
)
"""`pretrained=True` of 2020 is V1; torchvision's default today is V2, which gives other features."""
RESNEXT101 = PublicPlace(
    file="resnext101.pth",
    page="https://github.com/antoine77340/video_feature_extractor",
    url=f"{_INRIA}/models/resnext101.pth",
)
"""INRIA's copy of kenshohara's `resnext-101-kinetics.pth`, which is on a cloud drive only; `--weights` takes either."""
S3D_KYLEMIN = PublicPlace(file="S3D_kinetics400.pt", page="https://github.com/kylemin/S3D")
S3D_TORCHVISION = PublicPlace(
    file="s3d-d76dad2f.pth",
    page="https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.video.s3d.html",
    url="https://download.pytorch.org/models/s3d-d76dad2f.pth",
    sha256="d76dad2f",
)
S3D_HOWTO100M = PublicPlace(
    file="s3d_howto100m.pth",
    page="https://github.com/antoine77340/S3D_HowTo100M",
    url=f"{_INRIA}/s3d_howto100m.pth",
)


@dataclass(frozen=True, slots=True)
class Preset:
    """A recipe with the place of its weights."""

    spec: ClipSpec
    place: PublicPlace


_RESNET152 = ClipSpec(
    network="resnet152",
    fps=Fraction(1),
    clip_frames=1,
    resize=224,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    std_epsilon=1e-8,
)
"""VFE "2d": one frame a second, short side 224, the whole width (video_loader.py:38-71, preprocessing.py:6-33)."""

_RESNEXT101 = ClipSpec(
    network="resnext101",
    fps=Fraction(24),
    clip_frames=16,
    resize=112,
    crop=112,
    pixel_range=(0.0, 255.0),
    mean=(110.6, 103.2, 96.3),
)
"""VFE "3d": 1.5 features a second; levels 0 to 255 less the rounded Kinetics mean (preprocessing.py:20-38)."""

_S3D = ClipSpec(
    network="s3d",
    fps=Fraction(20),
    clip_frames=30,
    resize=256,
    crop=224,
    interpolation="bilinear",
    pixel_range=(-1.0, 1.0),
)
"""VideoBERT's sampling (arXiv 1904.01766, 4.2: 20 fps, 30 frames, no overlap, 3D average pooling) with the geometry and
[-1, 1] of the author of the weights (kylemin/S3D issues 4 and 6). video_features feeds [0, 1]: 17 to 41 % off."""

_S3D_TORCHVISION = replace(
    _S3D,
    fps=Fraction(15),
    clip_frames=128,
    resize=(256, 256),
    pixel_range=(0.0, 1.0),
    mean=(0.43216, 0.394666, 0.37645),
    std=(0.22803, 0.22145, 0.216989),
    pooling="pool2",
)
"""torchvision's own training of S3D, with its own preset (S3D_Weights.KINETICS400_V1.transforms)."""

_S3D_HOWTO100M = ClipSpec(
    network="s3d-howto100m",
    fps=Fraction(10),
    clip_frames=32,
    resize=224,
    square_first=True,
    feature="mixed_5c",
)
"""MIL-NCE: 3.2 s at 10 fps (S3D_HowTo100M README and issue 12), [0, 1] (issue 4), the centre square scaled to 224
(MIL-NCE_HowTo100M youcook_loader.py:60-94)."""

_MILNCE_SHORT_SIDE = replace(_S3D_HOWTO100M, square_first=False, crop=224)


def _hero_positions(clip: int = 45, network: int = 32, span: int = 64) -> tuple[int, ...]:
    """HERO spreads 32 frames over 64 and has only 45, so the last ten are the same frame
    (mil-nce/preprocessing.py:39-57 and 145-166). The span is 64 for a source of 30 fps; HERO's grows with the floor of
    the file's own rate, so that its features depend on it. To spread the frames evenly instead, override `pick`."""
    return tuple(min(position * (span - 1) // (network - 1), clip - 1) for position in range(network))


PRESETS: Mapping[str, Preset] = {
    "resnet152": Preset(_RESNET152, RESNET152_V1),
    "resnext101": Preset(_RESNEXT101, RESNEXT101),
    "s3d": Preset(_S3D, S3D_KYLEMIN),
    "s3d-howto100m": Preset(_S3D_HOWTO100M, S3D_HOWTO100M),
    "howto100m-2d": Preset(replace(_RESNET152, l2=True), RESNET152_V1),
    "howto100m-3d": Preset(replace(_RESNEXT101, l2=True), RESNEXT101),
    "videobert-s3d": Preset(_S3D, S3D_KYLEMIN),
    "torchvision-s3d": Preset(_S3D_TORCHVISION, S3D_TORCHVISION),
    "milnce-s3dg": Preset(_S3D_HOWTO100M, S3D_HOWTO100M),
    # LUO extract.py:16-19 and 81-82, preprocessing.py:44-51
    "univl": Preset(replace(_MILNCE_SHORT_SIDE, fps=Fraction(16), clip_frames=16, l2=True), S3D_HOWTO100M),
    # MMPT scripts/video_feature_extractor/extract.py: CONFIGS["s3d"], "video_embedding", l2_normalize
    "mmpt": Preset(
        replace(_MILNCE_SHORT_SIDE, fps=Fraction(30), clip_frames=30, feature="video_embedding", l2=True),
        S3D_HOWTO100M,
    ),
    # HERO mil-nce/extract.py (30 fps, clips of 1.5 s) and preprocessing.py (`tile`: the last frame repeated)
    "hero": Preset(
        replace(_MILNCE_SHORT_SIDE, fps=Fraction(30), clip_frames=45, pick=_hero_positions(), tail="repeat"),
        S3D_HOWTO100M,
    ),
    # HERO resnets/extract.py: one frame each 1.5 s
    "hero-2d": Preset(replace(_RESNET152, fps=Fraction(2, 3), l2=True), RESNET152_V1),
}
"""Networks by their own names (features as they come) and systems by theirs."""


def preset(name: str) -> Preset:
    """The recipe of this name; `SettingsError` lists the names."""
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise SettingsError(f"{name}: no such clip encoder{hint}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
