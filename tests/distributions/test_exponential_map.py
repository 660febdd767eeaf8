"""The exponential map as a transform: its determinant, its inverse, and the laws that it makes."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_riemann import RiemannianMetric, RiemannianWrappedNormal, Sphere
from pyro_riemann.distributions import ExponentialMap
from pyro_riemann.manifolds import HalfSpace, Hyperboloid
from tests.charts import OnlyMetric, warped_sphere

F64 = torch.float64
METRICS = [Sphere(2), HalfSpace(2), Hyperboloid(3), warped_sphere(2), OnlyMetric(Hyperboloid(2))]


def some_points(dim: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(dim)
    loc, v = 0.3 * torch.randn(2, 3, dim, dtype=F64, generator=generator)
    return loc, v


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_determinant_is_that_of_the_derivative(metric: RiemannianMetric) -> None:
    loc, v = some_points(metric.dim)
    for centre, velocity in zip(loc, v, strict=True):
        transform = ExponentialMap(metric, centre)
        small = 1e-4 * torch.eye(metric.dim, dtype=F64)
        columns = (transform(velocity + small) - transform(velocity - small)) / 2e-4
        value = transform.log_abs_det_jacobian(velocity, transform(velocity))
        torch.testing.assert_close(value, torch.linalg.slogdet(columns)[1], atol=2e-6, rtol=0)


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_inverse_is_the_velocity(metric: RiemannianMetric) -> None:
    loc, v = some_points(metric.dim)
    transform = ExponentialMap(metric, loc)
    torch.testing.assert_close(transform.inv(transform(v)), v, atol=2e-4, rtol=0)


@pytest.mark.parametrize("metric", [HalfSpace(2), Hyperboloid(3), OnlyMetric(Hyperboloid(2))], ids=repr)
def test_of_a_gaussian_it_makes_the_wrapped_normal(metric: RiemannianMetric) -> None:
    loc, v = some_points(metric.dim)
    base = dist.MultivariateNormal(torch.zeros_like(loc), 0.2 * torch.linalg.inv(metric.metric(loc)))
    law = dist.TransformedDistribution(base, ExponentialMap(metric, loc))
    z = metric.expmap(loc, v)
    expected = RiemannianWrappedNormal(loc, 0.2, metric).log_prob(z)
    torch.testing.assert_close(law.log_prob(z), expected, atol=1e-4, rtol=0)


def test_mass_of_heavy_tails_is_one() -> None:
    """On the half-space, in whose own coordinates (x, log y) the sum is taken; dM of a chart is no part of it."""
    loc = torch.tensor([0.2, 0.1], dtype=F64)
    base = dist.StudentT(torch.tensor(9.0, dtype=F64), torch.zeros(2, dtype=F64), 0.2).to_event(1)
    law = dist.TransformedDistribution(base, ExponentialMap(HalfSpace(2), loc))
    axis = torch.linspace(-6, 6, 1201, dtype=F64)
    z = torch.stack(torch.meshgrid(axis, 0.5 * axis, indexing="ij"), -1)
    mass = law.log_prob(z).exp().sum() * 0.5 * (axis[1] - axis[0]) ** 2
    assert float(mass) == pytest.approx(1, abs=2e-4)


def test_the_density_of_a_draw_needs_no_inverse(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = OnlyMetric(Hyperboloid(2))
    law = dist.TransformedDistribution(
        dist.Laplace(torch.zeros(2, dtype=F64), 0.2).to_event(1),
        ExponentialMap(metric, torch.tensor([0.3, 0.1], dtype=F64), cache_size=1),
    )
    z = law.rsample((4,))
    with monkeypatch.context() as patch:
        patch.setattr(type(metric), "logmap", lambda *_: pytest.fail("a boundary-value problem"))
        known = law.log_prob(z)
    torch.testing.assert_close(known, law.log_prob(z.clone()), atol=1e-4, rtol=0)


def test_the_guide_by_its_draw_and_the_model_by_the_inverse_agree() -> None:
    """The same law on both sides: a guide knows its velocity, the model solves for it. With the shapes of a plate."""
    loc = torch.tensor([0.3, 0.1], dtype=F64)

    def law() -> dist.TransformedDistribution:
        base = dist.StudentT(torch.tensor(4.0, dtype=F64), torch.zeros(2, dtype=F64), 0.2).to_event(1)
        return dist.TransformedDistribution(base, ExponentialMap(HalfSpace(2), loc, cache_size=1))

    def model() -> Tensor:
        with pyro.plate("data", 5):
            return pyro.sample("z", law())

    assert model().shape == (5, 2)
    assert abs(pyro.infer.Trace_ELBO().loss(model, model)) < 1e-9


def test_gradients_are_those_of_the_map() -> None:
    loc = torch.tensor([0.3, 0.1], dtype=F64, requires_grad=True)
    v = torch.tensor([[0.2, -0.4]], dtype=F64, requires_grad=True)

    def both(loc: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        transform = ExponentialMap(Hyperboloid(2), loc)
        z = transform(v)
        return z, transform.log_abs_det_jacobian(v, z)

    assert torch.autograd.gradcheck(both, (loc, v))


def test_errors_name_the_argument() -> None:
    with pytest.raises(TypeError, match="metric"):
        ExponentialMap(2, torch.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="loc"):
        ExponentialMap(Sphere(2), torch.tensor([math.nan, 0.0]))
    with pytest.raises(ValueError, match="v"):
        ExponentialMap(Sphere(2), torch.zeros(2))(torch.zeros(3))


def test_maps_are_equal_where_metric_and_centre_are() -> None:
    metric, loc = Sphere(2), torch.tensor([[0.1, 0.2], [0.3, 0.4]], dtype=torch.float64)
    one = ExponentialMap(metric, loc)
    assert one == ExponentialMap(metric, loc.clone())
    assert one != ExponentialMap(Sphere(2), loc)
    assert one != ExponentialMap(metric, loc + 1)
    assert one != dist.transforms.ExpTransform()
    assert one.with_cache(one._cache_size) is one
    assert one.with_cache(1)._cache_size == 1
    assert one.with_cache(0)._cache_size == 0
    assert one.forward_shape((3, 1, 2)) == one.inverse_shape((3, 1, 2)) == (3, 2, 2)
