"""Public routines as functions of a metric and of arguments on some device, each with a tensor for its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
from pyro_riemann.autoencoders import GaussianMixtureSampler, InverseKernel, InverseVolumeSampler
from pyro_riemann.distributions import monte_carlo_kl
from pyro_riemann.evaluation import (
    ClassifierConfig,
    frechet_distance,
    nearest,
    prd,
    prd_of_histograms,
    precision_recall,
    stack_classes,
    train_classifier,
)
from pyro_riemann.manifolds import HalfSpace, Hyperboloid
from pyro_riemann.mixtures import fit_kernels, fit_mixture, fit_normals
from pyro_riemann.sampling import interpolate, sample_uniform
from pyro_riemann.vae import TrainingConfig, encode_all, make_vae, train


def kernel() -> KernelMetric:
    centroids = torch.tensor([[0.0, 0.0], [0.6, 0.2], [-0.4, 0.5]])
    return KernelMetric(centroids, torch.tensor([[4.0, 2.0], [2.0, 6.0], [3.0, 3.0]]), 0.8, 0.1)


def decoder() -> PullbackMetric:
    return PullbackMetric(nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 4)), 2)


class Arguments:
    """Points, a time, corners of a box and images on a device, in double precision."""

    def __init__(self, device: torch.device | str, dim: int = 2) -> None:
        generator = torch.Generator("cpu").manual_seed(3)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu").to(device)

        self.z, self.y, self.many = (0.6 * uniform(count, dim) - 0.3 for count in (2, 2, 60))
        self.time, self.low, self.high = uniform() / 10, -0.3 - uniform(dim) / 10, 0.3 + uniform(dim) / 10
        self.images, self.others = uniform(30, 16), uniform(30, 16)


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
#: Of one dimension, where the constants of a curved metric are quick.
LINE = "kernel, d = 1"


def line() -> KernelMetric:
    return KernelMetric(torch.tensor([[0.0], [0.6]]), torch.tensor([[4.0], [2.0]]), 0.8, 0.1)


def metric_named(name: str) -> RiemannianMetric:
    """In double precision, with a coarse solver: these tests are of devices."""
    torch.manual_seed(1)
    metric = (line() if name == LINE else METRICS[name]()).double()
    metric.solver = GeodesicSolver(num_knots=4, num_segments=16, graph_resolution=8)
    return metric


Routine = Callable[[RiemannianMetric, Arguments], Any]
POINTWISE: dict[str, Routine] = {
    "metric": lambda metric, a: metric.metric(a.z),
    "logdet": lambda metric, a: metric.logdet(a.z),
    "drift": lambda metric, a: metric.drift(a.z),
    "christoffel": lambda metric, a: metric.christoffel(a.z, a.y),
    "curvature": lambda metric, a: metric.scalar_curvature(a.z),
    "distance": lambda metric, a: metric.dist(a.z, a.y),
    "curve": lambda metric, a: metric.geodesic(a.z, a.y, init="graph")(0.5),
    "exponential": lambda metric, a: metric.expmap(a.z, 0.1 * a.y),
    "logarithm": lambda metric, a: metric.logmap(a.z, a.y),
    "van vleck": lambda metric, a: metric.log_van_vleck(a.z, a.y),
    "paths": lambda metric, a: brownian_motion(metric, a.z, 0.05, 3),
    "table": lambda metric, a: metric.tabulate(a.low, a.high, 6).metric(a.z),
}
SLOW = {"its constant", "heat kernel", "normal", "draws of the normal", "divergence"}
LAWS: dict[str, Routine] = {
    "heat kernel": lambda metric, a: RiemannianHeatKernel(a.z, a.time, metric, "van_vleck", num_steps=3).log_prob(a.y),
    "draws of it": lambda metric, a: RiemannianHeatKernel(a.z, a.time, metric, num_steps=3).rsample(),
    "its constant": lambda metric, a: RiemannianHeatKernel(a.z[:1], a.time, metric).log_normalizer().value,
    "wrapped normal": lambda metric, a: RiemannianWrappedNormal(a.z, a.time, metric).log_prob(a.y),
    "draws of the wrapped normal": lambda metric, a: RiemannianWrappedNormal(a.z, a.time, metric).rsample((2,)),
    "normal": lambda metric, a: RiemannianNormal(a.z[:1], a.time.sqrt(), metric).log_prob(a.y[:1]),
    "draws of the normal": lambda metric, a: RiemannianNormal(a.z[0], a.time.sqrt(), metric).sample((3,)),
    "uniform": lambda metric, a: RiemannianUniform(metric, a.low, a.high).log_prob(a.z),
    "draws of the uniform": lambda metric, a: RiemannianUniform(metric, a.low, a.high).sample((3,)),
    "divergence": lambda metric, a: (
        monte_carlo_kl(
            RiemannianWrappedNormal(a.z, a.time, metric), RiemannianWrappedNormal(a.y, a.time, metric), num_samples=3
        ).value
    ),
    "mixture": lambda metric, a: VampPrior(RiemannianWrappedNormal(a.z, a.time, metric)).sample((3,)),
}
#: Pairs of metric and law, with those that take seconds.
PAIRS = [
    pytest.param(name, law, marks=[pytest.mark.slow] if name == "kernel" and law in SLOW else [])
    for name in ("constant", "sphere", LINE, "kernel")
    for law in LAWS
]


def sampler(method: str) -> Routine:
    """The uniform law by one of its samplers."""
    few = {"num_steps": 8, "warm_up": 2, "num_leapfrog": 3} if method == "hmc" else {}
    return lambda metric, a: sample_uniform(metric, 8, a.low, a.high, method, seed=0, verbose=False, **few).draws


def trained(metric: RiemannianMetric, a: Arguments) -> Tensor:
    """Codes of an R-VAE after two short phases."""
    vae = make_vae(16, 2, "vamp", "normal", "fixed", hidden=(4,), num_centers=3, seed=0)
    config = TrainingConfig(warm_up_epochs=1, epochs=1, batch_size=15)
    train(vae, a.images.float(), a.others.float(), config, device=a.images.device, progress=False)
    return encode_all(vae, a.images.float())


def judged(metric: RiemannianMetric, a: Arguments) -> Tensor:
    """What a classifier of two classes makes of the images."""
    images, labels = stack_classes([a.images.float(), a.others.float() / 2])
    config = ClassifierConfig(epochs=1, batch_size=30)
    return train_classifier(images, labels, (4, 4), config=config).predict(images)


def volume(metric: RiemannianMetric, a: Arguments) -> Tensor:
    """Draws by the volume of an inverse metric."""
    unit = torch.eye(2, dtype=a.z.dtype, device=a.z.device).expand(2, 2, 2)
    return InverseVolumeSampler(InverseKernel(a.z, unit, 1.0, 0.1)).sample(3)


OTHERS: dict[str, Routine] = {
    "metric of a posterior": lambda _, a: KernelMetric.from_posterior(a.many, 0.3 + a.many**2, 5).metric(a.y),
    "interpolation": lambda metric, a: interpolate(metric, a.z[0], a.y[0], num_frames=3).points,
    "mixture fitted": lambda _, a: fit_mixture(a.many, Sphere(2), 2, num_steps=2).mixture.loc,
    "normals fitted": lambda _, a: fit_normals(a.many[:3], HalfSpace(2), 2, num_steps=2).mixture.components.loc,
    "kernels fitted": lambda _, a: fit_kernels(a.many, Sphere(2), a.time * (1 + a.z[0] ** 2)).log_prob(a.z),
    "gaussian mixture": lambda _, a: GaussianMixtureSampler(a.many, 2).sample(3).to(a.z),
    "inverse volume": volume,
    "frechet distance": lambda _, a: a.time + frechet_distance(a.images[:, :2], a.others[:, :2]),
    "precision and recall": lambda _, a: prd(a.images, a.others, num_clusters=4, num_runs=1).precision.to(a.z),
    "histograms": lambda _, a: prd_of_histograms(a.images[0] / a.images[0].sum(), a.others[1] / a.others[1].sum())[0],
    "improved precision and recall": lambda _, a: a.time + precision_recall(a.images, a.others)[0],
    "nearest": lambda _, a: nearest(a.images, a.others).distance,
    "classifier": judged,
    "training": trained,
    **{f"sampled, {method}": sampler(method) for method in ("table", "importance", "tempered", "metropolis", "hmc")},
}
