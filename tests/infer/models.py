"""Models and guides at module level, so that spawned chains can import them.

The latent point has one of the four laws; data are that point with Gaussian noise of the chart.
"""

from __future__ import annotations

from functools import lru_cache

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from pyro_riemann import (
    KernelMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianUniform,
    RiemannianWrappedNormal,
    Sphere,
)
from pyro_riemann.distributions._base import RiemannianDistribution

DTYPE = torch.float64
LAWS = ("heat kernel", "wrapped normal", "normal", "uniform")
NOISE = 0.4


@lru_cache(maxsize=1)
def sphere() -> RiemannianMetric:
    """The unit sphere: closed forms make a chain cheap."""
    return Sphere(2)


@lru_cache(maxsize=1)
def kernel() -> KernelMetric:
    """Three overlapping kernels: a volume element that varies."""
    centroids = torch.tensor([[0.0, 0.0], [1.0, 0.5], [-0.5, 0.8]], dtype=DTYPE)
    return KernelMetric(centroids, torch.tensor([[6.0, 3.0], [2.0, 8.0], [5.0, 5.0]], dtype=DTYPE), 1.2, 0.3)


def law(name: str, metric: RiemannianMetric | None = None, spread: Tensor | None = None) -> RiemannianDistribution:
    """One of the four laws around (0.2, -0.1)."""
    metric = sphere() if metric is None else metric
    loc = torch.tensor([0.2, -0.1], dtype=DTYPE)
    spread = torch.tensor(0.2, dtype=DTYPE) if spread is None else spread
    if name == "heat kernel":
        return RiemannianHeatKernel(loc, spread, metric, num_steps=8)
    if name == "wrapped normal":
        return RiemannianWrappedNormal(loc, spread, metric)
    if name == "normal":
        return RiemannianNormal(loc, spread.sqrt(), metric)
    return RiemannianUniform(metric, loc - 1, loc + 1)


def observations(count: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    shift = torch.tensor([0.5, 0.1], dtype=DTYPE)
    return shift + NOISE * torch.randn(count, 2, generator=generator, dtype=DTYPE)


def prior(name: str) -> Tensor:
    """The law alone."""
    return pyro.sample("z", law(name))


def prior_guide(name: str) -> None:
    pyro.sample("z", law(name))


def model(name: str, data: Tensor) -> Tensor:
    """One latent point behind all data."""
    z = pyro.sample("z", law(name))
    with pyro.plate("data", len(data)):
        pyro.sample("x", dist.Normal(z, NOISE).to_event(1), obs=data)
    return z


def local_model(name: str, data: Tensor, subsample_size: int | None = None) -> None:
    """One latent point for each datum, in a plate that may subsample."""
    with pyro.plate("data", len(data), subsample_size=subsample_size) as index:
        z = pyro.sample("z", law(name))
        pyro.sample("x", dist.Normal(z, NOISE).to_event(1), obs=data[index])


def local_guide(name: str, data: Tensor, subsample_size: int | None = None) -> None:
    """The same law, with a learned centre: a wrapped normal on the sphere, a logistic normal on the box."""
    with pyro.plate("data", len(data), subsample_size=subsample_size) as index:
        pyro.sample("z", posterior(name, pyro.param("centre", 0.1 * torch.ones_like(data))[index]))


def guide(name: str, data: Tensor) -> None:
    pyro.sample("z", posterior(name, pyro.param("centre", 0.1 * torch.ones(2, dtype=DTYPE))))


def posterior(name: str, centre: Tensor) -> dist.TorchDistribution:
    """A reparametrised law with the support of the prior."""
    spread = pyro.param("spread", torch.tensor(0.1, dtype=DTYPE), constraint=constraints.positive)
    if name != "uniform":
        return RiemannianWrappedNormal(centre, spread, sphere())
    box = law(name)
    to_box = dist.transforms.biject_to(constraints.independent(constraints.interval(box.low, box.high), 1))
    return dist.TransformedDistribution(dist.Normal(centre, spread.sqrt()).to_event(1), [to_box])


def score_guide(name: str, data: Tensor) -> None:
    """A guide of the law itself, reparametrised or not, with a learned spread."""
    spread = pyro.param("spread", torch.tensor(0.1, dtype=DTYPE), constraint=constraints.positive)
    pyro.sample("z", law(name, spread=spread))


def all_four() -> None:
    """Every law in one model."""
    for name in LAWS:
        pyro.sample(name, law(name))


def replications(name: str, data: Tensor) -> None:
    """As many independent problems as there are data, one latent point each: one chain serves them all."""
    on = kernel() if name == "uniform" else sphere()
    with pyro.plate("data", len(data)):
        z = pyro.sample("z", law(name, on, torch.tensor(0.2, dtype=DTYPE)))
        pyro.sample("x", dist.Normal(z, NOISE).to_event(1), obs=data)


def on_kernel() -> Tensor:
    """The uniform law of a kernel metric, to be judged against quadrature."""
    return pyro.sample("z", law("uniform", kernel()))


def on_sphere() -> Tensor:
    return pyro.sample("z", law("normal"))
