"""Files that outlive a crash and are not trusted: durable writes, checked reads, one writer at a time.

A *record* is a JSON object that says its format, its version and its own SHA-256. A *bundle* is a record beside a
safetensors file, whose SHA-256 the record holds. Their names are fixed here: none is ever taken from a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import stat
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import safetensors.torch
import torch
from torch import Tensor

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
    with _plainly("make the folder", folder):
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
    with _plainly("write", path):
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
def _plainly(action: str, path: Path) -> Iterator[None]:
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


# -------------------------------------------------------------------- records


def write_record(path: Path, kind: Kind, body: Mapping[str, Any]) -> None:
    """Write a JSON-able object with its format, version and checksum; errors as :func:`write_file`."""
    head = {"format": f"pyro_riemann {kind.name}", "version": kind.version}
    record = {**head, "checksum": "", **body}
    record["checksum"] = _checksum(record)
    write_file(path, json.dumps(record, indent=1) + "\n")


def read_record(path: Path, kind: Kind) -> dict[str, Any]:
    """The body that :func:`write_record` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is anything else than such a record, bit for bit.
    """
    data = read_file(path, kind)
    try:
        record = json.loads(data)
        checksum = _checksum(record) if isinstance(record, dict) else None
    except (ValueError, RecursionError) as error:  # also bytes that are no text, numbers and nesting without end
        kind.refuse(path, f"it is no JSON ({type(error).__name__})", error)
    if not isinstance(record, dict) or record.get("format") != f"pyro_riemann {kind.name}":
        kind.refuse(path, "it does not say that it is one of this version")
    if record.get("version") != kind.version:
        kind.refuse(path, f"it is of version {record.get('version')!r}, this is version {kind.version}")
    if record.get("checksum") != checksum:
        kind.refuse(path, "its checksum is wrong, so it was changed after it was written")
    return {key: value for key, value in record.items() if key not in ("format", "version", "checksum")}


def _checksum(record: Mapping[str, Any]) -> str:
    """SHA-256 of all of a record but itself, whatever its layout."""
    body = {key: value for key, value in record.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# -------------------------------------------------------------------- bundles


def write_bundle(folder: Path, kind: Kind, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
    """Write tensors and what belongs to them; an interrupt at any moment leaves the previous bundle or this one.

    The tensors go to a new file; the record, which says which of two names that is, is replaced last.

    Raises:
        ValueError: if a tensor is not finite: the last good bundle stays.
        OSError: as :func:`write_file`.
    """
    manifest, both = _names(make_folder(folder), kind)
    _check_finite(folder, kind, tensors)
    old, new = both if _current(manifest, kind) == both[0].name else both[::-1]
    # clones: safetensors refuses tensors that share memory
    data = safetensors.torch.save({key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()})
    write_file(new, data)
    body = {**info, "tensors": new.name, "tensors_checksum": hashlib.sha256(data).hexdigest()}
    write_record(manifest, kind, body)
    with contextlib.suppress(OSError):  # of no use any more, of no harm either
        old.unlink(missing_ok=True)


def read_bundle(folder: Path, kind: Kind, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], Any]:
    """Tensors on ``device`` and information that :func:`write_bundle` wrote.

    Raises:
        FileNotFoundError: if there is none in the folder.
        ValueError: if it is damaged in any way.
    """
    manifest, both = _names(folder, kind)
    try:
        info = read_record(manifest, kind)
    except FileNotFoundError:
        raise FileNotFoundError(f"no {kind.name} in {folder}: {manifest.name} is missing.") from None
    path = {path.name: path for path in both}.get(str(info.get("tensors")))
    if path is None:
        kind.refuse(manifest, f"it names {info.get('tensors')!r} for its tensors, not one of {[p.name for p in both]}")
    try:
        data, reason = read_file(path, kind), "its checksum is wrong, so it was changed after it was written"
    except FileNotFoundError:
        data, reason = b"", "it is missing"
    if hashlib.sha256(data).hexdigest() != info.get("tensors_checksum"):
        if read_record(manifest, kind) != info:  # a writer was faster than this reader
            return read_bundle(folder, kind, device)
        kind.refuse(path, reason)
    try:
        tensors = safetensors.torch.load(data)
    except Exception as error:  # that library's own, and whatever a strange header leads to
        kind.refuse(path, f"it is no safetensors file ({type(error).__name__})", error)
    _check_finite(folder, kind, tensors)
    del info["tensors"], info["tensors_checksum"]
    return {key: value.to(device) for key, value in tensors.items()}, info


def discard_bundle(folder: Path, kind: Kind) -> None:
    """Start over: nothing under the names of a bundle counts any more.

    Files and links go; what else bears such a name is moved aside, for it is nothing of ours.
    """
    manifest, both = _names(folder, kind)
    for path in (manifest, *both):
        with _plainly("replace", path):
            if path.is_symlink() or path.is_file():
                path.unlink()
            elif path.exists():
                os.replace(path, path.with_name(f"{path.name}.aside-{secrets.token_hex(4)}"))


def has_bundle(folder: Path, kind: Kind) -> bool:
    """Whether the folder holds anything under the name of a bundle's record, in whatever state."""
    return os.path.lexists(_names(folder, kind)[0])


def _names(folder: Path, kind: Kind) -> tuple[Path, tuple[Path, Path]]:
    first, second = (folder / f"{kind.name}.{turn}.safetensors" for turn in "ab")
    return folder / f"{kind.name}.json", (first, second)


def _current(manifest: Path, kind: Kind) -> str | None:
    """The name of the tensors in use; None where there is no bundle that can be used."""
    try:
        return str(read_record(manifest, kind).get("tensors"))
    except (ValueError, OSError):
        return None


def _check_finite(folder: Path, kind: Kind, tensors: Mapping[str, Tensor]) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            kind.refuse(folder / f"{kind.name}.json", f"its tensor {name!r} holds a NaN or an infinity")


def check_tensors(
    folder: Path, kind: Kind, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], part: str
) -> None:
    """Raise unless ``found`` has the names, shapes and dtypes of ``expected``; ``part`` says of what."""
    manifest = _names(folder, kind)[0]
    if odd := sorted(found.keys() ^ expected.keys()):
        kind.refuse(manifest, f"the tensors of {part} are not those expected: {odd[0]!r} is of one side alone")
    for name, value in expected.items():
        if (found[name].shape, found[name].dtype) != (value.shape, value.dtype):
            mine, theirs = ((tuple(one.shape), one.dtype) for one in (value, found[name]))
            kind.refuse(manifest, f"{name!r} of {part} is {theirs}, not {mine}")


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
        with _plainly("lock", path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
        if not _POSIX:
            return handle  # there an open file cannot be removed, and nothing else is promised
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.path.lexists(path) and os.path.samestat(os.fstat(handle), os.lstat(path)):
                os.ftruncate(handle, 0)
                os.write(handle, str(os.getpid()).encode())
                return handle
        except BlockingIOError:
            owner = os.read(handle, 20).decode("ascii", "replace")
            os.close(handle)
            raise OSError(
                f"{path.parent} is in use by another process ({owner}): wait until it ends, or choose another folder."
            ) from None
        except OSError as error:
            warnings.warn(
                f"the file system of {path.parent} has no locks ({error.strerror}): see to it that no other process "
                "writes there.",
                UserWarning,
                stacklevel=4,
            )
            return handle
        os.close(handle)  # its holder has just removed it
