"""The public face: the names and signatures of the design exist. What they say of themselves is in test_docstrings."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

import pyro_riemann
import pyro_riemann.numpyro
from tests.meta.public_names import exported, public_modules

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


@pytest.mark.parametrize("module", public_modules())
def test_module_names_its_public_face(module: str) -> None:
    loaded = importlib.import_module(module)
    assert loaded.__doc__
    assert sorted(set(loaded.__all__)) == sorted(loaded.__all__)
    assert all(hasattr(loaded, name) for name in loaded.__all__)


@pytest.mark.parametrize(
    "module, name, target", [*exported()], ids=lambda value: value if isinstance(value, str) else ""
)
def test_public_signatures_are_typed(module: str, name: str, target: Any) -> None:
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
