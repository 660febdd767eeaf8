"""Another default device than that of the arguments changes nothing: no routine makes a tensor wherever torch makes them.

The arguments are on the processor, the default device is ``meta``, whose tensors have no content: one that a routine
made there could not be used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor, nn

from pyro_riemann import (
    ConstantMetric,
    EuclideanMetric,
    FlatTorus,
    GeodesicSolver,
    GridMetric,
    Hyperbolic,
    KernelMetric,
    PullbackMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianUniform,
    RiemannianWrappedNormal,
    Sphere,
    VampPrior,
    WarpedMetric,
    brownian_motion,
)
from pyro_riemann.autoencoders import GaussianMixtureSampler
from pyro_riemann.distributions import monte_carlo_kl
from pyro_riemann.evaluation import (
    frechet_distance,
    nearest,
    prd,
    prd_of_histograms,
    precision_recall,
    stack_classes,
    train_classifier,
)
from pyro_riemann.manifolds import HalfSpace, Hyperboloid
from pyro_riemann.mixtures import fit_kernels, fit_mixture
from pyro_riemann.sampling import interpolate, sample_uniform


def kernel() -> KernelMetric:
    centroids = torch.tensor([[0.0, 0.0], [0.6, 0.2], [-0.4, 0.5]])
    return KernelMetric(centroids, torch.tensor([[4.0, 2.0], [2.0, 6.0], [3.0, 3.0]]), 0.8, 0.1)


def decoder() -> PullbackMetric:
    return PullbackMetric(nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 4)), 2)


METRICS: dict[str, Callable[[], RiemannianMetric]] = {
    "euclidean": lambda: EuclideanMetric(2),
    "constant": lambda: ConstantMetric(torch.tensor([[2.0, 0.5], [0.5, 1.0]])),
    "decoder": decoder,
    "kernel": kernel,
    "conformal": lambda: kernel().conformal(),
    "grid": lambda: GridMetric(kernel(), -2.0, 2.0, 12),
    "sphere": lambda: Sphere(2),
    "hyperbolic": lambda: Hyperbolic(2),
    "hyperboloid": lambda: Hyperboloid(2),
    "half-space": lambda: HalfSpace(2),
    "torus": lambda: FlatTorus(2),
    "warped": lambda: WarpedMetric(Sphere(2), (lambda z: 2 * z, lambda x: x / 2)),
}
TIME = torch.tensor(0.05)
LOW, HIGH = torch.tensor([-0.4, -0.3]), torch.tensor([0.3, 0.4])


def points(*shape: int) -> Tensor:
    return 0.6 * torch.rand(*shape, 2, generator=torch.Generator().manual_seed(3), device="cpu") - 0.3


Z, Y = points(2, 2)
POINTWISE: dict[str, Callable[[RiemannianMetric], Any]] = {
    "metric": lambda metric: metric.metric(Z),
    "logdet": lambda metric: metric.logdet(Z),
    "drift": lambda metric: metric.drift(Z),
    "christoffel": lambda metric: metric.christoffel(Z, Y),
    "curvature": lambda metric: metric.scalar_curvature(Z),
    "distance": lambda metric: metric.dist(Z, Y),
    "curve": lambda metric: metric.geodesic(Z, Y, init="graph")(0.5),
    "exponential": lambda metric: metric.expmap(Z, 0.1 * Y),
    "logarithm": lambda metric: metric.logmap(Z, Y),
    "van vleck": lambda metric: metric.log_van_vleck(Z, Y),
    "paths": lambda metric: brownian_motion(metric, Z, 0.05, 3),
    "tabulate": lambda metric: metric.tabulate(LOW, HIGH, 6).metric(Z),
}
LAWS: dict[str, Callable[[RiemannianMetric], Any]] = {
    "heat kernel": lambda metric: RiemannianHeatKernel(Z, TIME, metric, "van_vleck", num_steps=3).log_prob(Y),
    "heat kernel, draws": lambda metric: RiemannianHeatKernel(Z, TIME, metric, num_steps=3).rsample(),
    "heat kernel, constant": lambda metric: RiemannianHeatKernel(Z[:1], TIME, metric).log_normalizer().value,
    "wrapped normal": lambda metric: RiemannianWrappedNormal(Z, TIME, metric).log_prob(Y),
    "wrapped normal, draws": lambda metric: RiemannianWrappedNormal(Z, TIME, metric).rsample((2,)),
    "normal": lambda metric: RiemannianNormal(Z[:1], TIME.sqrt(), metric).log_prob(Y[:1]),
    "normal, draws": lambda metric: RiemannianNormal(Z[0], TIME.sqrt(), metric).sample((3,)),
    "uniform": lambda metric: RiemannianUniform(metric, LOW, HIGH).log_prob(Z),
    "uniform, draws": lambda metric: RiemannianUniform(metric, LOW, HIGH).sample((3,)),
    "divergence": lambda metric: monte_carlo_kl(
        RiemannianWrappedNormal(Z, TIME, metric), RiemannianHeatKernel(Y, TIME, metric), num_samples=3
    ).value,
    "mixture of posteriors": lambda metric: VampPrior(RiemannianWrappedNormal(Z, TIME, metric)).sample((3,)),
}
IMAGES = torch.rand(60, 16, generator=torch.Generator().manual_seed(0))


def draws(method: str) -> Tensor:
    return sample_uniform(kernel(), 8, LOW, HIGH, method, seed=0, verbose=False).draws


OTHERS: dict[str, Callable[[], Any]] = {
    "a kernel metric from a posterior": lambda: KernelMetric.from_posterior(Z, torch.full_like(Z, 0.3)).metric(Y),
    "interpolation": lambda: interpolate(kernel(), Z[0], Y[0], num_frames=3).points,
    "mixture fitted": lambda: fit_mixture(points(30), Sphere(2), 2, num_steps=2).mixture.loc,
    "kernels fitted": lambda: fit_kernels(points(30), Sphere(2), torch.tensor([0.01, 0.1])).log_prob(Z),
    "gaussian mixture": lambda: GaussianMixtureSampler(points(60), 2).sample(3),
    "frechet distance": lambda: frechet_distance(IMAGES[:30], IMAGES[30:]),
    "precision and recall": lambda: prd(IMAGES[:30], IMAGES[30:], num_clusters=4, num_runs=1).precision,
    "histograms": lambda: prd_of_histograms(IMAGES[0] / IMAGES[0].sum(), IMAGES[1] / IMAGES[1].sum())[0],
    "improved precision and recall": lambda: torch.tensor(precision_recall(IMAGES[:30], IMAGES[30:]), device="cpu"),
    "nearest": lambda: nearest(IMAGES[:5], IMAGES[5:]).distance,
    "classes": lambda: stack_classes([IMAGES[:3], IMAGES[3:]])[1],
    **{f"draws, {method}": functools.partial(draws, method) for method in ("table", "importance", "tempered", "hmc")},
}


def same_elsewhere(routine: Callable[[], Any]) -> None:
    values = []
    for device in ("cpu", "meta"):
        pyro.set_rng_seed(0)
        with torch.device(device):
            values.append(torch.as_tensor(routine(), device="cpu"))
    assert torch.equal(*values)


@pytest.mark.parametrize("routine", POINTWISE)
@pytest.mark.parametrize("name", METRICS)
def test_geometry(name: str, routine: str) -> None:
    metric = METRICS[name]()
    metric.solver = GeodesicSolver(num_knots=4, num_segments=16, graph_resolution=8)
    same_elsewhere(lambda: POINTWISE[routine](metric))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", ["constant", "kernel", "grid", "sphere", "warped"])
def test_laws(name: str, law: str) -> None:
    metric = METRICS[name]()
    same_elsewhere(lambda: LAWS[law](metric))


@pytest.mark.parametrize("routine", OTHERS)
def test_other_routines(routine: str) -> None:
    same_elsewhere(OTHERS[routine])
