"""One of every metric, and seven of seven kinds with how users change them: for tests of what holds on any."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyro_riemann import (
    ConformalMetric,
    ConstantMetric,
    EuclideanMetric,
    FlatTorus,
    GridMetric,
    Hyperbolic,
    KernelMetric,
    PullbackMetric,
    RiemannianMetric,
    Sphere,
    WarpedMetric,
)
from pyro_riemann.manifolds import SPD, HalfSpace, Hyperboloid, ProductMetric, ScaledMetric
from pyro_riemann.metrics import EnsembleMetric, LocalMetric

F64 = torch.float64


class Waves(RiemannianMetric):
    """A metric as users write them: a plain attribute, and no more than ``metric``."""

    dim = 2

    def __init__(self, height: float | Tensor = 0.4) -> None:
        super().__init__()
        self.height = height

    def metric(self, z: Tensor) -> Tensor:
        x, y = z.unbind(-1)
        off = 0.3 * self.height * torch.sin(x + y)
        rows = [1.3 + self.height * torch.sin(x) * torch.cos(y), off, off, 1.1 + self.height * torch.cos(x - 0.5)]
        return torch.stack(rows, -1).unflatten(-1, (2, 2))


class Surface(nn.Module):
    """The graph of a small network over the plane."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 3)).double()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=F64))

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([z, self.network(z)], -1)


class Specimen(NamedTuple):
    """A metric of dimension 2 and how somebody changes it in place."""

    metric: RiemannianMetric
    change: Callable[[], object]


def closed_form() -> Specimen:
    """The hyperbolic plane in other coordinates, of which one number changes."""
    stretch = torch.tensor(0.8, dtype=F64)
    metric = WarpedMetric(Hyperboloid(2), (lambda z: z * stretch, lambda x: x / stretch))
    return Specimen(metric, lambda: stretch.fill_(1.1))


def user_written() -> Specimen:
    metric = Waves()
    return Specimen(metric, lambda: setattr(metric, "height", 0.1))


def module_pullback() -> Specimen:
    metric = PullbackMetric(Surface().requires_grad_(False), 2)
    return Specimen(metric, lambda: [parameter.data.mul_(0.5) for parameter in metric.parameters()])


def closure_pullback() -> Specimen:
    bend = torch.tensor(0.5, dtype=F64)
    metric = PullbackMetric(lambda z: torch.cat([z, bend * (z[..., :1] * 1.3 + z[..., 1:].square()).sin()], -1), 2)
    return Specimen(metric, lambda: bend.fill_(0.9))


def kernel() -> Specimen:
    generator = torch.Generator().manual_seed(2)
    centroids = torch.randn(4, 2, dtype=F64, generator=generator)
    metric = KernelMetric(centroids, 0.5 + torch.rand(4, 2, dtype=F64, generator=generator), 1.5, 1.0)
    return Specimen(metric, lambda: metric.precisions.data.mul_(1.5))


def table() -> Specimen:
    """Of a metric of one's own; changed by loading another table."""
    metric = GridMetric(Waves(), -5.0, 5.0, 64)
    return Specimen(metric, lambda: metric.load_state_dict(GridMetric(Waves(0.1), -5.0, 5.0, 64).state_dict()))


def warped_kernel() -> Specimen:
    base = kernel()
    return Specimen(WarpedMetric(base.metric, (bend_space, straighten)), base.change)


def bend_space(z: Tensor) -> Tensor:
    """A diffeomorphism of the plane, neither linear nor conformal."""
    x, y = z.unbind(-1)
    return torch.stack([x + 0.2 * torch.tanh(x), y + 0.4 * torch.sin(x)], -1)


def straighten(x: Tensor) -> Tensor:
    """Inverse of :func:`bend_space`."""
    first = x[..., 0]
    for _ in range(6):  # of Newton for z + 0.2 tanh(z): exact after four, so that derivatives are exact too
        bent = torch.tanh(first)
        first = first - (first + 0.2 * bent - x[..., 0]) / (1.2 - 0.2 * bent * bent)
    return torch.stack([first, x[..., 1] - 0.4 * torch.sin(first)], -1)


SPECIMENS: dict[str, Callable[[], Specimen]] = {
    "closed form": closed_form,
    "user-written": user_written,
    "pullback by module": module_pullback,
    "pullback by closure": closure_pullback,
    "kernel": kernel,
    "table": table,
    "warped kernel": warped_kernel,
}


class Place(NamedTuple):
    """A metric of any dimension and a point about which it is looked at."""

    metric: RiemannianMetric
    centre: Tensor


def at(metric: RiemannianMetric, *centre: float) -> Place:
    """The metric about a point; coordinates that are not given are 0.1."""
    rest = [0.1] * (metric.dim - len(centre))
    return Place(metric.double(), torch.tensor([*centre, *rest], dtype=F64))


def _cloud(seed: int) -> Tensor:
    return torch.randn(12, 2, generator=torch.Generator().manual_seed(seed), dtype=F64)


# One of every public class, by its name; `tests/test_every_metric.py` fails on a class that is not here.
PLACES: dict[str, Callable[[], Place]] = {
    "RiemannianMetric": lambda: at(Waves()),
    "EuclideanMetric": lambda: at(EuclideanMetric(3)),
    "ConstantMetric": lambda: at(ConstantMetric(torch.tensor([[2.0, 0.5], [0.5, 1.0]]))),
    "PullbackMetric": lambda: at(module_pullback().metric),
    "EnsembleMetric": lambda: at(EnsembleMetric([module_pullback().metric, closure_pullback().metric])),
    "KernelMetric": lambda: at(kernel().metric),
    "LocalMetric": lambda: at(LocalMetric(_cloud(3), 1.0)),
    "ConformalMetric": lambda: at(ConformalMetric(kernel().metric)),
    "GridMetric": lambda: at(table().metric),
    "Sphere": lambda: at(Sphere(2, radius=1.5)),
    "Hyperbolic": lambda: at(Hyperbolic(3)),
    "Hyperboloid": lambda: at(Hyperboloid(2)),
    "HalfSpace": lambda: at(HalfSpace(2), 0.2, 0.7),
    "FlatTorus": lambda: at(FlatTorus(2, [3.0, 4.0])),
    "SPD": lambda: at(SPD(2)),
    "ProductMetric": lambda: at(ProductMetric([Sphere(2), EuclideanMetric(1)])),
    "ScaledMetric": lambda: at(ScaledMetric(Hyperbolic(2), 2.0)),
    "WarpedMetric": lambda: at(warped_kernel().metric),
}
