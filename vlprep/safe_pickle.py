"""Read a pickle that may build arrays, containers, text and numbers, and nothing else.

Published weights (`.pkl` of py-bottom-up-attention) and features (`.npy` of ViLBERT and MMF, the `info` of MILVLG's
`.npz`) are pickles, many of them written by Python 2. An ordinary unpickler calls whatever the file names; this one
knows the few names below and refuses the rest.
"""

from __future__ import annotations

import codecs
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy._core import multiarray
from numpy._core.numeric import _frombuffer  # type: ignore[attr-defined]  # how protocol 5 stores arrays

from vlprep.errors import SettingsError

_NUMPY = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")  # the private package was renamed in NumPy 2
        for module, name, function in (
            ("multiarray", "_reconstruct", multiarray._reconstruct),
            ("multiarray", "scalar", multiarray.scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
}
_PLAIN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): codecs.encode,  # bytes, as Python 3 writes them for Python 2
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (set, frozenset, bytearray, complex)
    },
}
_ALLOWED: dict[tuple[str, str], Any] = _NUMPY | _PLAIN

NUMPY_BUILDERS = tuple(_NUMPY.values())
"""The functions and types that rebuild a NumPy array; `torch.load` may be told to trust them too."""

_BROKEN = (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error)


class StandIn:
    """Takes the place of a library's class: keeps the attributes that the pickle gives it, runs none of its code."""


class _ArraysOnly(pickle.Unpickler):
    def __init__(self, file: IO[bytes], label: str, stand_in_for: frozenset[str]) -> None:
        super().__init__(file, encoding="latin1")
        self._label = label
        self._stand_in_for = stand_in_for

    def find_class(self, module: str, name: str) -> Any:
        if module in self._stand_in_for:
            return StandIn
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise SettingsError(
                f"{self._label}: this pickle wants to call {module}.{name}; vlprep only builds arrays and plain"
                " containers from pickles. If you trust its source, convert it to .npz or .safetensors yourself."
            ) from None


def load(source: Path | IO[bytes], *, stand_in_for: frozenset[str] = frozenset()) -> Any:
    """Return what a pickle holds, if that is arrays, containers, str, bytes and numbers.

    Python 2's strings are read as latin1, as NumPy's own arrays of that time need it. Objects of the classes in the
    modules `stand_in_for` become `StandIn`s with the same attributes.

    Raises:
        SettingsError: The file asks for any other global (named in the message), or is not a complete pickle.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return _load(file, str(source), stand_in_for)
    return _load(source, str(getattr(source, "name", "pickle")), stand_in_for)


def _load(file: IO[bytes], label: str, stand_in_for: frozenset[str]) -> Any:
    try:
        return _ArraysOnly(file, label, stand_in_for).load()
    except SettingsError:  # a ValueError too, but already says all there is to say
        raise
    except _BROKEN as error:
        raise SettingsError(
            f"{label}: not a complete pickle ({type(error).__name__}: {error}); fetch it again"
        ) from error
