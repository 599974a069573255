"""What the four networks have in common, and how a checkpoint gets into one.

Shape suffixes: N clips, C channels, T, H, W of the network's last map, D features.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vlprep.errors import SettingsError
from vlprep.networks.planar import speed_up
from vlprep.weights import WeightsRecord, load_arrays, random_seed, sha256_of

log = logging.getLogger(__name__)


class ClipNetwork(nn.Module):
    """A trunk, from (N, 3, T, H, W) to a map (N, C, T', H', W'), and the linear layer that the file has on top."""

    def __init__(self, trunk: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head


Arrays = dict[str, Tensor]
Rename = Callable[[Arrays], Arrays]
"""From a published file's names to the network's, shapes as the network's."""
Make = Callable[[Mapping[str, Tensor] | None], ClipNetwork]
"""Builds the network as published; variants are told apart by the renamed arrays (None: the usual one)."""


def load(make: Make, rename: Rename, path: Path, source: str) -> tuple[ClipNetwork, WeightsRecord]:
    """The network with a checkpoint in it, ready for inference.

    Raises:
        SettingsError: Not a checkpoint of this network; the message shows the first differences.
    """
    arrays = rename(load_arrays(path))
    with torch.device("meta"):
        network = make(arrays)
    fill(network, arrays, path)
    speed_up(network)
    return network, WeightsRecord(source=source, sha256=sha256_of(path))


def fill(module: nn.Module, arrays: Mapping[str, Tensor], path: Path) -> None:
    """Make `arrays` the parameters of `module`, whose every name and shape must be there (batch counters may lack)."""
    wanted = {name: tuple(value.shape) for name, value in _without_counters(module.state_dict()).items()}
    found = {name: tuple(value.shape) for name, value in _without_counters(arrays).items()}
    problems = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    problems += [f"{name} is not known" for name in found.keys() - wanted.keys()]
    problems += [
        f"{name} is {found[name]}, not {wanted[name]}"
        for name in wanted.keys() & found.keys()
        if found[name] != wanted[name]
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:3])
        raise SettingsError(f"{path}: a checkpoint of another network ({len(problems)} differences: {shown})")
    floats = {name: value.float() for name, value in _without_counters(arrays).items()}
    module.load_state_dict(floats, strict=False, assign=True)


def make_up(make: Make, weights: str) -> tuple[ClipNetwork, WeightsRecord]:
    """The network with the weights of `random:SEED`, said loudly; torch's own generator is left as it was."""
    log.warning("--weights %s: the network is untrained, its features mean nothing", weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed(weights))
        network = make(None)
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):  # keeps the signal's size, so that features tell clips apart
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    speed_up(network)
    return network, WeightsRecord(source=weights, sha256=digest.hexdigest())


def _without_counters(arrays: Mapping[str, Tensor]) -> Arrays:
    """Batch norm counts its training batches; files of 2018 do not have that, and nothing here needs it."""
    return {name: value for name, value in arrays.items() if not name.endswith("num_batches_tracked")}
