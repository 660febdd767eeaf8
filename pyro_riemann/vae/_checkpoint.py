"""Checkpoints without pickles, and what must hold of one before a model takes anything from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from pyro_riemann import _files, _store
from pyro_riemann._identity import differences

CHECKPOINT = _files.Kind(
    "checkpoint",
    version=3,
    remedy="Start over with `resume=False` (`--fresh` on the command line), or choose another folder",
)


def save_checkpoint(folder: str | Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
    """Write a checkpoint so that an interrupt at any moment, or a loss of power, leaves the previous one or this one.

    The tensors go to a new safetensors file; ``checkpoint.json``, with everything else and both checksums, is replaced
    last and in one step.

    Args:
        folder: made if missing.
        tensors: finite tensors of any shape, from ``()`` on, by name.
        info: JSON-able.

    Raises:
        ValueError: if a tensor has a NaN or an infinity; the previous checkpoint stays.
        OSError, FileNotFoundError: if it cannot be written, in one sentence; the previous checkpoint stays.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(folder, {"w": torch.ones(2)}, {"epoch": 3})
        ...     tensors, info = load_checkpoint(folder)
        >>> tensors["w"], info["epoch"]
        (tensor([1., 1.]), 3)
    """
    _store.write_bundle(Path(folder), CHECKPOINT, tensors, info)


def load_checkpoint(folder: str | Path, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and information written by :func:`save_checkpoint`.

    The files are taken for data from a stranger: no code runs, no name in them is followed, no link is.

    Args:
        folder: where it was saved.
        device: where the tensors go.

    Returns:
        Tensors by name, each of the shape that it was saved with: one number has ``()``. And the information.

    Raises:
        FileNotFoundError: if the folder holds no checkpoint.
        ValueError: if it was damaged or changed, or is of another version of the format.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(folder, {"w": torch.ones(2)}, {"epoch": 3})
        ...     load_checkpoint(folder)[1]["epoch"]
        3
    """
    return _store.read_bundle(Path(folder), CHECKPOINT, device)


# -------------------------------------------------------------------- what a training makes of it


_OTHER = {"data": "other data", "model": "another model", "settings": "other settings"}


def refuse(folder: Path, reason: str) -> NoReturn:
    """Raise the error of a checkpoint that cannot be used."""
    CHECKPOINT.refuse(folder / "checkpoint.json", reason)


def check_identity(folder: Path, info: Mapping[str, Any], given: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise unless ``info["identity"]`` is ``given``: a table each for data, model and settings."""
    saved = info.get("identity")
    if not isinstance(saved, dict) or not all(isinstance(saved.get(part), dict) for part in given):
        refuse(folder, "it does not say of what it is")
    for part, mine in given.items():
        if changed := differences(saved[part], mine):
            raise ValueError(
                f"the checkpoint in {folder} was made with {_OTHER[part]} {changed}. Resume with the same, start over "
                "with `resume=False` (`--fresh` on the command line), or choose another folder."
            )


def check_numbers(folder: Path, info: Mapping[str, Any], ranges: Mapping[str, tuple[type, float, float]]) -> None:
    """Raise unless each named entry is a number of that type, least and most."""
    for name, (kind, least, most) in ranges.items():
        number: Any = info.get(name)
        value = number
        if isinstance(value, bool) is not (kind is bool) or not isinstance(value, kind | int):
            refuse(folder, f"its {name!r} is {value!r}, not a {kind.__name__}")
        elif not least <= number <= most:  # a NaN neither
            refuse(folder, f"its {name!r} is {value!r}, not between {least:g} and {most:g}")


def check_losses(folder: Path, losses: Any, batches: int, unfinished: bool) -> None:
    """Raise unless these are the losses of the first steps of an epoch, none or some of them."""
    if not numbers(losses) or len(losses) >= batches or (losses and not unfinished):
        refuse(folder, "its losses are not those of the beginning of an epoch")


def numbers(values: Any) -> bool:
    """Whether this is a list of finite floats."""
    return isinstance(values, list) and all(isinstance(value, float) and math.isfinite(value) for value in values)


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


# -------------------------------------------------------------------- Adam's moments


MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def adam_state(parameter: Tensor, rate: float, moments: Mapping[str, Tensor] | None) -> dict[str, Any]:
    """State of an Adam that holds one parameter, as Pyro keeps them."""
    state = torch.optim.Adam([nn.Parameter(parameter.detach())], lr=rate).state_dict()
    if moments:
        state["state"][0] = dict(moments)
    return state


def check_moments(folder: Path, found: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    """Raise unless ``found`` holds, by ``name/moment``, all three moments of some of the parameters."""
    names = {key.rpartition("/")[0] for key in found}
    if odd := sorted(names - parameters.keys()):
        refuse(folder, f"it has moments of {odd[0]!r}, which is no parameter")
    expected = {
        f"{name}/{moment}": torch.zeros((), device="cpu") if moment == "step" else parameters[name]
        for name in names
        for moment in MOMENTS
    }
    _store.check_tensors(folder, CHECKPOINT, found, expected, "the optimiser")
    for key, value in found.items():
        if not key.endswith("/exp_avg") and bool((value < 0).any()):
            refuse(folder, f"the optimiser's {key!r} is negative")


# -------------------------------------------------------------------- generators


def generators(device: torch.device) -> dict[str, Tensor]:
    """States of the random generators that a step on ``device`` draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_generators(states: dict[str, Tensor], device: torch.device) -> None:
    """Inverse of :func:`generators`."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


def check_noise(folder: Path, states: dict[str, Tensor], device: torch.device | None) -> None:
    """Raise unless these are states of the generators of ``device``, or none where no device is given."""
    expected = set() if device is None else set(generators(device))
    if states.keys() != expected:
        refuse(folder, "it was saved within an epoch on another kind of device: go on there")
    for name, state in states.items():
        try:
            torch.Generator(name).set_state(state)
        except (RuntimeError, TypeError) as error:
            refuse(folder, f"the state of its {name} generator is none ({error})")


# -------------------------------------------------------------------- the folder of a run


@contextmanager
def open_folder(folder: Path, resume: bool) -> Iterator[bool]:
    """Hold a folder of checkpoints, alone; tells whether there is one to go on from. Else it is as if there was none.

    Raises:
        OSError: if another process holds it, or nothing can be written there.
    """
    with _files.locked(folder / "checkpoint.lock"):
        if not (found := resume and _store.has_bundle(folder, CHECKPOINT)):
            _store.discard_bundle(folder, CHECKPOINT)
        yield found
