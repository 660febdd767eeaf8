"""Every public routine on the GPU: results stay there, and agree with those of the processor.

``pytest -m gpu`` needs a CUDA device. With ``PYRO_RIEMANN_TEST_DEVICE=cpu`` the same tests run on the processor,
to see that they are right themselves.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.optim import Adam
from torch import Tensor, nn

from pyro_riemann import (
    ConstantMetric,
    EuclideanMetric,
    FlatTorus,
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
    plotting,
    summary,
)
from pyro_riemann.distributions._base import RiemannianDistribution
from pyro_riemann.evaluation import IdentifiabilityReport
from pyro_riemann.experiments.quickstart import configure, run
from pyro_riemann.manifolds import HalfSpace, Hyperboloid
from pyro_riemann.metrics import k_medoids, kernel_bandwidth, posterior_moments
from pyro_riemann.vae import TrainingConfig, encode_all, evaluate, make_vae, train

pytestmark = pytest.mark.gpu
DEVICE = torch.device(os.environ.get("PYRO_RIEMANN_TEST_DEVICE", "cuda"))


class Decoder(nn.Module):
    """Mean and standard deviation, as of a Gaussian decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 16), nn.Tanh())
        self.mean, self.deviation = nn.Linear(16, 10), nn.Linear(16, 10)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(z)
        return self.mean(hidden), nn.functional.softplus(self.deviation(hidden))


class HalfPlane(RiemannianMetric):
    """A user's metric: only ``metric(z)``."""

    dim = 2

    def metric(self, z: Tensor) -> Tensor:
        return torch.diag_embed(torch.stack([(-2 * z[..., 1]).exp(), torch.ones_like(z[..., 1])], -1))


def kernel(full: bool = False) -> KernelMetric:
    centroids = torch.tensor([[0.0, 0.0], [0.6, 0.2], [-0.4, 0.5]])
    precisions = torch.tensor([[4.0, 2.0], [2.0, 6.0], [3.0, 3.0]])
    return KernelMetric(centroids, torch.diag_embed(precisions) if full else precisions, 0.8, 0.1)


def bent() -> WarpedMetric:
    def forward(y: Tensor) -> Tensor:
        return torch.stack([y[..., 0], y[..., 1] + 0.5 * y[..., 0].square()], -1)

    def inverse(z: Tensor) -> Tensor:
        return torch.stack([z[..., 0], z[..., 1] - 0.5 * z[..., 0].square()], -1)

    return WarpedMetric(Sphere(2), (forward, inverse))


def posterior() -> KernelMetric:
    return KernelMetric.from_posterior(torch.randn(50, 2), torch.full((50, 2), 0.4), 8, "mahalanobis")


METRICS: dict[str, Callable[[], RiemannianMetric]] = {
    "euclidean": lambda: EuclideanMetric(2),
    "constant": lambda: ConstantMetric(torch.tensor([[2.0, 0.5], [0.5, 1.0]])),
    "decoder": lambda: PullbackMetric(nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 10)), 2),
    "decoder with deviation": lambda: PullbackMetric(Decoder(), 2),
    "kernel": kernel,
    "kernel, full": lambda: kernel(full=True),
    "kernel, from posterior": posterior,
    "conformal": lambda: kernel().conformal(),
    "grid": lambda: GridMetric(PullbackMetric(Decoder(), 2), -2.0, 2.0, 24),
    "sphere": lambda: Sphere(2),
    "hyperbolic": lambda: Hyperbolic(2),
    "hyperboloid": lambda: Hyperboloid(2),
    "half-space": lambda: HalfSpace(2),
    "torus": lambda: FlatTorus(2),
    "warped sphere": bent,
    "user's own": HalfPlane,
}
FEW = ["constant", "decoder with deviation", "kernel", "grid", "sphere"]
LAWS = ["heat kernel", "heat kernel, corrected", "wrapped normal", "normal", "uniform"]


def pair(name: str) -> tuple[RiemannianMetric, RiemannianMetric]:
    """The same metric in double precision on the processor and on the device."""
    torch.manual_seed(1)
    reference = METRICS[name]().double()
    return reference, copy.deepcopy(reference).to(DEVICE)


