"""The architecture as a test: imports run from the upper layers to the lower ones, never back."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "pyro_riemann"

# From the ground up; modules of one set may import each other. A module is found by its first name.
LAYERS: list[set[str]] = [
    {"_formulas", "_arviz", "_autodiff", "_jets", "_linalg", "_rescale", "_checks", "_estimate"},
    {"geodesics"},
    {"metrics", "manifolds"},
    {"brownian", "_walk"},
    {"distributions"},
    {"vae", "autoencoders", "sampling", "mixtures", "evaluation", "plotting", "diagnostics", "datasets", "_convert"},
    {"cli", "experiments", "explorer", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
TWIN = "numpyro"
SHARED = {"_formulas", "_arviz"}  # import neither torch nor jax: the twins have these in common


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, is_package: bool) -> set[str]:
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
    return found


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


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_run_downward(path: Path) -> None:
    module = dotted(path)
    assert backward_arrows(path.read_text(), module, path.name == "__init__.py") == []


def test_every_module_has_a_layer() -> None:
    names = {dotted(path).split(".")[1] for path in modules() if dotted(path) != "pyro_riemann"}
    assert names <= set(LEVEL) | {TWIN}, "name the new module's layer in this test"


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
