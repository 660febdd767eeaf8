"""Cases of torch's face."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ._models import PAIRS, Calls, mnist_vae, pairs, with_gradient


def brownian() -> Calls:
    from pyro_riemann import PullbackMetric, brownian_motion
    from pyro_riemann.vae import GaussianDecoder

    torch.manual_seed(0)
    network = GaussianDecoder(latent_dim=2, data_dim=784)
    network.std.fit(torch.randn(2000, 2), residuals=0.02 + 0.05 * torch.rand(2000, 784))
    metric, start = PullbackMetric(network.requires_grad_(False), 2), 0.5 * torch.randn(1000, 2)

    def walk(method: str) -> Callable[[], Tensor]:
        return torch.no_grad()(lambda: brownian_motion(metric, start, 0.1, 10, method))

    return {method: walk(method) for method in ("driftless", "second_order", "retraction")}


def geodesics() -> Calls:
    from pyro_riemann import GridMetric, PullbackMetric

    vae, codes = mnist_vae()
    metric = PullbackMetric(vae.decoder.requires_grad_(False), 2)
    z, y = pairs(codes, PAIRS)
    further = pairs(codes.flip(0), 100)
    low, high = codes.amin(0) - 0.5, codes.amax(0) + 0.5
    grid = GridMetric(metric, low, high, 128).prepare_paths()
    grid.solver = grid.solver.replace(init="graph")

    def by(init: str) -> Callable[[], Tensor]:
        def work() -> Tensor:
            metric.solver = metric.solver.replace(init=init)
            return with_gradient(metric, z, y)

        return work

    def tabulated() -> Tensor:
        metric.solver = metric.solver.replace(init="graph")
        return with_gradient(GridMetric(metric, low, high, 128).prepare_paths(), z, y)

    return {
        "line": by("line"),
        "graph": by("graph"),
        "GridMetric, table included": tabulated,
        "GridMetric, 100 further pairs": lambda: with_gradient(grid, *further),
    }


def training() -> Calls:
    import pyro
    from pyro.infer import SVI, Trace_ELBO

    import pyro_riemann.vae as models
    from pyro_riemann.datasets import load_dataset
    from pyro_riemann.vae import encode_all, set_phase

    data = load_dataset("mnist").train[:4000]
    calls: Calls = {}
    bound = getattr(models, "FrozenPosteriorELBO", Trace_ELBO)  # of an older checkout, whose model takes short cuts

    def steps(vae: Any, phase: int, count: int) -> Callable[[], None]:
        def work() -> None:
            set_phase(vae, phase)
            vae.train()
            vae.leaves_out_constants = True  # there
            with pyro.get_param_store().scope():
                svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-5}), bound())
                for x in data[: 100 * count].split(100):
                    svi.step(x, size=60_000)

        return work

    for dim in (2, 10):
        plain, _ = mnist_vae(dim)
        calls |= {f"d = {dim}, VAE, phase {phase}": steps(plain, phase, 20) for phase in (1, 2)}
    for dim, posterior, kind, settings in [
        (2, "wrapped_normal", "grid", {}),
        (2, "heat_kernel", "grid", {}),
        (2, "normal", "grid", {}),
        (10, "wrapped_normal", "fixed", {"flow_steps": 1}),
        (10, "heat_kernel", "fixed", {"posterior_steps": 1}),
        (10, "normal", "fixed", {}),
    ]:
        vae, _ = mnist_vae(dim, prior="heat_kernel", posterior=posterior, metric=kind, **settings)
        set_phase(vae, 2)
        codes = encode_all(vae, data)

        def refresh(vae: Any = vae, codes: Tensor = codes) -> None:
            vae.refresh_metric(codes)
            _ = vae.metric

        refresh()
        vae.prior.initialize(vae.metric, codes)
        calls[f"d = {dim}, R-VAE, {posterior} posterior, {kind} metric, phase 2"] = steps(vae, 2, 10 if dim == 2 else 3)
        if kind == "grid" and posterior == "normal":
            calls["d = 2, R-VAE, a table of the decoder"] = refresh
    return calls


def sampling() -> Calls:
    from pyro_riemann import KernelMetric
    from pyro_riemann._formulas.medoids import bandwidth_by_rule
    from pyro_riemann.sampling import default_box, hmc, sample_uniform

    def drawn(anew: Callable[[], Any], count: int, box: tuple[Tensor, Tensor]) -> Any:
        return sample_uniform(anew(), count, *box, seed=0)

    def chains(anew: Callable[[], Any], box: tuple[Tensor, Tensor]) -> Any:
        return hmc(anew(), 200, *box, num_steps=50, step_size=None, seed=0)

    calls: Calls = {}
    for count, name, bandwidth in ((100, "isolated", 4.0), (100, "overlapping", 15.0), (5000, "overlapping", 15.0)):
        centroids = torch.randn(count, 16, generator=torch.Generator().manual_seed(0))

        def metric(centroids: Tensor = centroids, bandwidth: float = bandwidth) -> Any:
            return KernelMetric(centroids, torch.full_like(centroids, 100.0), bandwidth, 1e-3)

        box = default_box(metric())
        calls[f"k = {count}, {name}, set-up included"] = partial(drawn, metric, 1000, box)
        if count == 100 and name == "isolated":
            calls[f"k = {count}, {name}, HMC"] = partial(chains, metric, box)
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(5000, 16, generator=generator)
    precisions = (0.03 + 0.07 * torch.rand(5000, 16, generator=generator)) ** -2
    for rule in ("euclidean", "mahalanobis"):
        bandwidth = bandwidth_by_rule(codes.numpy(), precisions.numpy(), rule)

        def posterior(bandwidth: float = bandwidth) -> Any:
            return KernelMetric(codes, precisions, bandwidth, 1e-3)

        box = default_box(posterior())
        calls[f"k = 5000, {rule} bandwidth, set-up included"] = partial(drawn, posterior, 1150, box)
    return calls


def volumes() -> Calls:
    """Set-up of the uniform law as the benchmark of NUTS has it."""
    from pyro_riemann import KernelMetric, RiemannianUniform

    def volume(anew: Callable[[], Any]) -> Any:
        return anew().log_volume()

    def draws(anew: Callable[[], Any]) -> Any:
        return anew().sample((4,))

    calls: Calls = {}
    for dim in (2, 16):
        generator = torch.Generator().manual_seed(0)
        loc = torch.randn(2000, dim, generator=generator)
        scale = (0.1 if dim == 2 else 0.3) * torch.exp(0.3 * torch.randn(2000, dim, generator=generator))
        made = KernelMetric.from_posterior(loc, scale, 1000, "mahalanobis", 0.01)

        def anew(made: Any = made) -> Any:
            metric = KernelMetric(
                made.centroids.clone(), made.precisions.clone(), float(made.bandwidth), float(made.regularization)
            )
            return RiemannianUniform(metric, -4.0, 4.0)

        calls[f"d = {dim}, log volume"] = partial(volume, anew)
        calls[f"d = {dim}, log volume and 4 draws"] = partial(draws, anew)
    return calls


def own_metric() -> Calls:
    """Distances on metrics of which only ``metric`` is written."""
    from pyro_riemann import RiemannianMetric, Sphere
    from pyro_riemann.manifolds import Hyperbolic

    class OnlyMetric(RiemannianMetric):
        def __init__(self, base: Any) -> None:
            super().__init__()
            self.inner_metric, self.dim = base, base.dim

        def metric(self, z: Tensor) -> Tensor:
            value: Tensor = self.inner_metric.metric(z)
            return value

    class Waves(RiemannianMetric):
        dim = 2

        def metric(self, z: Tensor) -> Tensor:
            x, y = z.unbind(-1)
            off = 0.12 * torch.sin(x + y)
            rows = [1.3 + 0.4 * torch.sin(x) * torch.cos(y), off, off, 1.1 + 0.4 * torch.cos(x - 0.5)]
            return torch.stack(rows, -1).unflatten(-1, (2, 2))

    def points(dim: int, size: float) -> Tensor:
        generator = torch.Generator().manual_seed(dim)
        return size * torch.randn(2, 100, dim, generator=generator, dtype=torch.float64)

    def sphere(dim: int) -> Calls:
        x = torch.randn(2, 100, dim + 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        z, y = Sphere(dim).from_ambient(x / x.norm(dim=-1, keepdim=True))
        metric = OnlyMetric(Sphere(dim))
        return {f"S^{dim}, uniform pairs": lambda: with_gradient(metric, z, y)}

    calls = sphere(2) | sphere(3)
    for name, metric, size in (
        ("waves", Waves(), 1.0),
        ("S^2, near pairs", OnlyMetric(Sphere(2)), 0.3),
        ("H^2, near pairs", OnlyMetric(Hyperbolic(2)), 0.2),
        ("H^8, near pairs", OnlyMetric(Hyperbolic(8)), 0.1),
    ):
        z, y = points(metric.dim, size)
        calls[name] = partial(with_gradient, metric, z, y)
    network = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 20)).double()
    from pyro_riemann import PullbackMetric

    torch.manual_seed(0)
    for layer in network:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    smooth = PullbackMetric(network.requires_grad_(False), 2)
    z, y = points(2, 1.0)
    calls["smooth decoder"] = lambda: with_gradient(smooth, z, y)
    return calls


def kernels() -> Calls:
    """Exact heat kernels and constants."""
    from pyro_riemann import Hyperbolic, RiemannianNormal, Sphere

    calls: Calls = {}
    for make, dims in ((Sphere, (2, 3, 4, 5, 8)), (Hyperbolic, (2, 3, 4, 5))):
        for dim in dims:
            metric = make(dim)
            generator = torch.Generator().manual_seed(dim)
            z = 0.3 * torch.randn(1000, dim, generator=generator, dtype=torch.float64) / dim**0.5
            loc, time_ = torch.zeros(dim, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
            name = f"{make.__name__}({dim}), log heat kernel"
            calls[name] = partial(metric.log_heat_kernel, loc, z, time_)

    def constant_and_draws(make: Any, loc: Tensor) -> None:
        law = RiemannianNormal(loc, torch.tensor(0.5, dtype=torch.float64), make(loc.shape[0]))
        law.log_normalizer()
        law.sample((100,))

    for make, dim in ((Sphere, 2), (Hyperbolic, 3)):
        loc = torch.full((dim,), 0.1, dtype=torch.float64)
        name = f"{make.__name__}({dim}), Riemannian normal, constant and 100 draws"
        calls[name] = partial(constant_and_draws, make, loc)
    return calls
