"""What a docstring of this package owes its reader: each rule takes a public name and yields complaints.

The signature says what is due: a parameter is described, a tensor has a shape, an error that the body can raise is
announced. Names say the rest: a density has a measure, what is measured in nats or seconds says so.
"""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any

from tests.meta.public_names import PublicName, function_behind, is_ours

SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example|Source):(.*)$")
ENTRY = re.compile(r"^    \*{0,2}(\w+): (.*)$")

# ``(*batch, d)``: in a literal, a tuple that follows no name (no call), of letters, counts and names of axes
WORDS = "batch|chains|draws|length|height|width|resolution|groups|count|rows|size|sizes|index|latent_dim|data_dim"
AXIS = rf"(?:\*\w+|\.\.\.|[\d\s+*/-]*(?:[A-Za-z]|num_\w+|\w+_dim|{WORDS}|\d+)(?:\[:?-?\d*:?\])?[\d\s+*/-]*)"
SHAPE = re.compile(rf"(?<![\w\]])\((?:{AXIS}(?:,\s*{AXIS})*,?)?\)")
NO_AXES = re.compile(r"\b(scalars?|number)\b")
SAME = re.compile(r"\b(as|like|likewise|same|see)\b")  # the shape of another tensor, or a reference

TENSOR = re.compile(r"\b(Tensor|Array|ArrayLike|ndarray)\b")
DENSITIES = re.compile(
    r"(rsample_with_)?log_(prob|normalizer|volume|mass|heat_kernel|likelihood|volume_element)|prior_mass|joint|"
    r"importance_log_likelihood"
)
MEASURE = re.compile(r"\b(dx|dz|dM|Lebesgue)\b|Riemannian (volume|measure)")
UNITS = {  # what a parameter, field or method of this name stands for, and the words that give its unit
    r"elbo|kl|log_likelihood|joint|importance_log_likelihood": r"\bnats?\b",
    r"\w*seconds|elapsed": r"\bseconds\b",
    r"(squared_)?dist|length|norm": r"\bRiemannian\b|[Gg]eodesic",
    r"time": r"\bvariance\b|\bsquared length\b",
}
SOURCE = re.compile(r"\b(1[89]|20)\d\d\b|\bK20\b|\bC22\b")
PLACE = re.compile(r"\b(eq|sections?|appendix|algorithm|figure|tables?|chapters?|theorem)\b", re.IGNORECASE)
TITLE = re.compile(r"\*[A-Z][^*]+\*")
MATHEMATICAL = {
    *("metrics", "manifolds", "geodesics", "brownian", "distributions", "sampling", "evaluation", "vae"),
    *("autoencoders", "mixtures", "_estimate"),
}


# ---------------------------------------------------------------- parts of a docstring and of a signature


def sections(text: str) -> dict[str, str]:
    """A Google-style docstring by section; what belongs to none, before or between them, under ``""``."""
    found: dict[str, list[str]] = {"": []}
    current = ""
    for line in text.splitlines():
        if match := SECTION.match(line):
            current = match[1]
            found.setdefault(current, []).append(match[2])
        else:
            if line and not line.startswith(" ") and current != "Source":  # prose goes on
                current = ""
            found[current].append(line)
    return {name: "\n".join(lines) for name, lines in found.items()}


def entries(text: str, *titles: str) -> dict[str, str]:
    """Names and descriptions that are listed in some sections."""
    found: dict[str, str] = {}
    name = ""
    for line in "\n".join(sections(text).get(title, "") for title in titles).splitlines():
        if match := ENTRY.match(line):
            name = match[1]
            found[name] = match[2]
        elif name:
            found[name] += " " + line.strip()
    return found


def described_in(name: PublicName) -> dict[str, str]:
    return entries(name.text, "Args", "Attributes")


def parameters(name: PublicName) -> dict[str, str]:
    """Public parameters and their annotations; those of a constructor only if it is written in this package."""
    if name.kind == "property" or (name.kind == "class" and not is_ours(constructor(name.target))):
        return {}
    found = inspect.signature(name.target).parameters
    return {
        key: annotation(parameter.annotation)
        for key, parameter in found.items()
        if key not in ("self", "cls") and not key.startswith("_")
    }


