"""The architecture as a test: imports run from the upper layers to the lower ones, never back, and never in a circle.

An arrow that hides is an arrow: an import inside a function, a name in a string, ``hasattr``, an annotation ``Any``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "pyro_riemann"

# From the ground up; modules of one set may import each other. A module is found by its first name.
LAYERS: list[set[str]] = [
    {
        "_formulas",
        "_arviz",
        "_result",
        "_autodiff",
        "_calculus",
        "_decoded",
        "_jets",
        "_linalg",
        "_plain",
        "_rescale",
        "_checks",
        "_modes",
        "_memory",
        "_compilation",
        "_vmap",
        "_estimate",
        "_pytree",
    }
    | {"_files", "_store", "_members", "_identity", "_safe_points", "_lazy", "_work", "_seed", "_warn"},
    {"_interface"},
    {"geodesics"},
    {"metrics", "manifolds"},
    {"brownian", "_walk", "_memo", "_box", "statistics"},
    {"sampling"},
    {"distributions"},
    {"vae", "autoencoders", "mixtures", "evaluation", "plotting", "diagnostics", "_predictive", "datasets", "_convert"},
    {"cli", "experiments", "explorer", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
TWIN = "numpyro"
# Import neither torch nor jax: the twins have these in common.
SHARED = {"_formulas", "_arviz", "_result", "_decoded", "_lazy", "_members", "_work", "_warn"}
# import neither torch nor jax: the twins have these in common


# What code below a metric must not ask for behind the back of the protocols of `_interface`.
PROTOCOLS = {"metric", "base", "table", "solver", "surface", "energy"}
TYPED = {"_interface", "geodesics", "metrics", "manifolds", "brownian", "_walk"}  # no `Any` in any signature here
# Attributes of objects that are not ours, or that a user may give to what he passes: asked for, not known.
ASKED = {
    ("pyro_riemann._formulas", "requires_grad"),  # only torch must be told the device of a constant
    ("pyro_riemann._walk", "base"),  # of a metric that rewrites another, also of a user's own class
    ("pyro_riemann.numpyro._walk", "base"),
    ("pyro_riemann.metrics._kernel_encode", "__dict__"),  # what a user's encoder returns
    ("pyro_riemann.metrics._kernel_encode", "_fields"),
    ("pyro_riemann.metrics._pullback", "jet"),  # what a user's immersion can do
    ("pyro_riemann.numpyro.metrics._pullback", "distance_immersion"),
    ("pyro_riemann.numpyro.metrics._probed", "has_jets"),
    ("pyro_riemann.numpyro.metrics._grid", "dtype"),  # a leaf of any pytree
    ("pyro_riemann.numpyro._box", "dtype"),  # likewise
    ("pyro_riemann.numpyro._pytree", "__name__"),  # any function, any module of flax
    ("pyro_riemann.numpyro._pytree", "unbind"),
    ("pyro_riemann.numpyro._pytree", "apply"),
}


@cache
def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(source: str, module: str, is_package: bool) -> frozenset[str]:
    """Dotted names of everything a module imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            # `from pyro_riemann import x` may import the module x as well as a name
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"import_module", "importlib.import_module"}:
            if node.args and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value))
    return frozenset(found)


def backward_arrows(source: str, module: str, is_package: bool) -> list[str]:
    """Imports that run against the layers, or across to the twin."""
    own = module.split(".")
    allowed = len(LAYERS) - 2  # a public face gathers the names of every layer but the top one
    arrows = []
    in_twin = len(own) > 1 and own[1] == TWIN
    for name in sorted(imports(source, module, is_package)):
        target = name.split(".")
        if target[0] != "pyro_riemann":
            continue
        to_twin = len(target) > 1 and target[1] == TWIN
        if in_twin != to_twin:
            if in_twin and len(target) > 1 and target[1] in SHARED:
                continue
            shared = {f"{name}.{common}" for common in SHARED}
            if in_twin and len(target) == 1 and shared & imports(source, module, is_package):
                continue
            arrows.append(f"{module} imports its twin: {name}")
            continue
        own_layer, target_layer = (own[2:], target[2:]) if in_twin else (own[1:], target[1:])
        if not target_layer:
            # `import pyro_riemann` as such runs through the public face: fine from the top layer only
            names = {n for n in imports(source, module, is_package) if n.startswith("pyro_riemann.")}
            if own_layer and LEVEL.get(own_layer[0], -1) < len(LAYERS) - 1 and not names:
                arrows.append(f"{module} imports the public face pyro_riemann")
            continue
        if target_layer[0] not in LEVEL:
            continue  # a public name, judged where its module is imported
        if not own_layer:
            if LEVEL[target_layer[0]] > allowed:
                arrows.append(f"{module} imports {name} from the top layer")
        elif LEVEL[target_layer[0]] > LEVEL[own_layer[0]]:
            arrows.append(f"{module} imports {name} from a layer above it")
    return arrows


