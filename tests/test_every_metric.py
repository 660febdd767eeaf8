"""What every metric owes, one of each class: its methods against differences and against each other."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

import pyro_riemann.manifolds
import pyro_riemann.metrics
from pyro_riemann import RiemannianMetric
from tests.metrics_zoo import F64, PLACES

every_class = pytest.mark.parametrize("name", PLACES)
STEP = 1e-4


def test_the_table_has_every_class() -> None:
    classes = {
        name
        for module in (pyro_riemann.metrics, pyro_riemann.manifolds)
        for name in module.__all__
        if inspect.isclass(kind := getattr(module, name)) and issubclass(kind, RiemannianMetric)
    }
    assert classes == set(PLACES)
    for name in classes - {"RiemannianMetric"}:  # which a user's class stands for
        assert type(PLACES[name]().metric).__name__ in (name, "Hyperboloid", "HalfSpace")


def around(name: str, count: int = 6, reach: float = 0.3) -> tuple[RiemannianMetric, Tensor, Tensor]:
    """The metric, points about its centre, and vectors."""
    metric, centre = PLACES[name]()
    generator = torch.Generator().manual_seed(0)
    z, v = torch.randn(2, count, metric.dim, generator=generator, dtype=F64)
    return metric, centre + reach * z / metric.dim**0.5, v


def slopes(metric: RiemannianMetric, z: Tensor) -> Tensor:
    """Central differences of G, ``(n, d, d, d)``, the direction last."""
    shifts = STEP * torch.eye(metric.dim, dtype=F64)
    return torch.stack([(metric.metric(z + e) - metric.metric(z - e)) / (2 * STEP) for e in shifts], -1)


@every_class
def test_algebra_at_a_point(name: str) -> None:
    metric, z, v = around(name)
    tensor = metric.metric(z)
    assert torch.equal(tensor, tensor.mT)
    assert (torch.linalg.eigvalsh(tensor) > 0).all()
    torch.testing.assert_close(metric.logdet(z), torch.linalg.slogdet(tensor).logabsdet)
    torch.testing.assert_close(metric.cholesky(z) @ metric.cholesky(z).mT, tensor)
    torch.testing.assert_close(metric.inner(z, v, z), torch.einsum("ni,nij,nj->n", v, tensor, z))
    torch.testing.assert_close(metric.norm(z, v), torch.einsum("ni,nij,nj->n", v, tensor, v).sqrt())


@every_class
def test_christoffel_symbols_are_those_of_differences(name: str) -> None:
    metric, z, v = around(name)
    slope = slopes(metric, z)
    force = torch.einsum("nijk,nj,nk->ni", slope, v, v) - 0.5 * torch.einsum("njki,nj,nk->ni", slope, v, v)
    expected = torch.linalg.solve(metric.metric(z), force)
    torch.testing.assert_close(metric.christoffel(z, v), expected, rtol=1e-5, atol=1e-6)


@every_class
def test_drift_is_half_the_laplacian_of_the_coordinates(name: str) -> None:
    metric, z, _ = around(name)

    def flux(point: Tensor) -> Tensor:
        tensor = metric.metric(point)
        return torch.linalg.det(tensor).sqrt()[:, None, None] * torch.linalg.inv(tensor)

    shifts = STEP * torch.eye(metric.dim, dtype=F64)
    divergence = sum((flux(z + e) - flux(z - e))[..., i] / (2 * STEP) for i, e in enumerate(shifts))
    expected = 0.5 * divergence / torch.linalg.det(metric.metric(z)).sqrt()[:, None]
    torch.testing.assert_close(metric.drift(z), expected, rtol=1e-5, atol=1e-6)


@every_class
def test_distances_are_distances(name: str) -> None:
    metric, z, _ = around(name)
    x, y, w = z.chunk(3)
    there, back = metric.dist(x, y), metric.dist(y, x)
    torch.testing.assert_close(there, back, rtol=1e-4, atol=1e-6)
    assert (there <= metric.dist(x, w) + metric.dist(w, y) + 1e-4).all()
    torch.testing.assert_close(metric.dist(x, x), torch.zeros_like(there))
    near = x + 1e-3 * (y - x)
    torch.testing.assert_close(metric.dist(x, near), metric.norm(x, near - x), rtol=2e-3, atol=1e-9)


@every_class
def test_the_exponential_map_undoes_the_logarithm(name: str) -> None:
    metric, z, _ = around(name)
    x, y = z.chunk(2)
    v = metric.logmap(x, y)
    torch.testing.assert_close(metric.norm(x, v), metric.dist(x, y), rtol=2e-3, atol=1e-6)
    torch.testing.assert_close(metric.expmap(x, v), y, rtol=0, atol=5e-3)
