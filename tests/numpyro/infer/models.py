"""Models and guides with the four laws, as in ``tests/infer/models.py``.

The latent point has one of the four laws; data are that point with Gaussian noise of the chart. The metrics have closed
forms, or are cheap: what is tested is inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints

from pyro_riemann.numpyro import (
    KernelMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianUniform,
    RiemannianWrappedNormal,
    Sphere,
)

LAWS = ("heat kernel", "wrapped normal", "normal", "uniform")
NOISE = 0.4
CENTRE = np.array([0.2, -0.1])


def kernel() -> KernelMetric:
    """Three overlapping kernels: a volume element that varies."""
    centroids = jnp.array([[0.0, 0.0], [1.0, 0.5], [-0.5, 0.8]])
    return KernelMetric(centroids, jnp.array([[6.0, 3.0], [2.0, 8.0], [5.0, 5.0]]), 1.2, 0.3)


def law(name: str, metric: RiemannianMetric | None = None, spread: Array | float = 0.2) -> Any:
    """One of the four laws around (0.2, -0.1)."""
    metric = Sphere(2) if metric is None else metric
    loc, spread = jnp.asarray(CENTRE), jnp.asarray(spread)
    if name == "heat kernel":
        return RiemannianHeatKernel(loc, spread, metric, num_steps=8)
    if name == "wrapped normal":
        return RiemannianWrappedNormal(loc, spread, metric)
    if name == "normal":
        return RiemannianNormal(loc, jnp.sqrt(spread), metric)
    return RiemannianUniform(metric, loc - 1, loc + 1)


def observations(count: int = 6) -> np.ndarray:
    return np.array([0.5, 0.1]) + NOISE * np.random.default_rng(5).normal(size=(count, 2))


def model(data: Array, names: Sequence[str] = LAWS) -> None:
    """Independent problems, one for each law, so that one program serves all: a latent point behind all data."""
    for name in names:
        z = numpyro.sample(name, law(name))
        with numpyro.plate(f"data, {name}", len(data)):
            numpyro.sample(f"x, {name}", dist.Normal(z, NOISE).to_event(1), obs=data)


def local_model(data: Array, subsample_size: int | None = None) -> None:
    """One latent point for each law and datum, in a plate that may subsample."""
    with numpyro.plate("data", len(data), subsample_size=subsample_size):
        x = numpyro.subsample(jnp.asarray(data), event_dim=1)
        for name in LAWS:
            z = numpyro.sample(name, law(name))
            numpyro.sample(f"x, {name}", dist.Normal(z, NOISE).to_event(1), obs=x)


def local_guide(data: Array, subsample_size: int | None = None) -> None:
    """A learned centre for each datum: a wrapped normal on the sphere, a logistic normal on the box."""
    with numpyro.plate("data", len(data), subsample_size=subsample_size):
        for name in LAWS:
            centres = numpyro.param(f"centre, {name}", 0.1 * jnp.ones_like(data), event_dim=1)
            numpyro.sample(name, posterior(name, centres))


def posterior(name: str, centre: Array) -> dist.Distribution:
    """A reparametrised law with the support of the prior, and a learned spread."""
    spread = numpyro.param(f"spread, {name}", jnp.asarray(0.1), constraint=constraints.positive)
    if name != "uniform":
        return RiemannianWrappedNormal(centre, spread, Sphere(2))
    to_box = dist.transforms.biject_to(law(name).support)
    return dist.TransformedDistribution(dist.Normal(centre, jnp.sqrt(spread)).to_event(1), [to_box])


def replications(name: str, data: Array) -> None:
    """As many independent problems as there are data, one latent point each: one chain serves them all."""
    on = kernel() if name == "uniform" else Sphere(2)
    with numpyro.plate("data", len(data)):
        z = numpyro.sample("z", law(name, on))
        numpyro.sample("x", dist.Normal(z, NOISE).to_event(1), obs=data)
