"""What the builders of torchvision-made detectors share: weights into a network, and overrides out of a mapping."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlprep.errors import SettingsError
from vlprep.weights import WeightsRecord, random_seed, sha256_of

log = logging.getLogger(__name__)

_LONGEST_COMPLAINT = 300
"""Characters of torch's list of names, which may run to thousands."""


def random_network(make: Callable[[], nn.Module], weights: str) -> tuple[nn.Module, WeightsRecord]:
    """The network as `random:SEED` initialises it, said loudly; torch's own generator is left as it was."""
    log.warning("--weights %s: the network is untrained, its regions and classes mean nothing", weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed(weights))
        network = make()
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return network, WeightsRecord(source=weights, sha256=digest.hexdigest())


def load_network(
    make: Callable[[], nn.Module], arrays: Mapping[str, Tensor], *, path: Path, source: str
) -> tuple[nn.Module, WeightsRecord]:
    """A network with a checkpoint's arrays, every name of which must fit.

    Torchvision's modules rename the keys of their own older files while loading, hence no comparison of names here.

    Args:
        make: Builds the network.
        arrays: Under the network's names.
        path: The file that they come from.
        source: For `WeightsRecord.source`.

    Raises:
        SettingsError: A name or shape does not fit.
    """
    network = make()
    try:
        network.load_state_dict(arrays)
    except RuntimeError as error:
        complaint = " ".join(str(error).split())
        raise SettingsError(
            f"{path}: a checkpoint of another network ({complaint[:_LONGEST_COMPLAINT]} ...)"
        ) from error
    return network, WeightsRecord(source=source, sha256=sha256_of(path))


def overridden(defaults: Mapping[str, Any], overrides: Mapping[str, Any], family: str) -> dict[str, Any]:
    """The family's settings with the user's in their place.

    Raises:
        SettingsError: An unknown name, a value of another type, a number below 0, or 0 where the default is another.
    """
    for name, value in overrides.items():
        if name not in defaults:
            raise SettingsError(f"--detector {family} has no setting {name!r}: one of {', '.join(defaults)}")
        if type(value) is not type(defaults[name]):
            raise SettingsError(f"{name}={value!r} for --detector {family}: expected a value like {defaults[name]!r}")
        if isinstance(value, (int, float)) and not (value > 0 or value == defaults[name]):
            raise SettingsError(f"{name}={value!r} for --detector {family}: must be above 0")
    return {**defaults, **overrides}
