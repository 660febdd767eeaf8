"""Names that are imported at their first use, and which extra to install where that needs a missing package."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

FACES = """`pip install "pyro-riemann[torch]"` is for Pyro, `pip install "pyro-riemann[jax]"` for NumPyro, and
`pip install "pyro-riemann[all]"` for both with everything around them."""


@contextmanager
def needs(what: str, extra: str) -> Iterator[None]:
    """Where a package is missing, say that ``what`` needs it and which ``extra`` brings it.

    Raises:
        ImportError: instead of the ``ModuleNotFoundError`` of a package that is not ours.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing == "pyro_riemann":
            raise
        advice = FACES.replace("\n", " ") if extra in ("torch", "jax") else f'`pip install "pyro-riemann[{extra}]"`.'
        raise ImportError(f"{what} needs {missing}, which is not installed: {advice}", name=error.name) from error


def lazily(
    package: str, names: Sequence[str], modules: dict[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package whose names are imported at first use.

    Args:
        package: its name.
        names: its public names, each defined in one of the modules.
        modules: the modules in the order in which names are looked for, and the extra that each of them needs.
    """
    loaded: dict[str, object] = {}

    def module(name: str, what: str) -> object:
        with needs(f"{package}.{what}", modules[name]):
            return importlib.import_module(f"{package}.{name}")

    def get(name: str) -> object:
        if name in loaded:
            return loaded[name]
        if name in modules:
            return module(name, name)
        if name in names:
            for own in modules:
                if (value := vars(module(own, name)).get(name)) is not None:
                    return loaded.setdefault(name, value)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def listed() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *names, *modules})

    return get, listed
