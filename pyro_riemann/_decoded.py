"""What a decoder returns, read as the outputs of an immersion; of no array library, for both faces.

Decoders return a tensor, a pair (mean, standard deviation), a mapping or a dataclass of which one entry is meant, or a
distribution, or several independent ones. What an array and what a distribution is, the face says by its types.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeGuard, TypeVar

Array = TypeVar("Array")
Law = TypeVar("Law")
Output = str | int | tuple[str | int, ...] | None


class OutputError(ValueError):
    """What an immersion returns cannot be read as its output."""


def outputs(result: object, output: Output, array: type[Array], law: type[Law]) -> tuple[Array, ...] | tuple[Law, ...]:
    """The arrays in ``result``, those of a tuple in its order, or the distributions, which are independent.

    Args:
        result: what the immersion returned.
        output: names (of a mapping, or attributes) or positions of the entries meant; None for the obvious one.
        array: the type of arrays.
        law: the type of distributions.

    Raises:
        OutputError: if no entry of ``result`` or more than one could be meant, or ``output`` names none.
    """
    known = array, law
    if output is not None:
        names = output if isinstance(output, tuple) else (output,)
        found: list[object] = [_named(result, name, known) for name in names]
    elif isinstance(result, known):
        found = [result]
    elif isinstance(result, tuple | list):
        found = list(result)
        if not found or not all(isinstance(part, known) for part in found):
            kinds = ", ".join(type(part).__name__ for part in found)
            raise OutputError(f"`immersion` returns ({kinds}): say by `output=` at which position its output is.")
    else:
        fields = {name: value for name, value in _fields(result).items() if isinstance(value, known)}
        found = list(fields.values())
        if not found:
            raise OutputError(
                f"`immersion` must return an array, a tuple of such, or a distribution; got {kind(result)}."
            )
        if len(found) > 1 and not _all(found, law):
            raise OutputError(
                f"`immersion` returns {kind(result)} with the entries {', '.join(map(repr, fields))}: say by "
                "`output=` which is meant, or `output=(mean, standard deviation)` with the names of both."
            )
    if _all(found, array):
        return tuple(found)
    if _all(found, law):
        return tuple(found)
    raise OutputError("`immersion` returns arrays beside distributions: say by `output=` which are meant.")


Entry = TypeVar("Entry")


def _all(found: list[object], of: type[Entry]) -> TypeGuard[list[Entry]]:
    return all(isinstance(part, of) for part in found)


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


def _named(result: object, name: str | int, known: tuple[type, type]) -> object:
    try:
        if isinstance(name, int) or isinstance(result, Mapping):
            entry = result[name]  # type: ignore[index]  # what cannot be indexed is told below
        else:
            entry = getattr(result, name)
    except (LookupError, TypeError, AttributeError) as error:
        fields = ", ".join(map(repr, _fields(result))) or f"none, being {kind(result)}"
        raise OutputError(
            f"`output` asks for {name!r}, which the immersion does not return; it has: {fields}."
        ) from error
    if not isinstance(entry, known):
        raise OutputError(f"`output={name!r}` of the immersion is {kind(entry)}, not an array or a distribution.")
    return entry