def points(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * 0.8 - 0.4


def law(name: str, metric: RiemannianMetric, loc: Tensor, spread: Tensor) -> RiemannianDistribution:
    if name == "heat kernel":
        return RiemannianHeatKernel(loc, spread, metric, num_steps=8)
    if name == "heat kernel, corrected":
        return RiemannianHeatKernel(loc, spread, metric, "van_vleck_curvature", num_steps=8, normalize=True)
    if name == "wrapped normal":
        return RiemannianWrappedNormal(loc, spread, metric)
    if name == "normal":
        return RiemannianNormal(loc, spread.sqrt(), metric)
    return RiemannianUniform(metric, loc.detach() - 1, loc.detach() + 1)


def check(value: Tensor, reference: Tensor) -> None:
    assert value.device.type == DEVICE.type
    torch.testing.assert_close(value.cpu(), reference, rtol=1e-5, atol=1e-7)


# ---------------------------------------------------------------- metrics and geodesics


@pytest.mark.parametrize("name", METRICS)
def test_pointwise_geometry(name: str) -> None:
    reference, metric = pair(name)
    z, v = points(5), points(3, 5)
    for method in ("metric", "cholesky", "logdet", "drift", "scalar_curvature"):
        check(getattr(metric, method)(z.to(DEVICE)), getattr(reference, method)(z))
    for method in ("norm", "christoffel"):
        check(
            getattr(metric, method)(z.expand_as(v).to(DEVICE), v.to(DEVICE)),
            getattr(reference, method)(z.expand_as(v), v),
        )
    check(metric.inner(z.to(DEVICE), v.to(DEVICE), v.to(DEVICE)), reference.inner(z, v, v))
    for value, expected in zip(metric.metric_jacobian(z.to(DEVICE)), reference.metric_jacobian(z), strict=True):
        check(value, expected)


@pytest.mark.parametrize("name", METRICS)
def test_geodesics(name: str) -> None:
    reference, metric = pair(name)
    z, y, v = points(4), -points(4), 0.3 * points(4)
    for method in ("dist", "squared_dist", "logmap", "log_van_vleck"):
        check(getattr(metric, method)(z.to(DEVICE), y.to(DEVICE)), getattr(reference, method)(z, y))
    check(metric.expmap(z.to(DEVICE), v.to(DEVICE)), reference.expmap(z, v))
    for value, expected in zip(
        metric.expmap_log_van_vleck(z.to(DEVICE), v.to(DEVICE)), reference.expmap_log_van_vleck(z, v), strict=True
    ):
        check(value, expected)
    for init in ("line", "graph"):
        curve, expected_curve = (
            metric.geodesic(z.to(DEVICE), y.to(DEVICE), init=init),
            reference.geodesic(z, y, init=init),
        )
        check(curve.length, expected_curve.length)
        check(curve.energy, expected_curve.energy)
        check(curve(0.5), expected_curve(0.5))
        assert curve.points.device.type == curve.converged.device.type == DEVICE.type


@pytest.mark.parametrize("name", ["decoder", "decoder with deviation", "kernel", "sphere"])
def test_gradients_of_the_distance(name: str) -> None:
    gradients: list[tuple[Tensor, ...]] = []
    for metric in pair(name):
        device = "cpu" if not gradients else DEVICE
        z, y = points(4).to(device).requires_grad_(), -points(4).to(device)
        inputs = [z, *metric.parameters()]
        gradients.append(torch.autograd.grad(metric.squared_dist(z, y).sum(), inputs, allow_unused=True))
    for reference, value in zip(*gradients, strict=True):
        if reference is not None:
            check(value, reference)


def test_distance_field() -> None:
    reference, metric = pair("grid")
    assert isinstance(reference, GridMetric)
    assert isinstance(metric, GridMetric)
    z = points(6)
    field, expected = metric.distance_field(points(1)[0].to(DEVICE)), reference.distance_field(points(1)[0])
    check(field.squared_dist(z.to(DEVICE)), expected.squared_dist(z))


def test_fit_on_the_device() -> None:
    loc, scale = points(40).to(DEVICE), torch.full((40, 2), 0.1, dtype=torch.float64, device=DEVICE)
    metric = KernelMetric.from_posterior(loc, scale, 10, "mahalanobis")
    assert metric.centroids.device.type == DEVICE.type
    assert metric.coverage(loc).item() > 0.5
    assert torch.equal(metric.centroids, loc[k_medoids(loc, 10)])
    assert kernel_bandwidth(metric.centroids, metric.precisions, "mahalanobis") == pytest.approx(
        metric.bandwidth.item()
    )
    _, tril = posterior_moments(torch.randn(50, 4, 2, dtype=torch.float64, device=DEVICE))
    assert KernelMetric.from_posterior(loc[:4], tril, 4).precisions.device.type == DEVICE.type
    grid = GridMetric(metric, -1.0, 1.0, 16)
    assert grid.metric(loc).device.type == DEVICE.type
    assert PullbackMetric(Decoder().double().to(DEVICE), 2).metric(loc).device.type == DEVICE.type


@pytest.mark.parametrize("name", ["sphere", "hyperbolic", "torus"])
def test_exact_heat_kernel(name: str) -> None:
    reference, metric = pair(name)
    z, y = points(5), -points(5)
    check(metric.log_heat_kernel(z.to(DEVICE), y.to(DEVICE), 0.3), reference.log_heat_kernel(z, y, 0.3))  # type: ignore[operator]


# ---------------------------------------------------------------- Brownian motion


@pytest.mark.parametrize("method", [None, "retraction", "second_order", "euler", "geodesic", "driftless"])
def test_brownian_motion(method: str | None) -> None:
    noise = torch.randn(6, 5, 2, dtype=torch.float64)
    for name in (
        ("decoder with deviation", "kernel", "sphere") if method != "retraction" else ("decoder with deviation",)
    ):
        reference, metric = pair(name)
        start = points(5)
        expected = brownian_motion(reference, start, 0.1, 6, method, return_path=True, noise=noise)
        value = brownian_motion(metric, start.to(DEVICE), 0.1, 6, method, return_path=True, noise=noise.to(DEVICE))
        check(value, expected)
        assert brownian_motion(metric, start.to(DEVICE), 0.1, 6, method).device.type == DEVICE.type


# ---------------------------------------------------------------- distributions


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("family", LAWS)
def test_distribution(family: str, name: str) -> None:
    reference, metric = pair(name)
    loc, spread, z = points(3), torch.tensor(0.02, dtype=torch.float64), 0.5 * points(4, 3)
    expected = law(family, reference, loc, spread)
    value = law(family, metric, loc.to(DEVICE), spread.to(DEVICE))
    check(value.log_prob(z.to(DEVICE)), expected.log_prob(z))
    draws = value.sample((4,))
    assert draws.shape == (4, 3, 2)
    assert draws.device.type == DEVICE.type
    assert bool(torch.isfinite(value.log_prob(draws)).all())
    assert value.expand((2, 3)).sample().device.type == DEVICE.type
    for normaliser in ("log_normalizer", "log_volume"):
        if hasattr(value, normaliser):
            for part, other in zip(getattr(value, normaliser)(), getattr(expected, normaliser)(), strict=True):
                check(part, other)


@pytest.mark.parametrize("family", ["heat kernel", "wrapped normal"])
def test_reparametrised_draws(family: str) -> None:
    _, metric = pair("decoder with deviation")
    loc = points(3).to(DEVICE).requires_grad_()
    spread = torch.tensor(0.05, dtype=torch.float64, device=DEVICE, requires_grad=True)
    draws = law(family, metric, loc, spread).rsample((4,))
    for gradient in torch.autograd.grad(draws.sum(), [loc, spread]):
        assert gradient.device.type == DEVICE.type
        assert bool(torch.isfinite(gradient).all())


def test_divergence_and_mixture() -> None:
    _, metric = pair("kernel")
    loc, time = points(3).to(DEVICE), torch.tensor(0.05, dtype=torch.float64, device=DEVICE)
    first, second = RiemannianWrappedNormal(loc, time, metric), RiemannianHeatKernel(-loc, 2 * time, metric)
    assert torch.distributions.kl_divergence(first, second).device.type == DEVICE.type
    mixture = VampPrior(first)
    assert mixture.log_prob(mixture.sample((4,))).device.type == DEVICE.type


@pytest.mark.parametrize("family", LAWS)
def test_nuts(family: str) -> None:
    _, metric = pair("sphere")
    loc, spread = points(1)[0].to(DEVICE), torch.tensor(0.1, dtype=torch.float64, device=DEVICE)

    def model() -> None:
        z = pyro.sample("z", law(family, metric, loc, spread))
        pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=loc)

    mcmc = MCMC(NUTS(model), num_samples=10, warmup_steps=10, disable_progbar=True)
    mcmc.run()
    draws = mcmc.get_samples()["z"]
    assert draws.device.type == DEVICE.type
    assert summary({"z": draws[None]}, metric).shape[0] == 2


