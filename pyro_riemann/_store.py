"""Records and bundles: files that say what they are, and that are not believed without their checksums.

A *record* is a JSON object that says its format, its version and its own SHA-256. A *bundle* is a record beside a
safetensors file, whose SHA-256 the record holds. Their names are fixed here: none is ever taken from a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from pyro_riemann._files import Kind, make_folder, plainly, read_file, write_file

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
        with plainly("replace", path):
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
