"""Every example in a docstring runs, and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpyro
import pyro
import pytest
import torch

import pyro_riemann
import pyro_riemann.numpyro

SLOW = {  # compile for seconds what another example compiles too
    "mixtures._normals.NormalsFit",
    "mixtures._normals.RiemannianMixture",
    "sampling._front.importance_resampling",
    "sampling._front.tempered_smc",
    "sampling._result.SamplingResult.novelty",
    "statistics._means.Clusters",
    "vae._decoders.DistanceImmersion",
}


def is_slow(example: doctest.DocTest) -> bool:
    return example.name.removeprefix("pyro_riemann.numpyro.") in SLOW


def examples() -> list[doctest.DocTest]:
    """The docstrings with examples, each with the names that need no import in one."""
    names = {name: getattr(pyro_riemann, name) for name in pyro_riemann.__all__}
    names |= {"torch": torch, "pyro": pyro, "pyro_riemann": pyro_riemann}
    twin_names = {name: getattr(pyro_riemann.numpyro, name) for name in pyro_riemann.numpyro.__all__}
    twin_names |= {"jax": jax, "jnp": jnp, "numpyro": numpyro, "pyro_riemann": pyro_riemann}
    finder = doctest.DocTestFinder(exclude_empty=True)
    found: list[doctest.DocTest] = []
    for module in pkgutil.walk_packages(pyro_riemann.__path__, "pyro_riemann."):
        if not module.name.endswith("__main__"):
            in_twin = f"{module.name}.".startswith("pyro_riemann.numpyro.")
            found += finder.find(importlib.import_module(module.name), extraglobs=twin_names if in_twin else names)
    return [example for example in found if example.examples]


@pytest.mark.parametrize(
    "example",
    [pytest.param(one, id=one.name, marks=[pytest.mark.slow] if is_slow(one) else []) for one in examples()],
)
def test_example(example: doctest.DocTest) -> None:
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    failed, _ = runner.run(example, out=report.append)
    assert failed == 0, "".join(report)