def test_svi() -> None:
    _, metric = pair("decoder with deviation")
    data = points(8).to(DEVICE)
    centre, time = data.new_zeros(2), data.new_tensor(0.2)

    def model() -> None:
        with pyro.plate("data", 8):
            z = pyro.sample("z", RiemannianHeatKernel(centre, time, metric))
            pyro.sample("x", dist.Normal(z, 0.3).to_event(1), obs=data)

    def guide() -> None:
        loc = pyro.param("loc", data.clone())
        spread = pyro.param("spread", data.new_full((8,), 0.05), constraint=dist.constraints.positive)
        with pyro.plate("data", 8):
            pyro.sample("z", RiemannianWrappedNormal(loc, spread, metric))

    svi = SVI(model, guide, Adam({"lr": 1e-2}), Trace_ELBO())
    losses = [svi.step() for _ in range(3)]
    assert all(loss == loss for loss in losses)
    assert pyro.param("loc").device.type == DEVICE.type


# ---------------------------------------------------------------- models and the main job


@pytest.mark.parametrize(
    "prior, posterior, metric",
    [
        ("normal", "normal", "fixed"),
        ("vamp", "normal", "fixed"),
        ("heat_kernel", "wrapped_normal", "fixed"),
        ("heat_kernel", "heat_kernel", "grid"),
        ("heat_kernel", "wrapped_normal", "learned"),
    ],
)
def test_vae(prior: str, posterior: str, metric: str, tmp_path: Path) -> None:
    data = torch.rand(40, 12)
    vae = make_vae(12, 2, prior, posterior, metric, hidden=(16,), num_centers=8, seed=0)
    config = TrainingConfig(warm_up_epochs=1, epochs=1, batch_size=20)
    history = train(vae, data, data[:10], config, device=DEVICE, checkpoint=tmp_path, progress=False)
    assert len(history) == 2
    assert all(parameter.device.type == DEVICE.type for parameter in vae.parameters())
    codes = encode_all(vae, data.to(DEVICE))
    assert codes.device.type == DEVICE.type
    report = evaluate(vae, data[:8].to(DEVICE), num_importance=4, num_pairs=4)
    assert report["elbo"] == pytest.approx(report["reconstruction"] - report["kl"])
    longer = TrainingConfig(warm_up_epochs=1, epochs=2, batch_size=20)
    assert (
        len(train(vae, data, data[:10], longer, device=DEVICE, checkpoint=tmp_path, progress=False, resume=False)) == 3
    )


def test_plotting() -> None:
    _, metric = pair("decoder with deviation")
    codes = points(10).to(DEVICE)
    plotting.plot_latent_space(metric, codes, torch.arange(10, device=DEVICE) % 3, resolution=12)
    plotting.plot_geodesics(metric.geodesic(codes[:2], -codes[:2]))
    plotting.plot_brownian_paths(brownian_motion(metric, codes, 0.01, 4, return_path=True))
    plotting.plot_images(torch.rand(4, 9, device=DEVICE), (3, 3))
    plotting.plot_chains({"z": torch.randn(2, 20, 2, device=DEVICE)})
    IdentifiabilityReport(*(1 + torch.rand(2, 3, 5, device=DEVICE))).plot()
    plt.close("all")


def test_quickstart(tmp_path: Path) -> None:
    settings = {"warm_up_epochs": 2, "epochs": 1, "num_centers": 10, "resolution": 24, "limit": 200}
    sampler = {"warmup": 10, "draws": 10, "iwae_draws": 5}
    result = run(configure("digits", output=tmp_path, device=str(DEVICE), quiet=True, **settings, **sampler))
    assert (tmp_path / "result.json").stat().st_size > 0
    assert len(list(tmp_path.glob("*.png"))) >= 4
    assert result
