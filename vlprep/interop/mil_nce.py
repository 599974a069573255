"""The names of `s3d_howto100m.pth` (S3D_HowTo100M s3dg.py), there and back: S3D-G and the text tower.

`fc` and `text_module` have the same names in our models; the video network, their `trunk`, has torchvision's.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vlprep.errors import SettingsError

STEM = "conv1.conv1.weight"
"""A tensor that tells such a file."""
_TRUNK = "trunk."


def from_mil_nce(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under our names."""
    from vlprep.networks.s3dg import from_published  # torchvision, which other files do not need

    shared = {name: value for name, value in arrays.items() if name.startswith(("fc.", "text_module."))}
    return shared | {f"{_TRUNK}{name}": value for name, value in from_published(arrays).items()}


def to_mil_nce(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under theirs. Raises `SettingsError` where there is no video network in it."""
    from vlprep.networks.s3dg import to_published

    trunk = {name.removeprefix(_TRUNK): value for name, value in state.items() if name.startswith(_TRUNK)}
    if not trunk:
        raise SettingsError(
            "--to milnce: the model was trained on stored features and has no video network to go into the file:"
            " vlprep pretrain --recipe milnce --end-to-end trains one"
        )
    return to_published(trunk) | {name: value for name, value in state.items() if not name.startswith(_TRUNK)}
