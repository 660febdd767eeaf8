"""NumPyro's own generic distribution checks, run on our distributions.

The checks are not ours: they are imported from a checkout of NumPyro (github.com/pyro-ppl/numpyro) that the
environment variable ``NUMPYRO_SOURCE`` names, and given the triples that they are parametrised over::

    NUMPYRO_SOURCE=/path/to/numpyro python -m pytest -m upstream tests/upstream/test_numpyro_distributions.py
"""

from __future__ import annotations

import importlib
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from numpyro.distributions import Distribution
from numpyro.distributions.batch_util import vmap_over

from pyro_riemann.numpyro import (
    EuclideanMetric,
    KernelMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianUniform,
    RiemannianWrappedNormal,
    Sphere,
)
from tests.precision import enable_x64

pytestmark = pytest.mark.upstream

# NumPyro's names; what is left out has no meaning for a continuous law without closed forms (cdf, scipy, enumeration)
CHECKS: list[tuple[str, tuple[Any, ...]]] = [
    *[("test_dist_shape", (shape,)) for shape in [(), (2,), (2, 3)]],
    ("test_infer_shapes", ()),
    ("test_has_rsample", ()),
    ("test_args_attributes", ()),
    ("test_sample_gradient", ()),
    ("test_jit_log_likelihood", ()),
    ("test_log_prob_gradient", ()),
    *[("test_distribution_constraints", (shape,)) for shape in [(), (2,), (2, 3)]],
    *[("test_expand", (shape, sample)) for shape in [(), (2, 3)] for sample in [(), (4,)]],
    ("test_dist_pytree", ()),
    ("test_vmap_dist", ()),
]


@cache
def upstream() -> types.ModuleType:
    """The module ``test_distributions`` of the checkout."""
    source = os.environ.get("NUMPYRO_SOURCE")
    folder = Path(source or ".") / "test"
    if not source or not (folder / "test_distributions.py").is_file():
        pytest.fail(
            f"NUMPYRO_SOURCE must name a checkout of github.com/pyro-ppl/numpyro, got {source!r}: "
            "`git clone https://github.com/pyro-ppl/numpyro` and set it to that folder.",
            pytrace=False,
        )
    sys.path.insert(0, str(folder))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the many distributions that are not ours
            return importlib.import_module("test_distributions")
    finally:
        sys.path.remove(str(folder))


def kernel() -> KernelMetric:
    return KernelMetric(jnp.array([[0.0, 0.0], [0.6, 0.3]]), jnp.full((2, 2), 4.0), 1.5, 0.5)


METRICS: dict[str, Callable[[], RiemannianMetric]] = {
    "flat": lambda: EuclideanMetric(2),
    "sphere": lambda: Sphere(2),
    "kernel": kernel,
}


# NumPyro builds a distribution from arrays alone, takes their names from the signature and does so for `vmap_over` too.


def heat_kernel(metric: str) -> type[Distribution]:
    class HeatKernel(RiemannianHeatKernel):
        def __init__(self, loc: Any, time: Any, validate_args: bool | None = None) -> None:
            super().__init__(loc, time, METRICS[metric](), num_steps=4, validate_args=validate_args)

    @vmap_over.register(HeatKernel)
    def axes(law: Any, loc: Any = None, time: Any = None) -> Any:
        return vmap_over.dispatch(Distribution)(law, loc=loc, time=time)

    return HeatKernel


def wrapped_normal(metric: str) -> type[Distribution]:
    class WrappedNormal(RiemannianWrappedNormal):
        def __init__(self, loc: Any, time: Any, validate_args: bool | None = None) -> None:
            super().__init__(loc, time, METRICS[metric](), validate_args=validate_args)

    @vmap_over.register(WrappedNormal)
    def axes(law: Any, loc: Any = None, time: Any = None) -> Any:
        return vmap_over.dispatch(Distribution)(law, loc=loc, time=time)

    return WrappedNormal


def normal(metric: str) -> type[Distribution]:
    class Normal(RiemannianNormal):
        def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
            super().__init__(loc, scale, METRICS[metric](), num_directions=16, validate_args=validate_args)

    @vmap_over.register(Normal)
    def axes(law: Any, loc: Any = None, scale: Any = None) -> Any:
        return vmap_over.dispatch(Distribution)(law, loc=loc, scale=scale)

    return Normal


def uniform(metric: str) -> type[Distribution]:
    class Uniform(RiemannianUniform):
        def __init__(self, low: Any, high: Any, validate_args: bool | None = None) -> None:
            super().__init__(METRICS[metric](), low, high, validate_args=validate_args)

    @vmap_over.register(Uniform)
    def axes(law: Any, low: Any = None, high: Any = None) -> Any:
        return vmap_over.dispatch(Distribution)(law, low=low, high=high)

    return Uniform


LAWS = {"heat kernel": heat_kernel, "wrapped normal": wrapped_normal, "normal": normal, "uniform": uniform}
# NumPyro draws each bound for itself there, so that some boxes come out empty, which we refuse
CASES = [
    (check, law) for check in CHECKS for law in LAWS if (check[0], law) != ("test_distribution_constraints", "uniform")
]
law_on = cache(lambda name, metric: LAWS[name](metric))


def parameters(name: str, batched: bool) -> tuple[jax.Array, jax.Array]:
    loc, spread = jnp.array([[0.1, -0.2], [0.3, 0.2]]), jnp.array([0.1, 0.2])
    pair = (loc - 0.5, loc + 0.5) if name == "uniform" else (loc, spread)
    return pair if batched else (pair[0][0], pair[1][0])


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    """NumPyro compares gradients with finite differences of step 1e-3."""
    with enable_x64(True):
        yield
    # each compiled program holds memory maps, of which Linux gives a process 65,530
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > 30_000:
        jax.clear_caches()


@pytest.mark.parametrize("batched", [False, True], ids=["single", "batch"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("case, name", CASES, ids=lambda part: part if isinstance(part, str) else part[0])
def test_generic_check(case: tuple[str, tuple[Any, ...]], name: str, metric: str, batched: bool) -> None:
    check, arguments = case
    law = law_on(name, metric)
    if check == "test_sample_gradient" and not law.reparametrized_params:
        with pytest.raises(NotImplementedError):  # there is no gradient to check, and the law says so
            law(*parameters(name, batched)).rsample(jax.random.key(0))
        return
    getattr(upstream(), check)(law, None, parameters(name, batched), *arguments)


def test_every_check_is_there() -> None:
    assert [name for name, _ in CHECKS if not hasattr(upstream(), name)] == []
