"""Quasi-Newton iterations: the update that they are named after, and the curves that they end at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_riemann import GeodesicSolver, PullbackMetric, Sphere
from pyro_riemann.geodesics import _spline
from pyro_riemann.geodesics._newton import polish
from pyro_riemann.geodesics._quasi_newton import Memory, quasi_newton

F64 = torch.float64


def bowl(z: Tensor) -> Tensor:
    """A sphere in the stereographic chart, in space."""
    square = z.square().sum(-1, keepdim=True)
    return torch.cat([2 * z, square - 1], -1) / (square + 1)


def hill(z: Tensor) -> Tensor:
    return torch.cat([z, 2 * torch.exp(-2 * z.square().sum(-1, keepdim=True))], -1)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def test_step_is_that_of_the_textbook_update_of_the_inverse() -> None:
    """H' = (1 - r s y^T) H (1 - r y s^T) + r s s^T, from the oldest pair to the last, each curve for itself."""
    size, curves = 6, 3
    root = numbers(curves, size, size)
    hessian = root @ root.mT + torch.eye(size, dtype=F64)
    start = hessian + torch.diag_embed(numbers(curves, size, seed=1).abs())
    memory = Memory(*(torch.zeros(curves, 6, *n, dtype=F64) for n in ((size,), (size,), ())))
    inverse = np.linalg.inv(start.numpy())
    for turn in range(4):
        step = numbers(curves, size, seed=2 + turn)
        change = (hessian @ step[..., None])[..., 0]
        believed = torch.tensor([True, turn != 1, True])
        memory = memory.add(step, change, believed)
        for curve in range(curves):
            if believed[curve]:
                s, y = step[curve].numpy(), change[curve].numpy()
                left = np.eye(size) - np.outer(s, y) / (s @ y)
                inverse[curve] = left @ inverse[curve] @ left.T + np.outer(s, s) / (s @ y)
    gradient = numbers(curves, 5, 2, seed=9)
    found, decrement = memory.step(torch.linalg.cholesky(start), gradient)
    pull = gradient[:, 1:-1].flatten(1).numpy()
    expected = -(inverse @ pull[..., None])[..., 0]
    np.testing.assert_allclose(found[:, 1:-1].flatten(1), expected, rtol=1e-10, atol=1e-12)
    assert not found[:, [0, -1]].any()
    np.testing.assert_allclose(decrement, -(pull * expected).sum(-1), rtol=1e-10)
    plain = memory.forget(torch.tensor([False, True, False])).step(torch.linalg.cholesky(start), gradient)[0]
    np.testing.assert_allclose(plain[1, 1:-1].flatten(), -np.linalg.solve(start[1].numpy(), pull[1]), rtol=1e-10)
    np.testing.assert_allclose(plain[::2], found[::2])


def test_a_step_along_which_the_energy_bends_downward_is_not_remembered() -> None:
    memory = Memory(*(torch.zeros(1, 6, *n, dtype=F64) for n in ((4,), (4,), ())))
    step = numbers(1, 4)
    assert not memory.add(step, -step, torch.tensor([True])).weights.any()
    assert float(memory.add(step, step, torch.tensor([True])).weights[0, 0]) == pytest.approx(
        1 / float(step.square().sum())
    )


@pytest.mark.parametrize("dim", [6, 12])
def test_distances_on_a_sphere(dim: int) -> None:
    metric, exact = PullbackMetric(bowl, dim, jitter=0.0), Sphere(dim)
    z, y = 0.8 * numbers(2, 20, dim) / dim**0.5
    found = metric.geodesic(z, y, num_knots=16, num_segments=64)
    assert bool(found.converged.all())
    torch.testing.assert_close(found.length, exact.dist(z, y), rtol=1e-5, atol=0)


def test_curves_are_those_of_newtons_method_and_cost_few_jacobians(monkeypatch: pytest.MonkeyPatch) -> None:
    """From where it ends, one step with the full Hessian has nothing left to do; its Hessian is definite."""
    torch.manual_seed(0)
    decoder = torch.nn.Sequential(torch.nn.Linear(8, 40), torch.nn.Tanh(), torch.nn.Linear(40, 60)).to(F64)
    metric = PullbackMetric(decoder.requires_grad_(False), 8)
    energy = metric.solver.energy(metric)
    assert energy.frugal
    line = _spline.line(metric.solver.num_knots, *(2 * numbers(2, 10, 8)))
    jacobians, whole = [], metric.embed_jacobian

    def counted(z: Tensor) -> tuple[Tensor, Tensor]:
        jacobians.append(z[..., 0].numel())
        return whole(z)

    with torch.no_grad():
        with monkeypatch.context() as patch:
            patch.setattr(metric, "embed_jacobian", counted)
            ours = quasi_newton(energy, line, 70, 1e-12)
        assert sum(jacobians) <= 2 * 33 * len(line)  # those of two Newton steps
        assert int(ours.iterations.min()) >= 5
        newton = polish(energy, ours.control, 1, 1e-12)
    assert bool(ours.converged.all() & newton.converged.all())
    torch.testing.assert_close(energy.value(ours.control), energy.value(newton.control), rtol=1e-11, atol=0)