def constructor(cls: type) -> Any:
    """What makes an instance: ``__init__``, or the class itself where a dataclass or named tuple generates that."""
    if "__dataclass_fields__" in vars(cls) or hasattr(cls, "_fields"):
        return cls
    return next(vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base))


def annotation(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return ""
    return getattr(value, "__forward_arg__", value if isinstance(value, str) else str(value))


def is_tensor(kind: str) -> bool:
    return bool(TENSOR.search(kind)) and "Callable" not in kind


def has_shape(text: str) -> bool:
    literals = " ".join(re.findall(r"``(.*?)``", text, re.DOTALL))
    return bool(SHAPE.search(literals) or NO_AXES.search(text))


def is_record(cls: Any) -> bool:
    """Named tuples, dataclasses: they hold what a function computes or takes, and that function has the source."""
    return inspect.isclass(cls) and constructor(cls) is cls


# ---------------------------------------------------------------- the rules


def summary(name: PublicName) -> Iterator[str]:
    """A sentence first."""
    first = name.text.split("\n\n")[0]
    if not name.text:
        yield "has no docstring"
    elif not first.endswith("."):
        yield f"the summary does not end with a full stop: {first!r}"


def arguments(name: PublicName) -> Iterator[str]:
    """Every parameter under Args, fields under Attributes; one or two of a method may be named in its text instead."""
    own, listed = parameters(name), described_in(name)
    for key in own:
        in_text = name.kind == "method" and len(own) <= 2 and re.search(rf"\b{key}\b", name.text)
        if key not in listed and not in_text:
            yield f"`{key}` is not described under Args"
    for key in entries(name.text, "Args"):
        if key not in own:
            yield f"`{key}` is described under Args, but is no parameter"


def shapes(name: PublicName) -> Iterator[str]:
    """Every tensor that goes in or comes out has its shape; a key of JAX is opaque and has none."""
    listed = described_in(name)
    for key, kind in parameters(name).items():
        text = listed.get(key, "" if name.kind == "class" else name.text)
        if is_tensor(kind) and key != "key" and not (has_shape(text) or SAME.search(text)):
            yield f"the tensor `{key}` has no shape"
    result = "" if name.kind == "class" else annotation(inspect.signature(name.target).return_annotation)
    parts = sections(name.text)
    if is_tensor(result) and not has_shape("\n".join(parts.get(title, "") for title in ("", "Returns", "Yields"))):
        yield "the tensor that it returns has no shape"


def errors(name: PublicName) -> Iterator[str]:
    """What the body raises, itself or by a helper, stands under Raises; of methods, the class may speak in general."""
    function = constructor(name.target) if name.kind == "class" else name.target
    if inspect.isclass(function):
        function = vars(function).get("__post_init__")
    if not isinstance(function, types.FunctionType) or not is_ours(function):
        return
    told = sections(name.text).get("Raises", "")
    for base in name.owner.__mro__ if name.owner else ():
        of_class = re.sub(r"\n {8,}", " ", sections(inspect.cleandoc(base.__doc__ or "")).get("Raises", ""))
        told += "\n".join(line for line in of_class.splitlines() if is_ours(base) and re.search(r"\bmethods?\b", line))
    anywhere = {"TimeoutError"}  # of `time_limit`, from whatever takes long
    for error in sorted(raised(function, name.target if name.kind == "class" else name.owner) - anywhere):
        if not re.search(rf"\b{error}\b", told):
            yield f"{error} is not announced under Raises"


def measure(name: PublicName) -> Iterator[str]:
    """A density says with respect to what."""
    is_density = DENSITIES.fullmatch(name.path.rpartition(".")[2])
    has_density = name.kind == "class" and is_ours(getattr(name.target, "log_prob", None))
    if (is_density or has_density) and not MEASURE.search(name.text):
        yield "a density without its measure: dz (Lebesgue) or dM (Riemannian volume)"


def units(name: PublicName) -> Iterator[str]:
    """Nats, seconds, lengths and variances are called so, in the description or the summary."""
    told = {name.path.rpartition(".")[2]: name.text} | described_in(name)
    for key, text in told.items():
        for pattern, words in UNITS.items():
            if re.fullmatch(pattern, key) and not re.search(words, text + name.text.split("\n\n")[0]):
                yield f"`{key}` has no unit: expected {words}"


def source(name: PublicName) -> Iterator[str]:
    """What is mathematical names a paper, with its title or the place in it, or a book."""
    if name.owner is not None or not MATHEMATICAL & set(name.path.split(".")) or is_record(name.target):
        return
    paragraphs = name.text.partition("Example:")[0].split("\n\n")
    if not any(SOURCE.search(part) and (PLACE.search(part) or TITLE.search(part)) for part in paragraphs):
        yield "has no source: a paper with equation, section or title, or a book"


def example(name: PublicName) -> Iterator[str]:
    """A class or function of its own shows how it is used; tests/test_doctests.py runs it."""
    if name.owner is None and not doctest.DocTestParser().get_examples(name.text):
        yield "has no example"


RULES: list[Callable[[PublicName], Iterator[str]]] = [
    *(summary, arguments, shapes, errors, measure, units, source, example)
]


# ---------------------------------------------------------------- what a body can raise


def raised(function: Callable[..., Any], owner: type | None, seen: set[Any] | None = None) -> set[str]:
    """Names of the exceptions that a function raises, or a function of this package that it calls by its name.

    Of methods only the private ones of the same object are followed; constructors are not.
    """
    seen = set() if seen is None else seen
    if function in seen:
        return set()
    seen.add(function)
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(definition, ast.FunctionDef | ast.Assign | ast.Expr)
    if is_abstract(definition):
        return set()

    def within(node: ast.AST) -> set[str]:
        found: set[str] = set()
        if isinstance(node, ast.Raise) and node.exc is not None:
            error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(error, ast.Name) and error.id[0].isupper():  # not one that was caught and goes on
                found.add(error.id)
        elif isinstance(node, ast.Call) and (helper := called(node.func, function, owner)) is not None:
            found |= raised(helper, owner, seen)
        if not isinstance(node, ast.Try):
            return found.union(*map(within, ast.iter_child_nodes(node)))
        caught = {name.id for one in node.handlers for name in ast.walk(one.type or one) if isinstance(name, ast.Name)}
        tried = set().union(*map(within, node.body)) - caught
        return tried.union(*map(within, (*node.handlers, *node.orelse, *node.finalbody)))

    return within(definition)


def is_abstract(definition: ast.AST) -> bool:
    """Whether a method only says that a subclass must implement it."""
    body = [node for node in getattr(definition, "body", []) if not isinstance(node, ast.Expr)]
    return len(body) == 1 and isinstance(body[0], ast.Raise) and "NotImplementedError" in ast.unparse(body[0])


def called(expression: ast.expr, function: Callable[..., Any], owner: type | None) -> Any:
    """The function of this package behind ``name(...)``, ``module.name(...)`` or ``self._name(...)``, or None."""
    target: Any = None
    known = inspect.unwrap(function).__globals__
    if isinstance(expression, ast.Name):
        target = known.get(expression.id)
    elif isinstance(expression, ast.Attribute) and isinstance(expression.value, ast.Name):
        if expression.value.id in ("self", "cls") and owner is not None and expression.attr.startswith("_"):
            holder = next((base for base in owner.__mro__ if expression.attr in vars(base)), None)
            target = None if holder is None else function_behind(vars(holder)[expression.attr])
        elif isinstance(module := known.get(expression.value.id), types.ModuleType):
            target = getattr(module, expression.attr, None)
    target = inspect.unwrap(target) if callable(target) else None
    return target if isinstance(target, types.FunctionType) and is_ours(target) else None
