"""The energy of curves of normals: its Hessian, and what carries vectors from one normal to the next."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, distributions, nn

from pyro_riemann import GeodesicSolver, PullbackMetric
from pyro_riemann._formulas import fisher
from pyro_riemann.geodesics import _spline
from pyro_riemann.metrics._ambient import HalfPlanes

F64 = torch.float64


class Normals(nn.Module):
    """A network for means, one for standard deviations."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.loc, self.spread = (
                nn.Sequential(nn.Linear(dim, 8), nn.Tanh(), nn.Linear(8, outputs)).double() for _ in range(2)
            )

    def forward(self, z: Tensor) -> distributions.Normal:
        return distributions.Normal(self.loc(z), self.spread(z).exp())


def test_parallel_transport_along_the_half_circle() -> None:
    """The equation of parallel transport, by small steps along the geodesic."""
    start, end = torch.tensor([0.3, 0.8], dtype=F64), torch.tensor([2.1, 1.7], dtype=F64)  # x = mu / sqrt 2, y = sigma
    centre = (end.square().sum() - start.square().sum()) / (2 * (end[0] - start[0]))
    angles = [torch.atan2(point[1], point[0] - centre) for point in (start, end)]
    radius, count = (start - torch.stack([centre, centre * 0])).norm(), 2_000
    path = torch.linspace(float(angles[0]), float(angles[1]), 2 * count + 1, dtype=F64)
    points = torch.stack([centre + radius * path.cos(), radius * path.sin()], -1)

    def rate(point: Tensor, velocity: Tensor, u: Tensor) -> Tensor:
        # Christoffel symbols of (dx^2 + dy^2) / y^2
        x = velocity[0] * u[1] + velocity[1] * u[0]
        return torch.stack([x, velocity[1] * u[1] - velocity[0] * u[0]]) / point[1]

    u = torch.tensor([0.4, -0.9], dtype=F64) * start[1]  # in the frame (y d/dx, y d/dy): (0.4, -0.9)
    for i in range(count):  # midpoint rule
        step = points[2 * i + 2] - points[2 * i]
        u = u + rate(points[2 * i + 1], step, u + 0.5 * rate(points[2 * i], step, u))
    x = torch.stack([end[0] * 2**0.5, end[1]])
    y = torch.stack([start[0] * 2**0.5, start[1]])
    carried = HalfPlanes().carry(x, y, torch.tensor([[0.4], [-0.9]], dtype=F64))[:, 0]
    torch.testing.assert_close(carried, u / end[1], atol=1e-5, rtol=0)
    cos, sin = fisher.half_plane_turn(torch, *x, *y)
    torch.testing.assert_close(cos**2 + sin**2, torch.ones((), dtype=F64))


@pytest.mark.parametrize("richardson", [False, True])
def test_full_hessian_is_the_second_derivative_of_the_energy(richardson: bool) -> None:
    metric = PullbackMetric(Normals(2, 5), 2)
    settings = GeodesicSolver(num_knots=2, num_segments=8, richardson=richardson)
    torch.manual_seed(1)
    control = torch.randn(3, 5, 2, dtype=F64)
    for guide in (None, control + 0.1):
        energy = metric.energy(settings, guide)
        found = energy.exact_system(control)
        for index, one in enumerate(control):
            rows = energy.rows(torch.tensor([index]))

            def value(flat: Tensor, rows: object = rows, one: Tensor = one) -> Tensor:
                return rows.value(flat.reshape(1, *one.shape))[0]  # type: ignore[attr-defined]

            hessian = torch.autograd.functional.hessian(value, one.flatten())
            torch.testing.assert_close(found.hessian[index], hessian, rtol=1e-8, atol=1e-8)
            slope = torch.autograd.functional.jacobian(value, one.flatten())
            torch.testing.assert_close(found.gradient[index].flatten(), slope)
        torch.testing.assert_close(found.gradient, energy.system(control).gradient)


def test_tangential_hessian_is_positive_and_near_the_full_one() -> None:
    """They differ by curvature alone, which a short chain does not see."""
    metric = PullbackMetric(Normals(2, 5), 2)
    nodes = torch.tensor([[0.1, -0.3], [0.14, -0.28]], dtype=F64)
    control = _spline.line(2, nodes[:1], nodes[1:])
    energy = metric.energy(GeodesicSolver(num_knots=2, num_segments=8, richardson=False))
    tangential, full = energy.system(control).hessian[0], energy.exact_system(control).hessian[0]
    assert torch.linalg.eigvalsh(tangential).min() > -1e-9
    assert (tangential - full).norm() < 0.02 * full.norm()
    far = energy.system(_spline.line(2, nodes[:1] - 3, nodes[1:] + 3)).hessian[0]
    assert torch.linalg.eigvalsh(far).min() > -1e-9 * far.norm()
