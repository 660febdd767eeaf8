"""Importing the package is light, changes nothing, and needs only what `pyproject.toml` declares."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import pyro_riemann

ROOT = Path(__file__).resolve().parents[1]

PROBE = """
import json, random, sys, warnings
import matplotlib, numpy, pyro, scipy.interpolate, scipy.sparse, scipy.special, torch  # each with a state of its own

def state():
    return {
        "torch rng": torch.get_rng_state().tolist(),
        "numpy rng": [str(part) for part in numpy.random.get_state()],
        "python rng": hash(random.getstate()),
        "dtype": str(torch.get_default_dtype()),
        "grad": torch.is_grad_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "torch validation": torch.distributions.Distribution._validate_args,
        "pyro validation": [pyro.settings.get(key) for key in ("validate_distributions_pyro", "validate_infer")],
        "warning filters": [str(entry) for entry in warnings.filters],
        "numpy errors": str(numpy.geterr()),
        "matplotlib": {key: str(value) for key, value in matplotlib.rcParams.items()},
        "recursion": sys.getrecursionlimit(),
        "hook": str(sys.excepthook),
    }

before = state()
from pyro_riemann import *  # names are loaded at first use: this is all of them
after = state()
changed = sorted(key for key in before if before[key] != after[key])
print(json.dumps({"changed": changed, "modules": sorted(name for name in sys.modules if "." not in name)}))
"""


@pytest.fixture(scope="module")
def probe() -> dict[str, list[str]]:
    run = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, cwd=ROOT)
    result: dict[str, list[str]] = json.loads(run.stdout.splitlines()[-1])
    return result


def test_import_changes_no_global_state(probe: dict[str, list[str]]) -> None:
    assert probe["changed"] == []


def test_import_is_light(probe: dict[str, list[str]]) -> None:
    heavy = {"arviz", "jax", "numpyro", "sklearn", "torchmetrics", "torchvision", "typer"}
    assert heavy.isdisjoint(probe["modules"])


TWIN = """
import json, sys, warnings
import arviz, jax, numpy, numpyro

def state():
    return {
        "jax": {name: str(getattr(jax.config, name)) for name in dir(jax.config) if name.startswith("jax_")},
        "numpy rng": [str(part) for part in numpy.random.get_state()],
        "validation": numpyro.distributions.Distribution._validate_args,
        "platform": jax.default_backend(),
        "warning filters": [str(entry) for entry in warnings.filters],
    }

before = state()
from pyro_riemann.numpyro import *
after = state()
changed = sorted(key for key in before if before[key] != after[key])
print(json.dumps({"changed": changed, "modules": sorted(name for name in sys.modules if "." not in name)}))
"""


def test_twin_needs_no_torch_and_changes_no_global_state() -> None:
    command = [sys.executable, "-W", "ignore", "-c", TWIN]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["changed"] == []
    assert {"torch", "pyro"}.isdisjoint(result["modules"])


def test_public_names_are_the_objects_of_their_modules() -> None:
    for name in pyro_riemann.__all__:
        value = getattr(pyro_riemann, name)
        assert value is getattr(sys.modules[value.__module__], name)
    assert set(pyro_riemann.__all__) <= set(dir(pyro_riemann))
    with pytest.raises(AttributeError, match="no attribute 'RiemannianGamma'"):
        pyro_riemann.RiemannianGamma  # noqa: B018


def declared() -> tuple[set[str], set[str]]:
    """Names of the required distributions, and of those of the `vision` extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=!~\[; ]", line)[0].lower().replace("_", "-") for line in requirements}

    return names(project["dependencies"]), names(project["optional-dependencies"]["vision"])


def imported() -> dict[str, set[str]]:
    """Third-party modules that the package imports anywhere, and the files that do."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "pyro_riemann").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                root = name.split(".")[0]
                if root not in sys.stdlib_module_names and root not in {"pyro_riemann", "__future__"}:
                    found.setdefault(root, set()).add(str(path.relative_to(ROOT)))
    return found


def test_every_import_is_declared() -> None:
    required, vision = declared()
    distributions = packages_distributions()
    missing = {
        module: sorted(files)
        for module, files in imported().items()
        if {name.lower().replace("_", "-") for name in distributions.get(module, [module])}.isdisjoint(
            required | vision
        )
    }
    assert missing == {}


def test_optional_packages_are_imported_late() -> None:
    """A module that needs the `vision` extra imports it inside the function that does."""
    _, vision = declared()
    top_level = {
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / "pyro_riemann").rglob("*.py")
        for node in ast.parse(path.read_text()).body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        if name.split(".")[0] in vision
    }
    assert top_level == set()