def names_of(module: str) -> list[str]:
    """The parts of a module's name below the face that it belongs to."""
    own = module.split(".")[1:]
    return own[1:] if own[:1] == [TWIN] else own


def drawing() -> dict[str, set[str]]:
    """The modules of the package that each of them imports anywhere, a package by its ``__init__``."""
    found = {dotted(path): path for path in modules()}
    arrows: dict[str, set[str]] = {}
    for module, path in found.items():
        targets = imports(path.read_text(), module, path.name == "__init__.py") & found.keys()
        # `from package import module` is an arrow to the module: the package is only on the way
        passed = {name.rpartition(".")[0] for name in targets}
        arrows[module] = {name for name in targets - {module} if name not in passed or names_in(path, name)}
    return arrows


def names_in(path: Path, package: str) -> bool:
    """Whether a file imports from a package something that is not one of its modules."""
    found = {dotted(other) for other in modules()}
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == package
        and any(f"{package}.{alias.name}" not in found for alias in node.names)
        for node in ast.walk(ast.parse(path.read_text()))
    )


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """A way along the arrows that comes back to where it began, or nothing."""
    done: set[str] = set()

    def search(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for target in sorted(arrows.get(module, ())):
            if found := search(target, [*way, module]):
                return found
        done.add(module)
        return []

    return next(filter(None, (search(module, []) for module in sorted(arrows))), [])


def typed(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, ast.expr]]:
    """The name of every parameter that has one, and its annotation; ``return`` for the result."""
    every = function.args
    for argument in (*every.posonlyargs, *every.args, *every.kwonlyargs, every.vararg, every.kwarg):
        if argument is not None and argument.annotation is not None:
            yield argument.arg, argument.annotation
    if function.returns is not None:
        yield "return", function.returns


def signatures(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions and methods, without those within a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        else:
            yield from signatures(node)


def hidden_arrows(source: str, module: str) -> list[str]:
    """What a module knows of others without an import at its top."""
    tree, names, found = ast.parse(source), names_of(module), []
    top = bool(names) and LEVEL.get(names[0], 0) == len(LAYERS) - 1
    low = bool(names) and LEVEL.get(names[0], len(LAYERS)) <= LEVEL["brownian"] and names[0] != "_arviz"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not top:  # a command imports what it runs when it runs
                inside = ast.Module(node.body, [])
                local = {n for n in imports(ast.unparse(inside), module, False) if n.split(".")[0] == "pyro_riemann"}
                found += [f"{node.name} imports {name} when it is called" for name in sorted(local)]
            for argument, annotation in typed(node):
                if argument in PROTOCOLS and ast.unparse(annotation) in {"Any", "object"}:
                    found.append(f"{node.name} takes any `{argument}`")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            asks = node.func.id == "hasattr" or (node.func.id == "getattr" and len(node.args) == 3)
            if asks and (module, ast.literal_eval(node.args[1]) if literal(node.args[1]) else "") not in ASKED:
                owner = ast.unparse(node.args[0]).split(".")[-1]
                if low or owner in PROTOCOLS - {"energy"}:
                    found.append(f"{ast.unparse(node)} asks behind the protocols")
    if names and names[0] in TYPED:
        for function in signatures(tree):
            for argument, annotation in typed(function):
                if any(isinstance(part, ast.Name) and part.id == "Any" for part in ast.walk(annotation)):
                    if not function.name.startswith("_"):
                        found.append(f"{function.name} has `Any` for {argument}")
    return found + [f"{text!r} is a string for a type" for text in string_annotations(tree)]


def literal(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant)


def string_annotations(tree: ast.AST) -> Iterator[str]:
    """Types that are named in strings, so that no import shows them."""
    for node in ast.walk(tree):
        every = [annotation for _, annotation in typed(node)] if isinstance(node, ast.FunctionDef) else []
        every += [node.annotation] if isinstance(node, ast.AnnAssign) else []
        for annotation in every:
            texts = {id(part) for part in ast.walk(annotation) if isinstance(part, ast.Constant)}
            for part in ast.walk(annotation):  # what Literal and Annotated hold are values
                if isinstance(part, ast.Subscript) and ast.unparse(part.value) in {"Literal", "Annotated"}:
                    texts -= {id(value) for value in ast.walk(part.slice)}
            for part in ast.walk(annotation):
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and id(part) in texts:
                    yield part.value


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_run_downward(path: Path) -> None:
    module = dotted(path)
    assert backward_arrows(path.read_text(), module, path.name == "__init__.py") == []


def test_imports_have_no_circle() -> None:
    assert circle(drawing()) == []


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_no_arrow_hides(path: Path) -> None:
    assert hidden_arrows(path.read_text(), dotted(path)) == []


def test_every_module_has_a_layer() -> None:
    names = {names[0] for path in modules() if (names := names_of(dotted(path)))}
    assert names <= set(LEVEL), "name the new module's layer in this test"


def test_what_may_be_asked_for_is_asked_for() -> None:
    """The list above holds nothing that the code no longer does."""
    asked = {
        (dotted(path), node.args[1].value)
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"hasattr", "getattr"}
        if isinstance(node.args[1], ast.Constant)
    }
    assert asked >= ASKED


