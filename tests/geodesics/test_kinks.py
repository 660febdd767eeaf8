"""Geodesics across the kinks of an immersion, as decoders with ReLU have them: against surfaces that unfold."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from pyro_riemann import PullbackMetric
from pyro_riemann._formulas.audit import DENSE, kinks
from pyro_riemann.geodesics import GeodesicSolver, _spline
from pyro_riemann.geodesics._audit import audit
from tests.folds import Folds


class Folded(nn.Module):
    """The surface, ``(n, 2) -> (n, 3)``, which counts the points that it is asked for."""

    def __init__(self, folds: Folds) -> None:
        super().__init__()
        self.turn, self.places, self.jumps = map(torch.from_numpy, (folds.turn, folds.places, folds.jumps))
        self.points = 0

    def forward(self, z: Tensor) -> Tensor:
        self.points += len(z)
        turned = z @ self.turn
        return torch.cat([turned, torch.relu(turned[:, :1] - self.places) @ self.jumps[:, None]], dim=-1)


class Layers(nn.Module):
    """Two matrices with an activation between them."""

    def __init__(self, first: Tensor, activation: nn.Module, second: Tensor) -> None:
        super().__init__()
        self.first, self.activation, self.second = first, activation, second

    def forward(self, z: Tensor) -> Tensor:
        return torch.as_tensor(self.activation(z @ self.first)) @ self.second


def test_curves_across_folds_have_the_length_of_lines_in_the_plane() -> None:
    folds = Folds(0.3)
    surface, (z, y), truth = Folded(folds), map(torch.from_numpy, folds.ends), torch.from_numpy(folds.dist())
    metric = PullbackMetric(surface, 2, jitter=0.0)
    curves = metric.geodesic(z, y)
    assert bool(curves.converged.all())
    torch.testing.assert_close(curves.length, truth, rtol=1e-3, atol=0)
    torch.testing.assert_close((2 * curves.energy).sqrt(), truth, rtol=1e-3, atol=0)
    torch.testing.assert_close(metric.dist(z, y), truth, rtol=1e-3, atol=0)
    assert surface.points < 15_000 * len(z)


def test_what_converged_across_steep_folds_is_right_and_the_rest_is_nearly() -> None:
    folds = Folds(1.0)
    (z, y), truth = map(torch.from_numpy, folds.ends), torch.from_numpy(folds.dist())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        curves = PullbackMetric(Folded(folds), 2, jitter=0.0).geodesic(z, y)
    assert curves.converged.sum() >= len(z) / 4
    error = (curves.length / truth - 1).abs()
    assert (error[curves.converged] < 1e-3).all()
    assert (error < 3e-3).all()


def test_gradients_of_distances_across_folds_point_along_the_lines() -> None:
    folds = Folds(0.3)
    z, y = (torch.from_numpy(end).requires_grad_() for end in folds.ends)
    found = torch.autograd.grad(PullbackMetric(Folded(folds), 2, jitter=0.0).dist(z, y).sum(), (z, y))
    step = 1e-4
    for gradient, which in zip(found, (0, 1), strict=True):
        for axis in (0, 1):
            moved = []
            for sign in (1, -1):
                other = Folds(0.3)
                other.ends[which, :, axis] += sign * step
                moved.append(other.dist())
            slope = torch.from_numpy((moved[0] - moved[1]) / (2 * step))
            assert ((gradient[:, axis] - slope).abs() < 0.05).float().mean() > 0.9  # an end may lie on a fold


@pytest.mark.parametrize("segments", [300, 1024, 1500])
def test_any_number_of_segments_will_do(segments: int) -> None:
    """Also such as powers of two do not divide, at the start or in a further attempt."""
    folds = Folds(1.0)
    (z, y), truth = (torch.from_numpy(end[:4]) for end in folds.ends), torch.from_numpy(folds.dist()[:4])
    metric = PullbackMetric(Folded(folds), 2, jitter=0.0)
    metric.solver = GeodesicSolver(num_segments=segments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.testing.assert_close(metric.geodesic(z, y).length, truth, rtol=3e-3, atol=0)


@pytest.mark.parametrize("waves", [16, 32, 64])
def test_a_detour_is_seen_by_what_bubbles_could_save(waves: int) -> None:
    folds = Folds(0.3)
    z, y = map(torch.from_numpy, folds.ends)
    metric, knots = PullbackMetric(Folded(folds), 2, jitter=0.0), 2 * waves
    normal = torch.stack([z[:, 1] - y[:, 1], y[:, 0] - z[:, 0]], -1)
    swing = 0.05 / waves * torch.sin(waves * torch.pi * torch.linspace(0, 1, knots + 3, dtype=z.dtype))[:, None]
    control = _spline.line(knots, z, y) + swing * normal[:, None]
    energy = GeodesicSolver(num_knots=knots, num_segments=DENSE, richardson=False).energy(metric, control)
    verdict = audit(energy, control)
    excess = verdict.length / torch.from_numpy(folds.dist()) - 1
    assert (excess > 1e-4).all()
    assert (verdict.error > 0.2 * excess).all()


def test_chords_of_a_smooth_surface_are_not_taken_for_kinks() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((2, 40), (40, 60)))
    z, y = torch.randn(2, 50, 2, generator=generator, dtype=torch.float64)
    solver = GeodesicSolver()
    shares = []
    for rectifier in (nn.Tanh(), nn.ReLU()):
        metric = PullbackMetric(Layers(first, rectifier, second), 2)
        control = solver.control_points(metric, z, y).control
        shares.append(audit(solver.energy(metric), control).kinked.double().mean())
    assert shares[0] == 0
    assert shares[1] > 0.8


@pytest.mark.parametrize(("rectifier", "lowest", "highest"), [(nn.ELU(), 0, 0.05), (nn.ReLU(), 0.9, 1)])
def test_chords_too_few_for_a_steep_surface_are_looked_at_closer(
    rectifier: nn.Module, lowest: float, highest: float
) -> None:
    """32 chords take many a smooth curve for one across kinks, 128 tell."""
    generator, dim = torch.Generator().manual_seed(0), 8
    first, second = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((dim, 40), (40, 60)))
    z, y = torch.randn(2, 100, dim, generator=generator, dtype=torch.float64)
    metric, solver = PullbackMetric(Layers(first, rectifier, second), dim), GeodesicSolver(max_iterations=4)
    control = solver.control_points(metric, z, y).control
    energy = solver.energy(metric)
    verdict = audit(energy, control)
    suspects = kinks(torch, metric.embed(energy.nodes(control)), verdict.length)[1]
    assert suspects.double().mean() > 0.15
    assert lowest <= verdict.kinked.double().mean() <= highest


def test_a_number_of_chords_that_four_does_not_divide_tells_kinks_too() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((2, 40), (40, 60)))
    z, y = torch.randn(2, 50, 2, generator=generator, dtype=torch.float64)
    metric = PullbackMetric(Layers(first, nn.ReLU(), second), 2)
    found = []
    for segments in (32, 34):
        solver = GeodesicSolver(num_segments=segments)
        control = solver.control_points(metric, z, y).control
        found.append(audit(solver.energy(metric), control).kinked.double().mean())
    assert abs(found[0] - found[1]) < 0.15
