"""Files that outlive a crash and are not trusted: durable writes, checked reads, one writer at a time."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pyro_riemann._warn import warn

if os.name == "posix":
    import fcntl

_POSIX = os.name == "posix"
_NO_LINK = os.O_NOFOLLOW if _POSIX else 0
_NO_WAIT = os.O_NONBLOCK if _POSIX else 0  # a pipe must not hold its reader


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name, the version of its format, and what to do about one that is damaged."""

    name: str
    version: int
    remedy: str

    def refuse(self, path: Path, reason: str, cause: BaseException | None = None) -> NoReturn:
        """Raise the one error of every damage."""
        raise ValueError(f"{path} cannot be used as a {self.name}: {reason}. {self.remedy}.") from cause


# -------------------------------------------------------------------- files


def make_folder(folder: Path) -> Path:
    """Make a folder where there is none; an ``OSError`` in plain words if that cannot be."""
    with plainly("make the folder", folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_file(path: Path, content: bytes | str) -> None:
    """Replace a file in one step, and come back when it is on the disk.

    At any moment, also after a loss of power, the name stands for all of the old content or all of the new. A link of
    that name is replaced, not followed.

    Raises:
        OSError: in one sentence, if the disk is full, the folder cannot be written to and so on; the old file stays.
    """
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    with plainly("write", path):
        try:
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o666), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def read_file(path: Path, kind: Kind) -> bytes:
    """The content of an ordinary file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the name is that of a link, a folder or a device, or cannot be read.
    """
    try:
        with open(os.open(path, os.O_RDONLY | _NO_LINK | _NO_WAIT), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                kind.refuse(path, "it is not an ordinary file")
            return file.read()
    except FileNotFoundError:
        raise  # that there is none is for the caller to judge
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else f"it cannot be read ({error.strerror})"
        kind.refuse(path, reason, error)


def _sync_folder(folder: Path) -> None:
    if _POSIX:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def plainly(action: str, path: Path) -> Iterator[None]:
    """Say in one sentence what the system refuses, under the same error number."""
    try:
        yield
    except OSError as error:
        told = OSError(
            f"cannot {action} {path}: {error.strerror or error}. What was saved before is as it was; free some space, "
            "mend the permissions, or choose another folder."
        )
        told.errno = error.errno
        raise told from error


# -------------------------------------------------------------------- one writer at a time


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock file while the block runs; the system takes it back from a process that dies.

    Args:
        path: of the lock file, beside what it protects; its stem begins the names of the files that are.
        wait: until whoever holds it has ended.

    Raises:
        OSError: if another process, or another block of this one, holds it.
    """
    handle = _acquire(path, wait)
    try:
        for stale in path.parent.glob(f".{path.stem}.*.partial"):  # of a process that was killed
            stale.unlink(missing_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def _acquire(path: Path, wait: bool) -> int:
    make_folder(path.parent)
    while True:
        with plainly("lock", path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
        if not _POSIX:
            return handle  # there an open file cannot be removed, and nothing else is promised
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            owner = os.read(handle, 20).decode("ascii", "replace")
            os.close(handle)
            raise OSError(
                f"{path.parent} is in use by another process ({owner}): wait until it ends, or choose another folder."
            ) from None
        except OSError as error:
            warn(
                f"the file system of {path.parent} has no locks ({error.strerror}): see to it that no other process "
                "writes there."
            )
            return handle
        if _is_at(handle, path):
            with contextlib.suppress(OSError):  # a full disk; who holds it is only for the message
                os.ftruncate(handle, 0)
                os.write(handle, str(os.getpid()).encode())
            return handle
        os.close(handle)  # its holder has just removed it


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is the one at that path, which others remove and make anew."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False
