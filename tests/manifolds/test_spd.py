"""Positive definite matrices against SciPy's linear algebra and the isometries of the metric."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from pyro_riemann import EuclideanMetric, RiemannianNormal
from pyro_riemann.manifolds import SPD, Hyperboloid, ProductMetric
from pyro_riemann.statistics import frechet_mean, parallel_transport

F64 = torch.float64


def some_points(size: int, batch: int = 4, spread: float = 1.0) -> tuple[SPD, Tensor, Tensor, Tensor]:
    spd = SPD(size)
    z, y, v = spread * torch.randn(3, batch, spd.dim, dtype=F64, generator=torch.Generator().manual_seed(size))
    return spd, z, y, v


def pushed(spd: SPD, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices and their change."""
    matrix, change = torch.func.jvp(spd.to_matrix, (z,), (v,))[:2]
    return matrix, change


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_distance_is_that_of_the_generalised_eigenvalues(size: int) -> None:
    spd, z, y, _ = some_points(size)
    pairs = zip(spd.to_matrix(z).numpy(), spd.to_matrix(y).numpy(), strict=True)
    expected = [np.sqrt(np.square(np.log(scipy.linalg.eigvalsh(b, a))).sum()) for a, b in pairs]
    np.testing.assert_allclose(spd.dist(z, y), expected, rtol=1e-10)
    torch.testing.assert_close(spd.from_matrix(spd.to_matrix(z)), z)


def test_metric_is_the_trace_form() -> None:
    spd, z, _, v = some_points(3)
    matrix, change = pushed(spd, z, v)
    solved = torch.linalg.solve(matrix, change)
    torch.testing.assert_close(spd.inner(z, v, v), torch.einsum("...ij,...ji->...", solved, solved))


def test_congruence_and_inversion_are_isometries() -> None:
    spd, z, y, _ = some_points(3)
    matrix = torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(9))
    moved = [spd.from_matrix(matrix @ spd.to_matrix(x) @ matrix.mT) for x in (z, y)]
    inverse = [spd.from_matrix(torch.linalg.inv(spd.to_matrix(x))) for x in (z, y)]
    torch.testing.assert_close(spd.dist(*moved), spd.dist(z, y))
    torch.testing.assert_close(spd.dist(*inverse), spd.dist(z, y))


def test_midpoint_is_the_geometric_mean_and_minimises_the_spread() -> None:
    spd, z, y, _ = some_points(3)
    half = spd.geodesic(z, y)(0.5)
    for a, b, middle in zip(*(spd.to_matrix(x).numpy() for x in (z, y, half)), strict=True):
        root = scipy.linalg.sqrtm(a)
        inner = np.linalg.solve(root, np.linalg.solve(root, b).T)
        np.testing.assert_allclose(middle, root @ scipy.linalg.sqrtm(inner) @ root, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(frechet_mean(spd, torch.stack([z, y], -2)), half, atol=1e-8, rtol=1e-8)


def test_transport_is_congruence_by_the_root_of_the_quotient() -> None:
    spd, z, y, u = some_points(3)
    start, change = pushed(spd, z, u)
    moved = parallel_transport(spd, z, y, u)
    end, found = pushed(spd, y, moved)
    for a, b, v, w in zip(start.numpy(), end.numpy(), change.numpy(), found.numpy(), strict=True):
        factor = scipy.linalg.sqrtm(b @ np.linalg.inv(a)).real
        np.testing.assert_allclose(w, factor @ v @ factor.T, rtol=1e-8, atol=1e-9)


def test_far_apart_and_ill_conditioned_matrices() -> None:
    spd = SPD(2)
    z, y = spd.from_matrix(torch.diag(torch.tensor([1e-12, 1.0], dtype=F64))), torch.zeros(2 + 1, dtype=F64)
    torch.testing.assert_close(spd.dist(z, y), torch.tensor(math.log(1e12), dtype=F64))
    torch.testing.assert_close(spd.expmap(y, spd.logmap(y, z)), z)


def test_derivatives_are_finite_and_right_where_eigenvalues_meet() -> None:
    spd = SPD(3)
    z = torch.zeros(spd.dim, dtype=F64)
    y = spd.from_matrix(torch.diag(torch.tensor([2.0, 2.0, 3.0], dtype=F64)))
    assert torch.autograd.gradcheck(spd.log_van_vleck, (z.requires_grad_(), y.requires_grad_()))
    assert torch.autograd.gradcheck(spd.logmap, (z, y))
    assert torch.autograd.gradgradcheck(spd.logmap, (z, y))
    hessian = torch.autograd.functional.hessian(lambda x: spd.squared_dist(x, z.detach()) / 2, z.detach())
    torch.testing.assert_close(hessian, spd.metric(z.detach()))


def test_heat_kernel_of_two_by_two_is_that_of_a_line_and_a_plane() -> None:
    """Total mass 1, and the semigroup property, by a sum over the chart."""
    spd, time = SPD(2), 0.25
    axis = torch.linspace(-2.2, 2.2, 31, dtype=F64)
    grid, cell = torch.cartesian_prod(2 * axis, axis, axis), 2 * (axis[1] - axis[0]) ** 3
    z, y = torch.tensor([0.2, -0.1, 0.1], dtype=F64), torch.tensor([-0.3, 0.2, 0.0], dtype=F64)
    first = spd.log_heat_kernel(z.expand_as(grid), grid, time) + 0.5 * spd.logdet(grid)
    assert float(first.exp().sum() * cell) == pytest.approx(1.0, abs=1e-4)
    both = first + spd.log_heat_kernel(grid, y.expand_as(grid), time)
    assert float((both.exp().sum() * cell).log()) == pytest.approx(float(spd.log_heat_kernel(z, y, 2 * time)), abs=1e-4)
    with pytest.raises(NotImplementedError, match="SPD"):
        SPD(3).log_heat_kernel(torch.zeros(6), torch.zeros(6), 0.1)


def test_normaliser_of_two_by_two_is_that_of_a_line_and_a_plane() -> None:
    loc = torch.tensor([[0.3, 0.2, -0.4]], dtype=F64)
    value, error = RiemannianNormal(loc, 0.5, SPD(2)).log_normalizer()
    product = ProductMetric([EuclideanMetric(1), Hyperboloid(2, -0.5)])
    expected = RiemannianNormal(torch.zeros(1, 3, dtype=F64), 0.5, product).log_normalizer().value
    assert abs(value - expected).item() < 1e-3 + 3 * error.item()


@pytest.mark.parametrize(
    "matrix, message",
    [
        (torch.eye(3), "shape"),
        (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "positive definite"),
    ],
)
def test_matrices_that_are_no_points_raise(matrix: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPD(2).from_matrix(matrix)