def test_what_the_twins_share_needs_no_array_library() -> None:
    shared = [path for path in modules() if len(parts := dotted(path).split(".")) > 1 and parts[1] in SHARED]
    assert shared
    found = {name.split(".")[0] for path in shared for name in imports(path.read_text(), dotted(path), False)}
    assert {"torch", "pyro", "jax", "numpyro"}.isdisjoint(found)


@pytest.mark.parametrize(
    "module, source",
    [
        ("pyro_riemann.metrics._kernel", "from pyro_riemann.distributions import RiemannianUniform"),
        ("pyro_riemann.metrics._kernel", "def f():\n    from pyro_riemann.vae import RVAE"),
        ("pyro_riemann.geodesics._solver", "from ..metrics import PullbackMetric"),
        ("pyro_riemann.geodesics._solver", "from pyro_riemann import metrics"),
        ("pyro_riemann.geodesics._solver", "import pyro_riemann.metrics._base as base"),
        ("pyro_riemann.brownian", "import importlib\nimportlib.import_module('pyro_riemann.vae')"),
        ("pyro_riemann.vae._training", "import pyro_riemann"),
        ("pyro_riemann.sampling._law", "from pyro_riemann.distributions import RiemannianUniform"),
        ("pyro_riemann.metrics._base", "from pyro_riemann.numpyro import metrics"),
        ("pyro_riemann.numpyro.metrics", "from pyro_riemann.metrics import PullbackMetric"),
        ("pyro_riemann.numpyro.metrics", "from pyro_riemann.numpyro.distributions import RiemannianUniform"),
    ],
)
def test_a_backward_import_is_caught(module: str, source: str) -> None:
    assert backward_arrows(source, module, is_package=False)


@pytest.mark.parametrize(
    "module, source",
    [
        ("pyro_riemann.distributions._uniform", "from pyro_riemann.metrics import KernelMetric"),
        ("pyro_riemann.distributions._uniform", "from pyro_riemann.sampling import BoxLaw"),
        ("pyro_riemann.distributions._uniform", "from ._normal import RiemannianNormal"),
        ("pyro_riemann.numpyro.metrics", "from pyro_riemann._formulas import short_time"),
        ("pyro_riemann.numpyro.metrics", "from pyro_riemann import _formulas"),
        ("pyro_riemann.numpyro.diagnostics", "from pyro_riemann._arviz import judge"),
        ("pyro_riemann.metrics._base", "from pyro_riemann import _autodiff"),
        ("pyro_riemann.cli", "import pyro_riemann"),
    ],
)
def test_a_downward_import_passes(module: str, source: str) -> None:
    assert not backward_arrows(source, module, is_package=False)


@pytest.mark.parametrize(
    "source, says",
    [
        ("def f():\n    from pyro_riemann.metrics._grid import GridMetric", "when it is called"),
        (
            "class A:\n    def f(self):\n        if self:\n            import pyro_riemann.geodesics",
            "when it is called",
        ),
        ("def f(metric: Any) -> Tensor: ...", "any `metric`"),
        ("def f(z: Tensor, *, solver: object) -> Tensor: ...", "any `solver`"),
        ("def f(z: dict[str, Any]) -> Tensor: ...", "`Any` for z"),
        ("class A:\n    def f(self) -> list[Any]: ...", "`Any` for return"),
        ("x = hasattr(metric, 'embed')", "behind the protocols"),
        ("x = getattr(self.base, 'landmarks', None)", "behind the protocols"),
        ("def f(z: 'GridMetric') -> None: ...", "a string for a type"),
        ("x: list['RVAE'] = []", "a string for a type"),
    ],
)
def test_a_hidden_arrow_is_caught(source: str, says: str) -> None:
    assert any(says in arrow for arrow in hidden_arrows(source, "pyro_riemann.metrics._base"))


@pytest.mark.parametrize(
    "source, module",
    [
        ("def f(metric: Metric) -> Tensor:\n    def inner(carry: Any) -> Any: ...", "pyro_riemann.geodesics._rays"),
        ("def f(mode: Literal['line', 'graph']) -> None: ...", "pyro_riemann.metrics._base"),
        ("def f() -> None:\n    from pyro_riemann.explorer import run_page", "pyro_riemann.cli"),
        ("def f() -> None:\n    import kmedoids", "pyro_riemann.metrics._kernel"),
        ("x = getattr(immersion, 'jet', None)", "pyro_riemann.metrics._pullback"),
    ],
)
def test_what_is_no_arrow_passes(source: str, module: str) -> None:
    assert hidden_arrows(source, module) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"a"}}) == ["a", "b", "d", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_one_module_warns() -> None:
    """By `_warn.warn`, which names the caller's line."""
    ways = ("warnings.warn(", "from warnings import")
    assert [dotted(path) for path in modules() if any(way in path.read_text() for way in ways)] == [
        "pyro_riemann._warn"
    ]
