"""Derivatives by forward mode and a backward pass behind it, on every torch that is supported."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pyro_riemann import PullbackMetric, RiemannianMetric, WarpedMetric, _linalg
from pyro_riemann._autodiff import jacobian
from tests.charts import warped_hyperbolic

PACKAGE = Path(_linalg.__file__).parent
WRONG = {"torch.linalg.solve", "torch.linalg.solve_ex", "torch.linalg.slogdet", "torch.linalg.det", "torch.det"}
# Newton's systems are constants in every derivative; rays are followed without a gradient
CONSTANT = {
    ("geodesics/_spline.py", "torch.linalg.solve_ex"),
    ("geodesics/_rays.py", "torch.linalg.solve"),
    ("geodesics/_rays.py", "torch.linalg.slogdet"),
    ("geodesics/_ray_state.py", "torch.linalg.slogdet"),
}


def matrices(z: Tensor) -> Tensor:
    """A field of matrices without any symmetry, ``(*batch, d, d)``."""
    dim = z.shape[-1]
    weight = torch.linspace(-1.0, 1.0, dim * dim, dtype=z.dtype).reshape(dim, dim)
    return torch.eye(dim, dtype=z.dtype) + 0.3 * (z @ weight).sin().unsqueeze(-1) * (2 * z).cos().unsqueeze(-2)


def check_gradient(function: Callable[[Tensor], Tensor], at: Tensor, tolerance: float = 1e-6) -> None:
    """Reverse-mode gradient of a scalar against central differences."""
    at = at.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(at) + 0 * at.sum(), at)
    with torch.no_grad():
        step = 1e-5
        axes = torch.eye(at.numel(), dtype=at.dtype).reshape(-1, *at.shape)
        differences = [(function(at + step * axis) - function(at - step * axis)) / (2 * step) for axis in axes]
    assert torch.allclose(gradient.flatten(), torch.stack(differences), atol=tolerance, rtol=1e-6)


@pytest.mark.parametrize("dim", [1, 2, 3, 6])
@pytest.mark.parametrize("name", ["solve", "log_abs_det"])
def test_backward_through_forward_mode(name: str, dim: int) -> None:
    """The loss is a function of a Jacobian, and its parameter enters the matrix."""
    generator = torch.Generator().manual_seed(dim)
    z, weight = torch.randn(2, 5, dim, dtype=torch.float64, generator=generator)
    loc = torch.randn(dim, dtype=torch.float64, generator=generator)

    def loss(loc: Tensor) -> Tensor:
        def function(w: Tensor) -> Tensor:
            matrix = matrices(loc * w)
            return _linalg.solve(matrix, w * w) if name == "solve" else _linalg.log_abs_det(matrix)

        slopes = jacobian(function, z, dim)[1]
        return (slopes * (weight.unsqueeze(-1) if name == "solve" else weight)).sum()

    check_gradient(loss, loc)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_values(dim: int) -> None:
    z = torch.randn(4, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(dim))
    matrix = matrices(z)
    assert torch.allclose(_linalg.solve(matrix, z), torch.linalg.solve(matrix, z))
    assert torch.allclose(_linalg.log_abs_det(matrix), torch.linalg.slogdet(matrix).logabsdet)
    assert torch.isneginf(_linalg.log_abs_det(torch.zeros(3, dim, dim))).all()


class Funnel(RiemannianMetric):
    """A metric that is neither diagonal nor conformal."""

    dim = 2

    def metric(self, z: Tensor) -> Tensor:
        factor = matrices(0.7 * z)
        return factor @ factor.mT + torch.eye(2).to(z)


SLOPE = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
METRICS: dict[str, Callable[[], RiemannianMetric]] = {
    "own": Funnel,
    "pullback": lambda: PullbackMetric(lambda z: torch.cat([z, (z @ SLOPE).sin()], -1), 2),
    "warped": warped_hyperbolic,
    "warped own": lambda: WarpedMetric(Funnel(), (lambda z: z.sinh(), lambda x: x.asinh())),
}


@pytest.mark.parametrize("name", METRICS)
def test_gradient_of_the_exponential_maps_determinant(name: str) -> None:
    """The density of a wrapped normal at its own draws: Jacobi fields by forward mode, then a backward pass."""
    metric = METRICS[name]()
    v = 0.4 * torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def log_v(loc: Tensor) -> Tensor:
        return (metric.expmap_log_van_vleck(loc.expand_as(v), v)[1] * torch.arange(1.0, 7.0).to(v)).sum()

    check_gradient(log_v, torch.tensor([0.25, -0.15], dtype=torch.float64))


@pytest.mark.parametrize("name", METRICS)
def test_gradients_of_curvature_and_volume(name: str) -> None:
    metric = METRICS[name]()
    z = torch.tensor([[0.25, -0.15], [0.1, 0.3]], dtype=torch.float64)
    check_gradient(lambda z: metric.logdet_gradient(z).square().sum(), z)
    check_gradient(lambda z: metric.drift(z).square().sum(), z)
    check_gradient(lambda z: metric.scalar_curvature(z).sum(), z, tolerance=1e-5)


def test_no_other_module_calls_what_is_wrong() -> None:
    calls = {
        (path.relative_to(PACKAGE).as_posix(), name)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and (name := ast.unparse(node)) in WRONG
    }
    assert calls <= CONSTANT, f"use pyro_riemann._linalg: {sorted(calls - CONSTANT)}"
