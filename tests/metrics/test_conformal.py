"""The conformal metric (det G)^{-1} I of any metric."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from pyro_riemann import ConformalMetric, ConstantMetric, KernelMetric, RiemannianMetric
from tests.charts import OnlyMetric, warped_hyperbolic, warped_sphere


def kernel(diagonal: bool = True) -> KernelMetric:
    generator = torch.Generator().manual_seed(2)
    centroids = torch.randn(9, 2, generator=generator, dtype=torch.float64)
    precisions = 1 + torch.rand(9, 2, generator=generator, dtype=torch.float64)
    return KernelMetric(centroids, precisions if diagonal else torch.diag_embed(precisions), 0.9, 0.2)


BASES = [kernel(), kernel(False), warped_sphere(2), warped_sphere(3), warped_hyperbolic(2)]


@pytest.mark.parametrize("base", BASES, ids=lambda base: type(base).__name__ + str(base.dim))
@pytest.mark.parametrize("log_scale", [0.0, 1.5])
def test_definition_and_derivatives(base: RiemannianMetric, log_scale: float) -> None:
    metric = base.conformal(log_scale)
    assert isinstance(metric, ConformalMetric)
    generic = OnlyMetric(metric)
    z, v = 0.6 * torch.randn(2, 2, 3, base.dim, dtype=torch.float64)
    factor = torch.exp(log_scale - torch.logdet(base.metric(z)))
    torch.testing.assert_close(metric.metric(z), factor[..., None, None] * torch.eye(base.dim, dtype=torch.float64))
    for name, arguments in (
        ("logdet", (z,)),
        ("cholesky", (z,)),
        ("inner", (z, v, 2 * v)),
        ("metric_jacobian", (z,)),
        ("metric_derivatives", (z, v)),
        ("christoffel", (z, v)),
        ("drift", (z,)),
        ("logdet_gradient", (z,)),
    ):
        expected = getattr(generic, name)(*arguments)
        torch.testing.assert_close(getattr(metric, name)(*arguments), expected, rtol=1e-7, atol=1e-8)


def test_drift_vanishes_on_surfaces() -> None:
    z = torch.randn(4, 2, dtype=torch.float64)
    assert kernel().conformal().drift(z).abs().max().item() == 0


def test_constant_base() -> None:
    # det = 4: lengths shrink by 2
    metric = ConstantMetric(torch.diag(torch.tensor([4.0, 1.0], dtype=torch.float64))).conformal()
    z, y = torch.randn(2, 5, 2, dtype=torch.float64)
    torch.testing.assert_close(metric.dist(z, y), (z - y).norm(dim=-1) / 2, rtol=1e-6, atol=1e-9)


def test_length_is_that_of_the_volume_potential() -> None:
    # Chadebec & Allassonniere, eq. 8: the integral of |c'| / sqrt(det G(c)), here along a circle
    t = torch.linspace(0, 2 * torch.pi, 2001, dtype=torch.float64)[:-1]
    circle = torch.stack([t.cos(), t.sin()], -1)
    velocity = torch.stack([-t.sin(), t.cos()], -1)
    base = kernel()
    potential = torch.det(base.metric(circle)) ** -0.5
    torch.testing.assert_close(base.conformal().norm(circle, velocity), potential)


def test_scale_moves_no_geodesic() -> None:
    base = kernel()
    z, y = 0.8 * torch.randn(2, 4, 2, dtype=torch.float64)
    plain, scaled = base.conformal(), base.conformal(2.0)
    first, second = (metric.geodesic(z, y, init="line") for metric in (plain, scaled))
    torch.testing.assert_close(first.points, second.points, rtol=0, atol=1e-5)
    torch.testing.assert_close(second.length, first.length * torch.e, rtol=1e-6, atol=0)


def test_curves_follow_the_data() -> None:
    # centroids on a half circle: the straight line crosses the void, where the volume is smallest
    angle = torch.linspace(0, torch.pi, 30, dtype=torch.float64)
    arc = torch.stack([angle.cos(), angle.sin()], -1)
    metric = KernelMetric(arc, torch.full_like(arc, 25.0), 1.5, 0.05)
    start, end = arc[0], arc[-1]
    curve = metric.conformal().geodesic(start, end, init="graph")
    assert curve(0.5)[1].item() > 0.8
    assert curve.length.item() < metric.conformal().norm(arc[:-1], arc.diff(dim=0)).sum().item()


def test_float32_range() -> None:
    # det G = e^440 at d = 64: the factor leaves float32, log_scale brings it back; logdet never needs it
    base = ConstantMetric(1e3 * torch.eye(64))
    z = torch.zeros(64)
    assert base.conformal().logdet(z).item() == pytest.approx(-64 * 64 * 6.907755, rel=1e-5)
    level = base.logdet(z).item()
    assert base.conformal(level).metric(z)[0, 0].item() == pytest.approx(1.0, rel=1e-4)


def test_module() -> None:
    metric = kernel().conformal(0.5)
    z = torch.randn(4, 2, dtype=torch.float64)
    for twin in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric)):
        torch.testing.assert_close(twin.metric(z), metric.metric(z))
    other = KernelMetric(torch.zeros(9, 2), torch.ones(9, 2), 1.0, 1.0).double().conformal(0.5)
    other.load_state_dict(metric.state_dict())
    torch.testing.assert_close(other.metric(z), metric.metric(z))
    traced = torch.jit.trace(lambda p: metric.metric(p), (z,))
    torch.testing.assert_close(traced(2 * z), metric.metric(2 * z))
    assert copy.deepcopy(metric).float().metric(z.float()).dtype == torch.float32
    with pytest.raises(ValueError, match="log_scale"):
        ConformalMetric(kernel(), float("inf"))


def test_gradients() -> None:
    z = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    metric = kernel().conformal()
    assert torch.autograd.gradcheck(lambda p: metric.metric(p), (z,))
    assert torch.autograd.gradgradcheck(lambda p: metric.logdet(p), (z,))
