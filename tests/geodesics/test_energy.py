"""The discrete energies of curves: gradient and Hessians against torch's own derivatives of their values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pyro_riemann import EuclideanMetric, GeodesicSolver, GridMetric, PullbackMetric, RiemannianMetric
from pyro_riemann._formulas import splines
from pyro_riemann._interface import Energy
from pyro_riemann.geodesics._energy import _within
from tests import charts

F64 = torch.float64


def network(plain: bool) -> PullbackMetric:
    """With Taylor propagation through the layers, or by forward mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5)).double()
    return PullbackMetric(layers if plain else lambda z: layers(z), 2)


METRICS: dict[str, RiemannianMetric] = {
    "layers": network(True),
    "function": network(False),
    "tensor alone": charts.OnlyMetric(charts.warped_sphere(2)),
}
SETTINGS = {
    "chords": GeodesicSolver(num_knots=2, num_segments=8, richardson=False),
    "extrapolated": GeodesicSolver(num_knots=2, num_segments=8, richardson=True),
}
CASES = [(name, kind) for name in METRICS for kind in SETTINGS if (name, kind) != ("tensor alone", "extrapolated")]


def curves() -> Tensor:
    return 0.4 * torch.randn(3, 5, 2, dtype=F64, generator=torch.Generator().manual_seed(1))


def value_of(energy: Energy, index: int, like: Tensor):
    """The energy of one curve as a function of its flattened control points."""
    rows = energy.rows(torch.tensor([index]))
    return lambda flat: rows.value(flat.reshape(1, *like.shape))[0]


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_full_hessian_and_gradient_are_derivatives_of_the_energy(name: str, kind: str, guided: bool) -> None:
    control = curves()
    energy = METRICS[name].energy(SETTINGS[kind], control + 0.1 if guided else None)
    found, tangential, first = energy.exact_system(control), energy.system(control), energy.first_order(control)
    for index, one in enumerate(control):
        value = value_of(energy, index, one)
        hessian = torch.autograd.functional.hessian(value, one.flatten())
        slope = torch.autograd.functional.jacobian(value, one.flatten())
        torch.testing.assert_close(found.hessian[index], hessian, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(found.gradient[index].flatten(), slope, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.energy, energy.value(control))
    for gradient in (tangential.gradient, first[1]):
        torch.testing.assert_close(gradient, found.gradient)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_tangential_hessian_is_positive_and_the_full_one_where_space_is_flat(name: str, kind: str) -> None:
    control = curves()
    tangential = METRICS[name].energy(SETTINGS[kind], None).system(control)
    assert bool((torch.linalg.eigvalsh(tangential.hessian) > -1e-9).all())
    matrix = torch.tensor([[1.0, 0.4], [-0.3, 0.9], [0.2, 0.7]], dtype=F64)
    flat: RiemannianMetric = PullbackMetric(lambda z: z @ matrix.mT, 2, jitter=0.0)
    if name == "tensor alone":
        flat = charts.OnlyMetric(flat)
    energy = flat.energy(SETTINGS["chords"], None)
    torch.testing.assert_close(energy.system(control).hessian, energy.exact_system(control).hessian)


@pytest.mark.parametrize("kind", ["chords", "extrapolated", "Gauss nodes"])
def test_energy_of_an_uneven_run_along_a_straight_line(kind: str) -> None:
    """Position t^2: twice the length squared over 3, less 1 / 6 N^2 for N chords, and half of it at its own pace."""
    scaled: RiemannianMetric = PullbackMetric(lambda z: 2 * z, 2, jitter=0.0)
    metric = charts.OnlyMetric(scaled) if kind == "Gauss nodes" else scaled
    settings = SETTINGS["chords"] if kind == "Gauss nodes" else SETTINGS[kind]
    times = np.linspace(0, 1, 9)
    shares = torch.from_numpy(np.linalg.lstsq(splines.basis(2, times), times**2, rcond=None)[0])
    ends = torch.tensor([[[0.2, -0.3]], [[-0.4, 0.5]]], dtype=F64)
    control = ends[0] + shares[:, None] * (ends[1] - ends[0]) * torch.tensor([1.0, -0.5], dtype=F64)[:, None, None]
    squared = 4 * (ends[1] - ends[0]).square().sum() * torch.tensor([1.0, 0.25], dtype=F64)
    value = metric.energy(settings, None).value(control)
    torch.testing.assert_close(value / squared, torch.full_like(value, 2 / 3 - (kind == "chords") / 6 / 64))
    paced = metric.energy(settings, control).value(control)
    torch.testing.assert_close(paced / squared, torch.full_like(value, 1 / 2), rtol=1e-3, atol=0)


def test_hessian_of_a_constant_metric() -> None:
    """That of the metric at half time; on flat space the full one."""
    control = curves()
    matrix = torch.tensor([[1.0, 0.4], [-0.3, 0.9], [0.2, 0.7]], dtype=F64)
    for metric in (flat := PullbackMetric(lambda z: z @ matrix.mT, 2, jitter=0.0), charts.OnlyMetric(flat)):
        energy = metric.energy(SETTINGS["chords"], None)
        torch.testing.assert_close(energy.constant_system(control).hessian, energy.exact_system(control).hessian)


def test_points_that_a_metric_does_not_know_are_replaced_by_one_of_their_curve() -> None:
    """By the first that it knows."""
    metric = GridMetric(EuclideanMetric(2), -1.0, 1.0, 8, outside="error")
    first = [[1.5, 0.0], [0.5, 0.1], [0.2, 0.3], [0.0, -2.0]]
    curves = torch.tensor([first, [[0.1, 0.1], [3.0, 0.0], [0.2, 0.2], [0.3, 0.3]]])
    points, known = _within(metric, curves)
    assert known is not None
    assert known.tolist() == [[False, True, True, False], [True, False, True, True]]
    expected = curves.clone()
    expected[0, 0], expected[0, 3], expected[1, 1] = curves[0, 1], curves[0, 1], curves[1, 0]
    assert torch.equal(points, expected)
    assert _within(metric, curves[:, 2:3])[1] is None
