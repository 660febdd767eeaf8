"""The public names of the package, as a reader of the reference meets them: found, not listed.

A module is public if no part of its path begins with an underscore; its names are those of its ``__all__``. A class
stands there with the public methods and properties that a class of this package defines, also a private base.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyro_riemann

# Their face is the command line, which explains itself by `--help`.
COMMANDS = ("pyro_riemann.cli", "pyro_riemann.experiments", "pyro_riemann.experiments.quickstart")
# What stands on the library: functions to call from a script, not to build with.
APPLICATIONS = ("pyro_riemann.experiments.", "pyro_riemann.explorer")


@dataclass(frozen=True)
class PublicName:
    """A class, function, method or property, and the docstring that its reader sees."""

    path: str
    kind: str
    text: str
    target: Any  # the class, or the function behind a method or property
    owner: type | None = None
    inherited: bool = False  # the text is that of a method which this one overrides


@cache
def public_modules() -> tuple[str, ...]:
    """Dotted names of the public modules, both twins; without the commands."""
    found = ["pyro_riemann"]
    for module in pkgutil.walk_packages(pyro_riemann.__path__, "pyro_riemann."):
        if not any(part.startswith("_") for part in module.name.split(".")) and module.name not in COMMANDS:
            found.append(module.name)
    return tuple(found)


def library_modules() -> list[str]:
    """The public modules without the applications."""
    return [module for module in public_modules() if not module.startswith(APPLICATIONS)]


def is_ours(target: Any) -> bool:
    """Whether a class or function is defined in this package."""
    return str(getattr(target, "__module__", "")).split(".")[0] == "pyro_riemann"


def exported() -> Iterator[tuple[str, str, Any]]:
    """Module, name and value of everything in an ``__all__``, the shortest paths first."""
    for module in public_modules():
        loaded = importlib.import_module(module)
        yield from ((module, name, getattr(loaded, name)) for name in loaded.__all__)


@cache
def public_names() -> tuple[PublicName, ...]:
    """Every public class and function once, under its shortest path, followed by its methods and properties."""
    names: list[PublicName] = []
    seen: set[Any] = set()
    for module, short, target in exported():
        if not (callable(target) and is_ours(target)) or target in seen:
            continue
        seen.add(target)
        path, is_class = f"{module}.{short}", inspect.isclass(target)
        text = inspect.cleandoc(target.__doc__ or "")
        names.append(PublicName(path, "class" if is_class else "function", text, inspect.unwrap(target)))
        for member in members(target, module) if is_class else ():
            key = (member.owner, member.path.rpartition(".")[2])
            if key not in seen:
                seen.add(key)
                names.append(member)
    return tuple(names)


def public_constants() -> list[tuple[str, str]]:
    """Module and name of what is exported and neither class nor function."""
    return [(module, name) for module, name, value in exported() if not (callable(value) and is_ours(value))]


def members(cls: type, module: str) -> Iterator[PublicName]:
    """Public methods and properties of a class that are written in this package; each once, where it is written."""
    for name in dir(cls):
        owner = next(base for base in cls.__mro__ if name in vars(base))
        function = function_behind(vars(owner)[name])
        if (name.startswith("_") and name != "__call__") or not is_ours(owner):
            continue
        if function is not None and is_ours(function):  # not what a dataclass or named tuple generates
            kind = "property" if is_property(vars(owner)[name]) else "method"
            text, inherited = docstring(owner, name)
            owner = face(owner)
            yield PublicName(f"{module}.{owner.__name__}.{name}", kind, text, function, owner, inherited)


@cache
def face(owner: type) -> type:
    """The one public class through which all others come by the methods of a private one, if there is one."""
    classes = {value for _, _, value in exported() if inspect.isclass(value)}
    lowest = {
        [base for base in cls.__mro__ if base in classes and owner in base.__mro__][-1]
        for cls in classes
        if owner in cls.__mro__
    }
    return owner if owner in classes or len(lowest) != 1 else lowest.pop()


def docstring(owner: type, name: str) -> tuple[str, bool]:
    """The docstring of a member; where it has none, that of the member of this package that it overrides."""
    for base in owner.__mro__:
        function = function_behind(vars(base)[name]) if name in vars(base) else None
        if function is not None and function.__doc__ and is_ours(base):
            return inspect.cleandoc(function.__doc__), base is not owner
    return "", False


def function_behind(member: Any) -> Callable[..., Any] | None:
    """The function of a method, class method, static method, property or lazy attribute; None for data."""
    if isinstance(member, staticmethod | classmethod):
        member = member.__func__
    if isinstance(member, functools.cached_property):
        member = member.func
    member = getattr(member, "fget", member)
    return inspect.unwrap(member) if inspect.isfunction(member) else None


def is_property(member: Any) -> bool:
    return not (inspect.isfunction(member) or isinstance(member, staticmethod | classmethod))


def described_constants(module: str) -> set[str]:
    """Names that a file of the module, or of its package, assigns with a string after the assignment."""
    path = Path(str(importlib.import_module(module).__file__))
    found = set()
    for file in path.parent.glob("*.py") if path.name == "__init__.py" else [path]:
        body = ast.parse(file.read_text()).body
        for statement, after in pairwise(body):
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found
