"""Exact heat kernels where they are small: any time, the antipode, far out; against series of many digits."""

from __future__ import annotations

import math

import mpmath as mp  # type: ignore[import-untyped]  # comes with torch, by way of sympy
import pytest
import torch
from torch import Tensor

from pyro_riemann import Hyperbolic, RiemannianMetric, Sphere
from pyro_riemann._formulas import heat_kernel
from pyro_riemann.manifolds import HalfSpace, Hyperboloid
from pyro_riemann.manifolds import _near_sphere as near_sphere

DTYPE = torch.float64


def kernel(space: type[Sphere] | type[Hyperboloid], dim: int, r: Tensor, time: float) -> Tensor:
    """The package's log kernel at distances r, two points on one axis."""
    y = torch.zeros(len(r), dim, dtype=DTYPE)
    y[:, 0] = (r / 2).tan() if space is Sphere else r.sinh()
    metric: Sphere | Hyperboloid = space(dim)
    return metric.log_heat_kernel(torch.zeros(dim, dtype=DTYPE), y, time)


def rounding(r: Tensor, time: float | Tensor, dim: int) -> Tensor:
    """What rounding of the exponents leaves: a few units in the last place."""
    return 2e-12 + 2e-15 * (r.square() / time + dim**2 * time)


def harmonics(dim: int, r: float, time: float) -> float:
    """The sum over spherical harmonics, with as many digits as cancel."""
    with mp.workdps(40 + int(r * r / (2 * time) / 2.3 + dim)):
        index, x, t = mp.mpf(dim - 1) / 2, mp.cos(r), mp.mpf(time)
        before, current, total, n = mp.mpf(1), 2 * index * x, mp.mpf(1), 1
        while (decay := mp.exp(-n * (n + dim - 1) * t / 2)) * mp.mpf(n + dim) ** dim > mp.eps:
            total += (n + index) / index * current * decay
            before, current = current, (2 * (n + index) * x * current - (n + 2 * index - 1) * before) / (n + 1)
            n += 1
        volume = 2 * mp.pi ** (mp.mpf(dim + 1) / 2) / mp.gamma(mp.mpf(dim + 1) / 2)
        return float(mp.log(total / volume))


@pytest.mark.parametrize("time", [0.015, 0.2, 0.8])
@pytest.mark.parametrize("dim", [2, 5, 9, 14])
def test_sphere_against_its_harmonics(dim: int, time: float) -> None:
    r = torch.tensor([0.0, 0.7, 2.2, 3.0, 3.14], dtype=DTYPE)
    expected = torch.tensor([harmonics(dim, value, time) for value in r.tolist()], dtype=DTYPE)
    assert ((kernel(Sphere, dim, r, time) - expected).abs() < rounding(r, time, dim)).all()


def by_derivatives(dim: int, r: float, time: float, curvature: int) -> float:
    """Odd d: a Taylor coefficient, in ``cos l`` or ``cosh l``, of the kernel in one dimension, by Cauchy's integral.

    On a small circle, with sixty digits; the package sums images on an ellipse, or positive terms of a recursion.
    """
    steps = (dim - 1) // 2
    with mp.workdps(60):
        t, l2 = mp.mpf(time), mp.mpf(r) ** 2
        centre = mp.cosh(r) if curvature < 0 else mp.cos(r)
        radius, count = min(t, mp.mpf(1)) * (1 + centre) / 8, 64

        def line(u: mp.mpc) -> mp.mpc:
            angle = mp.acosh(u) if curvature < 0 else mp.acos(u)
            images = (0,) if curvature < 0 else (-2, -1, 0, 1, 2)
            return sum(mp.exp((l2 - (angle + 2 * mp.pi * k) ** 2) / (2 * t)) for k in images)

        turns = [mp.expjpi(mp.mpf(2 * j) / count) for j in range(count)]
        total = sum(line(centre + radius * turn) / turn**steps for turn in turns) / count
        value = mp.re(total) / radius**steps * mp.factorial(steps) * curvature**steps
        constant = curvature * steps**2 * t / 2 - steps * mp.log(2 * mp.pi) - mp.log(2 * mp.pi * t) / 2
        return float(mp.log(value) + constant - l2 / (2 * t))


@pytest.mark.parametrize("time", [2e-8, 3e-5, 0.05])
@pytest.mark.parametrize("dim", [3, 7, 15])
def test_odd_spheres_at_short_times(dim: int, time: float) -> None:
    r = torch.tensor([0.3, 1.9, 2.9], dtype=DTYPE)
    expected = torch.tensor([by_derivatives(dim, value, time, 1) for value in r.tolist()], dtype=DTYPE)
    assert ((kernel(Sphere, dim, r, time) - expected).abs() < rounding(r, time, dim)).all()


@pytest.mark.parametrize("time", [2e-8, 0.05, 2.0, 40.0, 700.0])
@pytest.mark.parametrize("dim", [3, 5, 11])
def test_odd_hyperbolic_spaces(dim: int, time: float) -> None:
    r = torch.tensor([1e-4, 0.8, 2.1, 30.0], dtype=DTYPE)
    expected = torch.tensor([by_derivatives(dim, value, time, -1) for value in r.tolist()], dtype=DTYPE)
    assert ((kernel(Hyperboloid, dim, r, time) - expected).abs() < rounding(r, time, dim)).all()