def test_the_rarely_evaluated_hessian_is_that_of_every_second_chord() -> None:
    """At any pace; energy and gradient are those of all chords."""
    metric = PullbackMetric(bowl, 6, jitter=0.0)
    control = _spline.line(4, *(0.3 * numbers(2, 3, 6))) + 0.02 * numbers(3, 7, 6, seed=3)
    for guide in (None, control + 0.1 * numbers(3, 7, 6, seed=4)):
        for richardson in (True, False):
            energy = GeodesicSolver(num_knots=4, num_segments=32, richardson=richardson).energy(metric, guide)
            rough = energy.system(control)
            energy.frugal = False
            whole = energy.system(control)
            torch.testing.assert_close(rough.energy, whole.energy)
            torch.testing.assert_close(rough.gradient, whole.gradient)
            coarse = GeodesicSolver(num_knots=4, num_segments=16, richardson=False).energy(metric, None)
            coarse.frugal = False
            if guide is not None:
                times = 1 / energy.rates
                coarse.rates = 1 / (times[:, ::2] + times[:, 1::2])
            torch.testing.assert_close(rough.hessian, coarse.system(control).hessian)
            torch.testing.assert_close(rough.stiffening, coarse.system(control).stiffening)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_straight_line_across_the_top_of_a_hill_is_left(dtype: torch.dtype) -> None:
    """Where all is symmetric, the gradient has no part that leads off the saddle."""
    metric = PullbackMetric(hill, 6, jitter=0.0)
    z = torch.zeros(3, 6, dtype=dtype)
    z[:, 0] = torch.tensor([1.0, 1.3, 1.7])
    found = metric.geodesic(z, -z)
    along = torch.lerp(z, -z, torch.linspace(0, 1, 2001, dtype=dtype)[:, None, None])
    over = metric.embed(along).diff(dim=0).norm(dim=-1).sum(0)
    assert bool(found.converged.all())
    assert bool((found.length < 0.9 * over).all())
    energy = metric.solver.energy(metric)
    control = metric.solver.control_points(metric, z, -z).control
    inner = energy.exact_system(control).hessian[:, 6:-6, 6:-6]
    lowest, highest = torch.linalg.eigvalsh(inner.to(F64))[:, [0, -1]].unbind(-1)
    assert bool((lowest > -1e-4 * highest).all())  # ways around the hill turn about it freely


def test_flat_space_and_equal_ends() -> None:
    matrix = numbers(9, 7)
    metric = PullbackMetric(lambda z: z @ matrix.mT, 7, jitter=0.0)
    z, y = numbers(2, 4, 7, seed=5)
    y[0] = z[0]
    found = metric.geodesic(z, y)
    assert bool(found.converged.all())
    torch.testing.assert_close(found.length, ((z - y) @ matrix.mT).norm(dim=-1), rtol=1e-7, atol=1e-12)


def test_curves_that_failed_are_tried_again_in_any_dimension() -> None:
    """A surface that bends in two of 65 dimensions, against the same in two, with a finer solver."""
    dim = 65
    turn = torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]

    def wavy(z: Tensor) -> Tensor:
        return torch.cat([z, 2 * torch.sin(4 * z[..., :1]) * torch.cos(4 * z[..., 1:2])], -1)

    z, y = torch.zeros(2, dim, dtype=torch.float64)
    z[0], y[0], y[1] = -0.6, 0.7, 0.5
    solver = GeodesicSolver(on_failure="raise")
    found = solver.solve(PullbackMetric(lambda z: wavy(z @ turn), dim), z @ turn.mT, y @ turn.mT)
    fine = solver.replace(num_knots=64, num_segments=512).solve(PullbackMetric(wavy, 2), z[:2], y[:2])
    torch.testing.assert_close(found.length, fine.length, rtol=1e-3, atol=0)
