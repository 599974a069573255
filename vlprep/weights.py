"""Where weights come from: a path, `hf://owner/repo[/file]`, or a family's public place; and what is in the file.

No weights are ever made up in silence. A file that cannot be had is a `SettingsError` that names it and the folder to
put it in; `random:SEED` is an explicit request, and each family that honours it says so in its log and its record.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlprep import safe_pickle
from vlprep.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_NOT_PLAIN = (
    *(pickle.UnpicklingError, struct.error, EOFError, RuntimeError, ValueError, TypeError, LookupError, AssertionError),
)
"""What `torch.load` is known to raise for files that it refuses or that are none of its own."""
_HUB_CANDIDATES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class WeightsRecord:
    """What `store.json` says of the weights behind its numbers."""

    source: str
    """As the user gave it, the public place, or `random:SEED`."""
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicPlace:
    """Where a family's weights are published, and the name they have in `weights_folder()`."""

    file: str
    """For example `butd/pytorch_model.bin`."""
    page: str
    """Where a person finds it."""
    url: str | None = None
    """`hf://…` or `https://…` where a program can fetch it; None where only a person can (a cloud drive)."""
    sha256: str | None = None
    """Of the published file, checked after a download."""


def weights_folder() -> Path:
    """`$VLPREP_WEIGHTS`, or `~/.cache/vlprep/weights`: files put here by hand are found, downloads are kept here."""
    return Path(os.environ.get("VLPREP_WEIGHTS") or Path.home() / ".cache/vlprep/weights").expanduser()


def is_random(weights: str | Path | None) -> bool:
    """Whether the user asked for made-up weights."""
    return isinstance(weights, str) and weights.startswith("random:")


def random_seed(weights: str) -> int:
    """The seed in `random:SEED`."""
    seed = weights.removeprefix("random:")
    if not seed.isdecimal():
        raise SettingsError(f"--weights {weights}: expected random:SEED with a whole number, such as random:0")
    return int(seed)


def resolve(weights: str | Path | None, *, default: PublicPlace | None = None) -> Path:
    """Return the file that `weights` means on this machine, fetching it if need be.

    Args:
        weights: A path, `hf://owner/repo[/file]`, or None for `default`.
        default: The family's public place, if it has one.

    Raises:
        SettingsError: No such file, or it cannot be fetched; the message says what to fetch and where to put it.
    """
    if weights is None:
        if default is None:
            raise SettingsError("no weights are published for this choice: pass --weights FILE")
        return _from_public_place(default)
    if isinstance(weights, str) and weights.startswith("hf://"):
        repo, file = _split_hub(weights)
        return from_hub(repo, file, f"download it elsewhere and pass --weights FILE ({_hub_page(repo)})")
    path = Path(weights).expanduser()
    if not path.is_file():
        raise SettingsError(f"--weights {weights}: no such file")
    return path


def describe(weights: str | Path | None, *, default: PublicPlace | None = None) -> str:
    """The text for `WeightsRecord.source`."""
    if weights is not None:
        return str(weights)
    return (default.url or default.page) if default else "none"


def sha256_of(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_arrays(path: Path) -> dict[str, Tensor]:
    """Return every array of a checkpoint by name, on the CPU.

    Reads `.safetensors`, PyTorch's files (old and new), and pickles of NumPy arrays. An envelope (`model`,
    `state_dict`) is opened and a leading `module.` (DataParallel) removed; entries that are not arrays are left out.

    Raises:
        SettingsError: Not such a file, damaged, or with contents that only running its code could build.
    """
    content = read_plain(path)
    for envelope in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(envelope), Mapping):
            content = content[envelope]
    if not isinstance(content, Mapping):
        raise SettingsError(f"{path}: expected names and arrays, found a {type(content).__name__}")
    arrays = {str(name).removeprefix("module."): _as_tensor(value) for name, value in content.items()}
    named = {name: tensor for name, tensor in arrays.items() if tensor is not None}
    if not named:
        raise SettingsError(f"{path}: no arrays in this file")
    return named


