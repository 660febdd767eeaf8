"""Importing the package is light, changes nothing, and needs only what `pyproject.toml` declares."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
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


@cache
def declared() -> dict[str, set[str]]:
    """Names of the distributions that each extra brings, its own extras included; ``""`` for a bare install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    def names(requirements: list[str]) -> set[str]:
        found = set()
        for line in requirements:
            if own := re.fullmatch(r"pyro-riemann\[(.*)\]", line):
                found |= set().union(*(names(extras[extra]) for extra in own[1].split(",")))
            else:
                found.add(re.split(r"[<>=!~\[; ]", line)[0].lower().replace("_", "-"))
        return found

    return {"": names(project["dependencies"])} | {extra: names(lines) for extra, lines in extras.items()}


# What the modules of the package import at their top comes with these extras; what they import later, with `all`.
EXTRAS = {
    "_arviz": ["diagnostics"],
    "diagnostics": ["torch", "diagnostics"],
    "plotting": ["torch", "plot"],
    "evaluation": ["torch", "plot"],
    "_formulas": [],
    "_lazy": [],
    "": [],
    "__main__": [],
}
APPLICATIONS = {"cli", "experiments", "explorer"}


def imported(path: Path, late: bool) -> set[str]:
    """Third-party modules that a file imports at its top, or ``late`` anywhere."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for node in ast.walk(tree) if late else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"pyro_riemann", "__future__"}


@cache
def brought_by(*extras: str) -> set[str]:
    """Modules that a bare install and these extras bring."""
    wanted = set().union(*(declared()[extra] for extra in ["", *extras]))
    distributions = packages_distributions()
    return {module for module, names in distributions.items() if {n.lower().replace("_", "-") for n in names} & wanted}


@pytest.mark.parametrize("path", sorted((ROOT / "pyro_riemann").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_what_is_imported_is_declared(path: Path) -> None:
    """At the top of a module stands only what its own extras bring: the others are imported where they are used."""
    parts = path.relative_to(ROOT / "pyro_riemann").with_suffix("").parts
    name = "" if parts[0] == "__init__" else parts[0]
    extras = ["app"] if name in APPLICATIONS else ["jax"] if name == "numpyro" else EXTRAS.get(name, ["torch"])
    assert imported(path, late=False) <= brought_by(*extras)
    assert imported(path, late=True) <= brought_by("all")


# Runs `code` where some packages are not installed, as far as the import system can tell.
BLOCKED = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {blocked} else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
{code}
"""
TORCH, JAX = {"torch", "pyro"}, {"jax", "jaxlib", "numpyro"}
OTHERS = {"arviz", "kmedoids", "matplotlib", "pandas", "rich", "torchmetrics", "torchvision", "typer"}
FACE = """
metric = PullbackMetric(lambda z: z**2 + z, dim=1)
assert abs(float(metric.dist(zeros(1), ones(1))) - 2) < 1e-4
"""
NAMES = ", ".join(sorted({*pyro_riemann.__all__} - {"summary", "to_arviz"}))


def without(blocked: set[str], code: str) -> subprocess.CompletedProcess[str]:
    script = BLOCKED.format(blocked=blocked, code=code)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(
    "blocked, code",
    [
        (JAX | OTHERS, f"from torch import ones, zeros\nfrom pyro_riemann import {NAMES}" + FACE),
        (TORCH | OTHERS, f"from jax.numpy import ones, zeros\nfrom pyro_riemann.numpyro import {NAMES}" + FACE),
        (JAX, "from pyro_riemann import *\nimport pyro_riemann.vae, pyro_riemann.sampling, pyro_riemann.explorer"),
        (TORCH, "from pyro_riemann.numpyro import *"),
    ],
    ids=["torch alone", "jax alone", "torch without jax", "jax without torch"],
)
def test_each_face_needs_its_own_extra_alone(blocked: set[str], code: str) -> None:
    run = without(blocked, code)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    "blocked, code, says",
    [
        (TORCH | JAX | OTHERS, "import pyro_riemann; pyro_riemann.KernelMetric", "pyro-riemann[torch]"),
        (TORCH | JAX | OTHERS, "from pyro_riemann import brownian_motion", "pyro-riemann[torch]"),
        (TORCH | JAX | OTHERS, "from pyro_riemann.numpyro import KernelMetric", "pyro-riemann[jax]"),
        (OTHERS, "from pyro_riemann import summary", "pyro-riemann[diagnostics]"),
        (
            OTHERS,
            "import pyro_riemann._formulas.medoids as m; m.select_medoids(0, 1, 0, 1)",
            "pyro-riemann[kernel]",
        ),
        (OTHERS, "from pyro_riemann.__main__ import main; main()", "pyro-riemann[all]"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(blocked: set[str], code: str, says: str) -> None:
    run = without(blocked, code)
    assert run.returncode == 1
    assert says in run.stderr.splitlines()[-1]


def test_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "pyro_riemann/__init__.py"
    assert f"\nversion: {pyro_riemann.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    run = subprocess.run([sys.executable, "-m", "pyro_riemann", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout == f"pyro-riemann {pyro_riemann.__version__}\n"
