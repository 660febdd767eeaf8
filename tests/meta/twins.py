"""What the twin has and what it has not, as a page of the docs: ``python -m tests.meta.twins`` writes it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from tests.meta.public_names import is_ours, library_modules

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api" / "twins.md"
ROOT, TWIN = "pyro_riemann", "pyro_riemann.numpyro"


def methods(cls: type) -> set[str]:
    """Public methods and properties that this package gives a class, but for what every torch module has."""
    ours = {name for base in cls.__mro__ if is_ours(base) for name in vars(base) if not name.startswith("_")}
    return ours - set(dir(nn.Module))


def missing(ours: Any, twin: Any) -> list[str]:
    """What a class has and its twin has not."""
    return sorted(methods(ours) - set(dir(twin))) if inspect.isclass(ours) and is_ours(ours) else []


def rows() -> Iterator[tuple[str, list[str], list[str]]]:
    """Module of the torch side, names that both sides have, names that torch's alone has."""
    twins = set(library_modules())
    for module in library_modules():
        if module in (ROOT, TWIN) or module.startswith(TWIN + "."):
            continue
        ours, twin = importlib.import_module(module), module.replace(ROOT, TWIN, 1)
        theirs = importlib.import_module(twin) if twin in twins else None
        both = [name for name in ours.__all__ if theirs is not None and name in theirs.__all__]
        lacks = [name for name in ours.__all__ if name not in both]
        for name in both:
            lacks += [f"{name}.{method}" for method in missing(getattr(ours, name), getattr(theirs, name))]
        yield module.removeprefix(ROOT + "."), both, lacks


def table() -> str:
    """The page's text, in Markdown."""
    lines = [
        "# Both faces, name by name",
        "",
        "What `pyro_riemann.numpyro` has of each module, and what torch's side has alone, written by",
        "`python -m tests.meta.twins` from what the modules export. {doc}`numpyro` says what the twin has of its own.",
        "",
        "| module | in both | torch alone |",
        "| --- | --- | --- |",
    ]
    for module, both, lacks in rows():
        cells = [", ".join(f"`{name}`" for name in sorted(names)) or "—" for names in (both, lacks)]
        lines.append(f"| `{module}` | {cells[0]} | {cells[1] if both else 'all of it'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(table())
