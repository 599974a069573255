"""Files as memory, and asking the kernel for their pages ahead of use, where it can be asked."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from vlprep.errors import VlprepError

_WILL_NEED: int | None = getattr(mmap, "MADV_WILLNEED", None)
_RANDOM: int | None = getattr(mmap, "MADV_RANDOM", None)
_ASKED_BYTES = 1 << 20
"""At a time: Linux ignores what goes beyond the largest transfer of the device, usually a little more than this."""


def map_file(path: Path) -> pa.Buffer:
    """A file as memory, of which nothing is read yet.

    The map outlives its file descriptor, of which a process may have no more than a thousand. Arrow has the kernel read
    what it makes a buffer of, so it makes one of the first byte only.
    """
    with pa.memory_map(str(path)) as source:
        size, first = source.size(), source.read_buffer(1)
    return pa.foreign_buffer(first.address, size, base=first) if size else first


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Around all that has Arrow look into a part: raises `VlprepError` where it cannot."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise VlprepError(f"{path} is damaged ({error}): see `vlprep store verify {path.parent}`") from error


def will_need(address: int, num_bytes: int) -> None:
    """Have mapped bytes read from the disk in the background, if they are not in memory."""
    begin = address - address % mmap.PAGESIZE
    for start in range(begin, address + num_bytes, _ASKED_BYTES):
        _advise(start, min(_ASKED_BYTES, address + num_bytes - start), _WILL_NEED)


def read_by_page(buffer: pa.Buffer) -> None:
    """Of this map, read only the pages that are used or asked for, and none around them."""
    _advise(buffer.address, buffer.size, _RANDOM)


def memory_bytes() -> int:
    """Of this machine; 0 where that cannot be told."""
    with contextlib.suppress(ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 0


def _advise(address: int, num_bytes: int, advice: int | None) -> None:
    if _madvise is not None and advice is not None:
        _madvise(address, num_bytes, advice)  # advice only: what it returns changes nothing


def _find_madvise() -> Callable[[int, int, int], int] | None:
    try:
        found = ctypes.CDLL(None).madvise
    except (AttributeError, OSError, TypeError):
        return None
    found.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return found


_madvise = _find_madvise()