def load_array(path: Path) -> Tensor:
    """The one array that a file holds by itself (MIL-NCE's `word2vec.pth`), on the CPU; raises as `load_arrays`."""
    tensor = _as_tensor(read_plain(path))
    if tensor is None:
        raise SettingsError(f"{path}: expected one array")
    return tensor


def read_plain(path: Path) -> Any:
    """What a file of weights or features holds, whatever its nesting; nothing in it is run. Raises `SettingsError`."""
    import torch  # here, so that modules may name weights without loading torch

    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise SettingsError(f"{path}: not a readable .safetensors file ({error}); fetch it again") from error
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if path.suffix in (".pkl", ".pickle") and not is_zip:
        return safe_pickle.load(path)
    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except _NOT_PLAIN as error:  # torch's own words advise to read the file unsafely
        raise SettingsError(
            f"{path}: not a checkpoint of plain arrays, or damaged; what is read: .safetensors, PyTorch's files of"
            " tensors (.pt, .pth, .bin), and .pkl of NumPy arrays. A whole model has to be saved anew as its state_dict"
        ) from error


def _numpy_globals() -> list[Any]:
    """What PyTorch's own safe loader needs for checkpoints that hold NumPy arrays."""
    dtypes = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")]
    return [*safe_pickle.NUMPY_BUILDERS, *dtypes]


def _as_tensor(value: Any) -> Tensor | None:
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))  # a copy: a pickle's may be read-only
    return None


def _from_public_place(place: PublicPlace) -> Path:
    local = weights_folder() / place.file
    if local.is_file():
        return local
    by_hand = f"fetch it from {place.page} and put it at {local}, or pass --weights FILE"
    if place.url is None:
        raise SettingsError(f"{local.name} is not on this machine and cannot be downloaded by a program: {by_hand}")
    if place.url.startswith("hf://"):
        repo, file = _split_hub(place.url)
        return from_hub(repo, file, by_hand)
    return _download(place.url, local, place.sha256, by_hand)


def _download(url: str, local: Path, sha256: str | None, by_hand: str) -> Path:
    from torch.hub import download_url_to_file

    local.parent.mkdir(parents=True, exist_ok=True)
    log.warning("downloading %s to %s", url, local)
    try:
        download_url_to_file(url, str(local), hash_prefix=sha256, progress=False)
    except (OSError, RuntimeError) as error:  # no network; a wrong hash
        raise SettingsError(f"cannot download {url} ({error}): {by_hand}") from error
    return local


def _split_hub(address: str) -> tuple[str, str | None]:
    owner, _, rest = address.removeprefix("hf://").partition("/")
    name, _, file = rest.partition("/")
    if not owner or not name:
        raise SettingsError(f"--weights {address}: expected hf://owner/repo or hf://owner/repo/file")
    return f"{owner}/{name}", file or None


def _hub_page(repo: str) -> str:
    return f"https://huggingface.co/{repo}/tree/main"


def from_hub(repo: str, file: str | None, by_hand: str) -> Path:
    """A file of a repository, from the cache if it is there; None for the usual names of weights.

    Raises `SettingsError` where it cannot be had, ending with `by_hand`: what a person can do instead.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    candidates = (file,) if file else _HUB_CANDIDATES
    for candidate in candidates:  # what is already on this machine needs no network
        try:
            return Path(hf_hub_download(repo, candidate, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
    for candidate in candidates:
        try:
            return Path(hf_hub_download(repo, candidate))
        except LocalEntryNotFoundError as error:
            raise SettingsError(f"cannot reach the Hub for {candidate} of {_hub_page(repo)}: {by_hand}") from error
        except EntryNotFoundError:
            continue
        except (HfHubHTTPError, OSError) as error:
            raise SettingsError(f"cannot download {candidate} of {_hub_page(repo)} ({error}): {by_hand}") from error
    raise SettingsError(f"{_hub_page(repo)} has no {' or '.join(candidates)}: name the file, hf://{repo}/FILE")
