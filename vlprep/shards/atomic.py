"""Files that appear whole or not at all, and the lock of a store's folder.

A file is written under a temporary name beside its own, flushed, fsynced, renamed, and the folder fsynced. Advisory
locks (flock: dropped by the kernel when their process dies, honoured across hosts by NFS) make this safe for several
processes:

- `.lock` is held for the moments in which a folder changes (a plan grows, a part is committed), never during work;
- a temporary file is locked by its writer, so one that nobody holds was left by a killed process and may go;
- a folder that one process alone may work in, such as a pretraining run's, is held for as long as that takes.

Where a file system knows no locks, nothing is ever cleaned up there, and `--shard-of` keeps the processes apart.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import platform
import uuid
from collections.abc import Iterator
from pathlib import Path

from vlprep.errors import SettingsError, VlprepError

LOCK_NAME = ".lock"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_HELD = {errno.EACCES, errno.EAGAIN}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}
_BUFFER_BYTES = 1 << 20


@contextlib.contextmanager
def clear_errors(
    folder: Path, *, again: str = "which resumes", elsewhere: str = "choose another folder with --out"
) -> Iterator[None]:
    """Say what a full disk or a read-only folder means for the user, and of other files' errors which file it is.

    `again` says what the same command does then, `elsewhere` how another folder is chosen. Errors without a file's name
    pass.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise VlprepError(
                f"no space left for {folder} ({error.strerror}): free some and run the same command again, {again}, "
                f"or {elsewhere}"
            ) from error
        if error.errno in _FORBIDDEN:
            raise VlprepError(
                f"cannot write in {folder} ({error.strerror}): make it writable or {elsewhere}"
            ) from error
        if error.errno is None or error.filename is None:
            raise
        raise VlprepError(f"cannot work in {folder} ({error.filename}: {error.strerror}): {elsewhere}") from error


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, waiting for its holder, with `clear_errors`. Not re-entrant."""
    with clear_errors(folder), open(folder / LOCK_NAME, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield


@contextlib.contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Keep other processes out of an existing folder.

    Raises `SettingsError` at once, saying who has it, where another process does. The lock is a record lock: forked
    processes do not share it, so that a killed one's children cannot hold up the next.
    """
    with contextlib.ExitStack() as stack:
        with clear_errors(folder):
            file = stack.enter_context(open(folder / LOCK_NAME, "a+"))
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _HELD:
                    file.seek(0)
                    raise SettingsError(
                        f"{folder} is in use by {file.read().strip() or 'another process'}: wait for its end, or choose"
                        " another folder with --out"
                    ) from error
                if error.errno not in _NO_LOCKS:
                    raise
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
        yield


class NewFile(io.RawIOBase):
    """A file in the making: hashed while it is written, seen under its name only after `publish`.

    Make it while holding the folder's lock, or `remove_stale` may take it for a dead one before it has its own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_bytes = 0
        self._sha256 = hashlib.sha256()
        self._temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        self._file = open(self._temporary, "xb", buffering=_BUFFER_BYTES)  # noqa: SIM115 (closed by publish or discard)
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.num_bytes

    def write(self, data: bytes) -> int:  # type: ignore[override]  # Arrow gives bytes
        self._file.write(data)
        self._sha256.update(data)
        self.num_bytes += len(data)
        return len(data)

    def sync(self) -> None:
        """Bring all bytes to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def publish(self) -> None:
        """After `sync`: give the file its name."""
        os.replace(self._temporary, self.path)
        self._file.close()
        self.close()
        sync_folder(self.path.parent)

    def discard(self) -> None:
        """Leave no trace of it; errors of a full disk are no news here."""
        self._temporary.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._file.close()
        self.close()


def write_file(path: Path, data: bytes) -> None:
    """Write a small file whole or not at all. Call it while holding the folder's lock."""
    file = NewFile(path)
    try:
        file.write(data)
        file.sync()
        file.publish()
    except BaseException:
        file.discard()
        raise


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stale_files(folder: Path) -> list[Path]:
    """Temporary files whose writer is dead."""
    return [path for path in sorted(folder.glob(".*.tmp")) if not _is_held(path)]


def remove_stale(folder: Path) -> None:
    """Remove what killed processes left. Call it while holding the folder's lock."""
    for path in stale_files(folder):
        path.unlink(missing_ok=True)


def _is_held(path: Path) -> bool:
    try:
        with open(path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
