"""What a decoder returns, read as the outputs of an immersion; of no array library, for both faces.

Decoders return a tensor, a pair (mean, standard deviation), a mapping or a dataclass of which one entry is meant, or a
distribution. What a single entry stands for is asked of the face: it knows its arrays and its distributions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeVar

Array = TypeVar("Array")
Output = str | int | tuple[str | int, ...] | None
Read = Callable[[object], tuple[Array, ...] | None]


class OutputError(ValueError):
    """What an immersion returns cannot be read as its output."""


def outputs(result: object, output: Output, read: Read[Array]) -> tuple[Array, ...]:
    """The arrays in ``result``, those of a tuple in its order.

    Args:
        result: what the immersion returned.
        output: names (of a mapping, or attributes) or positions of the entries meant; None for the obvious one.
        read: the arrays that an entry stands for: itself, or moments of a distribution; None if it is neither.

    Raises:
        OutputError: if no entry of ``result`` or more than one could be meant, or ``output`` names none.
    """
    if output is not None:
        names = output if isinstance(output, tuple) else (output,)
        return tuple(array for name in names for array in _named(result, name, read))
    if (arrays := read(result)) is not None:
        return arrays
    if isinstance(result, tuple | list):
        parts = [read(part) for part in result]
        if not parts or any(part is None for part in parts):
            kinds = ", ".join(type(part).__name__ for part in result)
            raise OutputError(f"`immersion` returns ({kinds}): say by `output=` at which position its output is.")
        return tuple(array for part in parts if part is not None for array in part)
    fields = _fields(result)
    known = {name: arrays for name, value in fields.items() if (arrays := read(value)) is not None}
    if len(known) == 1:
        return next(iter(known.values()))
    if not known:
        raise OutputError(f"`immersion` must return an array, a tuple of such, or a distribution; got {kind(result)}.")
    raise OutputError(
        f"`immersion` returns {kind(result)} with the entries {', '.join(map(repr, known))}: say by `output=` which is "
        "meant, or `output=(mean, standard deviation)` with the names of both."
    )


def kind(result: object) -> str:
    """The type of what was returned, for a message."""
    return f"a {type(result).__name__}"


def _fields(result: object) -> dict[str, object]:
    if isinstance(result, Mapping):
        return {str(name): value for name, value in result.items()}
    if dataclasses.is_dataclass(result):
        return {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    try:
        return dict(vars(result))
    except TypeError:  # a number, a string, nothing
        return {}


def _named(result: object, name: str | int, read: Read[Array]) -> tuple[Array, ...]:
    try:
        if isinstance(name, int) or isinstance(result, Mapping):
            entry = result[name]  # type: ignore[index]  # what cannot be indexed is told below
        else:
            entry = getattr(result, name)
    except (LookupError, TypeError, AttributeError) as error:
        known = ", ".join(map(repr, _fields(result))) or f"none, being {kind(result)}"
        raise OutputError(
            f"`output` asks for {name!r}, which the immersion does not return; it has: {known}."
        ) from error
    if (arrays := read(entry)) is None:
        raise OutputError(f"`output={name!r}` of the immersion is {kind(entry)}, not an array or a distribution.")
    return arrays