@pytest.mark.parametrize("time", [1e-6, 0.03, 0.6, 3.0, 60.0, 1000.0])
@pytest.mark.parametrize("dim", [2, 4, 6, 9, 13])
@pytest.mark.parametrize("space", [Sphere, Hyperboloid])
def test_two_dimensions_more_are_one_derivative(space: type[Sphere] | type[Hyperboloid], dim: int, time: float) -> None:
    """``p_{d+2} = K exp(K d t / 2) / (2 pi) dp_d / d(cos l)``: the gradient is right, even d agree."""
    curvature = 1 if space is Sphere else -1
    high = 3.1 if curvature > 0 else 60.0
    r = torch.tensor([0.05, 0.9, 2.0, high], dtype=DTYPE, requires_grad=True)
    value = kernel(space, dim, r, time)
    (slope,) = torch.autograd.grad(value.sum(), r)
    assert torch.isfinite(slope).all()
    if curvature > 0 and time > 20:  # uniform: what is left of the slope is rounding
        assert slope.abs().max() < 1e-10
        return
    sine = r.sin().log() if curvature > 0 else r + torch.log1p(-torch.exp(-2 * r)) - math.log(2)
    derived = (-slope).log() + value - sine + curvature * dim * time / 2 - math.log(2 * math.pi)
    known = kernel(space, dim + 2, r, time)
    # on the sphere the slope of a kernel that is nearly uniform is exp(-d t / 2) of its value
    lost = 1e-13 * math.exp(dim * time / 2) if curvature > 0 and time >= 0.6 else 1e-10
    assert ((derived - known).abs() < 10 * rounding(r, time, dim + 2) + lost).all()


@pytest.mark.parametrize("metric", [Sphere(2), Sphere(7), Hyperbolic(6), Hyperboloid(5), HalfSpace(4)])
def test_float32_points_are_computed_in_float64(metric: Sphere | Hyperbolic) -> None:
    z = torch.linspace(-0.2, 0.3, metric.dim)
    y = z.flip(-1) + 0.01
    value = metric.log_heat_kernel(z, y, 1e-5)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, metric.log_heat_kernel(z.double(), y.double(), 1e-5).float(), rtol=0, atol=0)


@pytest.mark.parametrize("metric", [Sphere(6), Hyperboloid(6)])
def test_without_digits_it_refuses(metric: RiemannianMetric) -> None:
    z, y = torch.zeros(6, dtype=DTYPE), torch.ones(6, dtype=DTYPE)
    with pytest.raises(ValueError, match=r"in dimension 6 at time 1e-17 .* keeps no digit"):
        metric.log_heat_kernel(z, y, 1e-17)


def test_hyperboloid_has_its_cholesky_factor_far_out() -> None:
    """``L L^T = G``, and where G has lost that it is positive, ``log det L = -log(1 + |z|^2) / 2`` still."""
    metric = Hyperboloid(6)
    near = torch.linspace(-2, 3, 12, dtype=DTYPE).reshape(2, 6)
    factor = metric.cholesky(near)
    torch.testing.assert_close(factor @ factor.mT, metric.metric(near), rtol=1e-13, atol=1e-14)
    far = 1e12 * near
    logdet = 2 * metric.cholesky(far).diagonal(dim1=-2, dim2=-1).log().sum(-1)
    torch.testing.assert_close(logdet, metric.logdet(far), rtol=1e-13, atol=0)


def test_points_too_far_apart_are_refused() -> None:
    far = torch.tensor([0.0, 0.0, 1500.0], dtype=DTYPE)
    with pytest.raises(ValueError, match="further apart than 709"):
        HalfSpace(3).log_heat_kernel(torch.zeros(3, dtype=DTYPE), far, 1.0)


@pytest.mark.parametrize("time", [1e-11, 1e-8, 1e-6, 1e-4])
def test_sphere_against_the_short_time_expansion(time: float) -> None:
    """With the first two coefficients, (l / sin l)^(1/2) and 1 + a t, a = (1 + (1 - l cot l) / l^2) / 8."""
    r = torch.cat([torch.linspace(1e-3, 9.0, 40, dtype=DTYPE) * time**0.5, torch.linspace(0.1, 2.1, 9, dtype=DTYPE)])
    a = (1 + (1 - r / r.tan()) / r.square()) / 8
    a = torch.where(r < 0.01, torch.full_like(r, 1 / 6), a)
    expected = -r.square() / (2 * time) - math.log(2 * math.pi * time) + (r / r.sin()).log() / 2 + (a * time).log1p()
    assert ((kernel(Sphere, 2, r, time) - expected).abs() < rounding(r, time, 2) + time**2).all()


@pytest.mark.parametrize("dim", [2, 3, 5, 9, 14])
def test_table_of_the_sphere_against_the_contour(dim: int) -> None:
    """At points that are none of the table's nodes, up to its edges."""
    generator = torch.Generator().manual_seed(dim)
    s, share = torch.rand(2, 3000, dtype=DTYPE, generator=generator)
    s, time = 0.8 * s, (min(0.25, 0.5 / dim) * share**3).clamp(min=1e-4)
    exact = heat_kernel.sphere(torch, s, 1 - s, time, dim)
    error = (near_sphere.log_kernel(s, 1 - s, time, dim) - exact).abs()
    assert (error < rounding((4 * s.sqrt().asin().square()).sqrt(), time, dim)).all()
    assert not near_sphere.outside(s, time, dim).any()
