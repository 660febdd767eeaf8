"""The public face: the names and signatures of the design exist, and each name explains itself."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import pyro_riemann
import pyro_riemann.numpyro

# Beside the top-level names: these modules' own `__all__`.
PUBLIC_MODULES = [
    "pyro_riemann",
    "pyro_riemann.metrics",
    "pyro_riemann.manifolds",
    "pyro_riemann.geodesics",
    "pyro_riemann.distributions",
    "pyro_riemann.vae",
    "pyro_riemann.autoencoders",
    "pyro_riemann.evaluation",
    "pyro_riemann.datasets",
    "pyro_riemann.sampling",
    "pyro_riemann.diagnostics",
    "pyro_riemann.plotting",
    "pyro_riemann.numpyro",
]

# Names that design.md gives, and how their arguments begin.
SIGNATURES = {
    "EuclideanMetric": ["dim"],
    "ConstantMetric": ["matrix"],
    "PullbackMetric": ["immersion", "dim"],
    "KernelMetric": ["centroids", "precisions", "bandwidth", "regularization"],
    "KernelMetric.from_posterior": ["loc", "scale", "num_centroids", "bandwidth"],
    "KernelMetric.coverage": ["self", "codes"],
    "KernelMetric.conformal": ["self"],
    "GridMetric": ["metric", "low", "high", "resolution"],
    "GridMetric.distance_field": ["self", "loc"],
    "Sphere": ["dim"],
    "Hyperbolic": ["dim"],
    "WarpedMetric": ["base", "diffeomorphism"],
    "RiemannianMetric.metric": ["self", "z"],
    "RiemannianMetric.logdet": ["self", "z"],
    "RiemannianMetric.inner": ["self", "z", "u", "v"],
    "RiemannianMetric.norm": ["self", "z", "v"],
    "RiemannianMetric.expmap": ["self", "z", "v"],
    "RiemannianMetric.logmap": ["self", "z", "y"],
    "RiemannianMetric.dist": ["self", "z", "y"],
    "RiemannianMetric.squared_dist": ["self", "z", "y"],
    "RiemannianMetric.geodesic": ["self", "z", "y", "init"],
    "RiemannianMetric.drift": ["self", "z"],
    "brownian_motion": ["metric", "start", "time", "num_steps", "method", "return_path"],
    "RiemannianHeatKernel": ["loc", "time", "metric", "correction"],
    "RiemannianHeatKernel.log_normalizer": ["self"],
    "RiemannianWrappedNormal": ["loc", "time", "metric"],
    "RiemannianNormal": ["loc", "scale", "metric"],
    "RiemannianNormal.log_normalizer": ["self"],
    "RiemannianUniform": ["metric", "low", "high"],
    "RiemannianUniform.log_volume": ["self"],
    "to_arviz": ["result"],
    "summary": ["result"],
}
TOP_LEVEL = ["Estimate", "FlatTorus", "Geodesic", "GeodesicSolver", "RiemannianMetric", "VampPrior"]


def public_names() -> list[tuple[str, str]]:
    return [
        (module, name) for module in PUBLIC_MODULES for name in getattr(importlib.import_module(module), "__all__", [])
    ]


@pytest.mark.parametrize("dotted", SIGNATURES)
def test_signature_of_the_design(dotted: str) -> None:
    target: Any = pyro_riemann
    for part in dotted.split("."):
        target = getattr(target, part)
    assert callable(target)
    expected = SIGNATURES[dotted]
    if "." in dotted and "self" not in expected:  # a class method, bound
        assert inspect.ismethod(target)
    assert list(inspect.signature(target).parameters)[: len(expected)] == expected


@pytest.mark.parametrize("name", pyro_riemann.__all__)
def test_twin_has_the_name_and_its_arguments(name: str) -> None:
    """The same arguments in the same order; what draws takes a `key` as well."""
    ours, twin = getattr(pyro_riemann, name), getattr(pyro_riemann.numpyro, name)
    assert inspect.isclass(ours) == inspect.isclass(twin)
    if name == "RiemannianMetric":  # has no constructor of its own, and torch's takes anything
        return
    assert [key for key in inspect.signature(twin).parameters if key != "key"] == [*inspect.signature(ours).parameters]


@pytest.mark.parametrize("name", TOP_LEVEL)
def test_name_of_the_design_is_exported(name: str) -> None:
    assert name in pyro_riemann.__all__


def test_defaults_of_the_design() -> None:
    heat_kernel = inspect.signature(pyro_riemann.RiemannianHeatKernel).parameters
    assert heat_kernel["correction"].default == "none"
    assert inspect.signature(pyro_riemann.brownian_motion).parameters["return_path"].default is False
    assert pyro_riemann.Estimate._fields == ("value", "standard_error")


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_module_names_its_public_face(module: str) -> None:
    loaded = importlib.import_module(module)
    assert loaded.__doc__
    assert sorted(set(loaded.__all__)) == sorted(loaded.__all__)
    assert all(hasattr(loaded, name) for name in loaded.__all__)


@pytest.mark.parametrize("module, name", public_names(), ids=lambda value: str(value))
def test_public_name_has_a_docstring_with_an_example(module: str, name: str) -> None:
    target = getattr(importlib.import_module(module), name)
    if not (inspect.isclass(target) or inspect.isfunction(target)):
        return  # a constant or a module
    text = inspect.getdoc(target)
    assert text, f"{module}.{name} has no docstring"
    assert doctest.DocTestParser().get_examples(text), f"{module}.{name} has no example"


@pytest.mark.parametrize("module, name", public_names(), ids=lambda value: str(value))
def test_public_methods_have_docstrings(module: str, name: str) -> None:
    target = getattr(importlib.import_module(module), name)
    if not inspect.isclass(target):
        return
    for attribute, value in vars(target).items():
        if not attribute.startswith("_") and inspect.isfunction(value):
            assert inspect.getdoc(getattr(target, attribute)), f"{module}.{name}.{attribute} has no docstring"


@pytest.mark.parametrize("module, name", public_names(), ids=lambda value: str(value))
def test_public_signatures_are_typed(module: str, name: str) -> None:
    target = getattr(importlib.import_module(module), name)
    if not (inspect.isclass(target) or inspect.isfunction(target)):
        return
    function = target.__init__ if inspect.isclass(target) else target
    if not getattr(function, "__module__", "").startswith("pyro_riemann"):
        return  # inherited from torch or Pyro
    hints = inspect.signature(function).parameters
    untyped = [
        key for key, parameter in hints.items() if key != "self" and parameter.annotation is inspect.Parameter.empty
    ]
    assert untyped == []


def test_reference_documents_every_public_name() -> None:
    pages = "\n".join(path.read_text() for path in (Path(__file__).parents[1] / "docs" / "api").glob("*.md"))
    modules = [importlib.import_module(name) for name in re.findall(r"automodule:: (\S+)", pages)]
    shown = {name for module in modules for name in getattr(module, "__all__", vars(module))}
    shown |= {name.split(".")[-1] for name in re.findall(r"auto(?:class|function):: (\S+)", pages)}
    assert set(pyro_riemann.__all__) <= shown
    assert {module for module in PUBLIC_MODULES if module != "pyro_riemann"} <= {module.__name__ for module in modules}
