"""Wrapped normals with a covariance: the isotropic law, the textbook Gaussian, mass 1 where geodesics meet, draws."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyro_riemann import (
    ConstantMetric,
    EuclideanMetric,
    FlatTorus,
    PullbackMetric,
    RiemannianMetric,
    RiemannianWrappedNormal,
    Sphere,
)
from pyro_riemann.manifolds import SPD, HalfSpace, Hyperboloid, ProductMetric, ScaledMetric
from tests.charts import OnlyMetric, warped_sphere

F64 = torch.float64
LONG = torch.tensor([[0.9, 0.0], [-0.5, 0.3]], dtype=F64)


def some_points(dim: int, batch: int = 3) -> tuple[Tensor, Tensor]:
    z, y = 0.3 * torch.randn(2, batch, dim, dtype=F64, generator=torch.Generator().manual_seed(dim))
    return z, y


@pytest.mark.parametrize(
    "metric",
    [
        Sphere(2, 1.2),
        Sphere(1),
        Hyperboloid(2, -0.7),
        FlatTorus(2, [2.0, 3.0]),
        warped_sphere(2),
        ScaledMetric(HalfSpace(2), 2.0),
        SPD(2),
        ProductMetric([EuclideanMetric(1), HalfSpace(2)]),
        OnlyMetric(Hyperboloid(2)),
    ],
    ids=repr,
)
def test_isotropic_covariance_is_the_isotropic_law(metric: RiemannianMetric) -> None:
    z, y = some_points(metric.dim)
    scale_tril = torch.linalg.cholesky(0.3 * torch.linalg.inv(metric.metric(z)))
    law = RiemannianWrappedNormal(z, None, metric, scale_tril=scale_tril)
    torch.testing.assert_close(law.log_prob(y), RiemannianWrappedNormal(z, 0.3, metric).log_prob(y), atol=1e-8, rtol=0)
    draw = law.rsample()
    torch.testing.assert_close(law.log_prob(draw), law.log_prob(draw.clone()), atol=1e-5, rtol=0)


def test_a_batch_on_a_flat_surface_is_the_multivariate_normal() -> None:
    """At points that were not drawn, in a sample of a batch; and the entropy, where the metric is constant."""
    slopes = torch.tensor([[1.0, 0.2, 0.5], [0.3, 1.1, -0.4]], dtype=F64)
    loc, y = some_points(2)
    scale_tril = torch.tensor([0.3, 0.5, 1.0], dtype=F64)[:, None, None] * LONG
    exact = MultivariateNormal(loc, scale_tril=scale_tril)
    z = torch.stack([y, loc, y - 0.5, loc + 0.2])
    for metric in (PullbackMetric(lambda z: z @ slopes, 2, jitter=0.0), ConstantMetric(slopes @ slopes.mT)):
        law = RiemannianWrappedNormal(loc, None, metric, scale_tril=scale_tril)
        torch.testing.assert_close(law.log_prob(z), exact.log_prob(z), rtol=0, atol=1e-6)
    torch.testing.assert_close(law.entropy(), exact.entropy())
    alone = RiemannianWrappedNormal(loc[0], None, metric, scale_tril=scale_tril[0])
    torch.testing.assert_close(alone.entropy(), exact.entropy()[0])


@pytest.mark.parametrize("metric", [Sphere(2, 1.2), Sphere(3)], ids=repr)
def test_isotropic_covariance_is_the_isotropic_law_at_its_centre(metric: RiemannianMetric) -> None:
    """Where all directions lead, and the density is infinite: the same large number."""
    z, _ = some_points(metric.dim)
    law = RiemannianWrappedNormal(
        z, None, metric, scale_tril=torch.linalg.cholesky(0.3 * torch.linalg.inv(metric.metric(z)))
    )
    torch.testing.assert_close(law.log_prob(z), RiemannianWrappedNormal(z, 0.3, metric).log_prob(z))


def test_flat_law_is_the_textbook_gaussian() -> None:
    z, y = some_points(2)
    for metric in (EuclideanMetric(2), ConstantMetric(torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=F64))):
        law = RiemannianWrappedNormal(z, None, metric, scale_tril=LONG)
        gaussian = torch.distributions.MultivariateNormal(z, scale_tril=LONG)
        torch.testing.assert_close(law.log_prob(y), gaussian.log_prob(y))
        torch.testing.assert_close(law.entropy(), gaussian.entropy())
        torch.testing.assert_close(law.mean, z)
        torch.testing.assert_close(law.variance, gaussian.variance)
        time = torch.distributions.MultivariateNormal(z, 0.4 * torch.linalg.inv(metric.metric(z))).entropy()
        torch.testing.assert_close(RiemannianWrappedNormal(z, 0.4, metric).entropy(), time)
    with pytest.raises(NotImplementedError, match="entropy on Sphere"):
        RiemannianWrappedNormal(z, 0.4, Sphere(2)).entropy()


def grid_mass(law: RiemannianWrappedNormal, low: float, high: float, count: int) -> float:
    edges = torch.linspace(low, high, count + 1, dtype=F64)
    grid = torch.cartesian_prod(*[(edges[1:] + edges[:-1]) / 2] * 2)
    return float(law.log_prob(grid).exp().sum() * (edges[1] - edges[0]) ** 2)


@pytest.mark.parametrize("scale", [0.4, 3.0])
def test_mass_on_a_torus_is_one_over_a_period(scale: float) -> None:
    law = RiemannianWrappedNormal(torch.tensor([0.3, 0.2], dtype=F64), None, FlatTorus(2, 2.0), scale_tril=scale * LONG)
    assert grid_mass(law, -1.0, 1.0, 60) == pytest.approx(1.0, abs=1e-9)


def test_mass_on_hyperbolic_space_is_one() -> None:
    law = RiemannianWrappedNormal(torch.tensor([0.3, 0.2], dtype=F64), None, Hyperboloid(2), scale_tril=0.5 * LONG)
    assert grid_mass(law, -8.0, 8.0, 400) == pytest.approx(1.0, abs=1e-6)


def test_density_on_a_sphere_is_that_of_its_draws_where_geodesics_meet_again() -> None:
    """Shares of the draws in cells of the sphere, many of them gone around it, against the density's integral."""
    torch.manual_seed(0)
    sphere, loc = Sphere(2), torch.tensor([0.4, -0.3], dtype=F64)
    law = RiemannianWrappedNormal(loc, None, sphere, scale_tril=2.5 * LONG)
    draws = law.sample((40_000,))
    assert float(law.metric.norm(loc, (LONG * 2.5)[:, 0]) > math.pi) > 0.5  # one deviation leads past the antipode
    low, high, count = torch.tensor([0.7, -1.2], dtype=F64), torch.tensor([1.6, -0.5], dtype=F64), 200
    share = ((draws > low) & (draws < high)).all(-1).double().mean()
    axes = [low[i] + (high[i] - low[i]) * (torch.arange(count, dtype=F64) + 0.5) / count for i in range(2)]
    cell = (high - low).prod() / count**2
    expected = law.log_prob(torch.cartesian_prod(*axes)).exp().sum() * cell
    assert abs(share - expected) < 4 * (expected * (1 - expected) / len(draws)).sqrt()


def test_moments_are_those_of_the_draws() -> None:
    torch.manual_seed(0)
    law = RiemannianWrappedNormal(torch.tensor([0.4, -0.3], dtype=F64), None, Hyperboloid(2), scale_tril=0.4 * LONG)
    draws = law.sample((20_000,))
    error = (law.variance / len(draws)).sqrt()
    assert ((draws.mean(0) - law.mean).abs() < 4 * error).all()
    torch.testing.assert_close(draws.var(0), law.variance, rtol=0.06, atol=0)


def test_gradients_in_loc_and_covariance() -> None:
    z, y = some_points(2)
    for metric in (Sphere(2), Hyperboloid(2), FlatTorus(2, 2.0), warped_sphere(2)):

        def log_prob(loc: Tensor, below: Tensor, metric: RiemannianMetric = metric) -> Tensor:
            scale_tril = LONG + torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=F64) * below
            return RiemannianWrappedNormal(loc, None, metric, scale_tril=scale_tril, validate_args=False).log_prob(y)

        assert torch.autograd.gradcheck(
            log_prob, (z.clone().requires_grad_(), torch.tensor(0.1, dtype=F64).requires_grad_())
        )


def test_shapes_copies_and_pickles() -> None:
    z, _ = some_points(2)
    law = RiemannianWrappedNormal(z, None, Sphere(2), scale_tril=LONG)
    wide = law.expand((4, 3))
    assert wide.sample((5,)).shape == (5, 4, 3, 2)
    assert wide.has_covariance
    assert law.take(torch.tensor([1, 0, 2])).scale_tril.shape == (3, 2, 2)
    several = RiemannianWrappedNormal(z, None, Sphere(2), scale_tril=torch.stack([LONG, LONG / 2, LONG / 3]))
    taken = several.take(torch.tensor([[1, 0], [2, 2]]))
    torch.testing.assert_close(taken.log_prob(z[0]), several.log_prob(z[0])[torch.tensor([[1, 0], [2, 2]])])
    torch.testing.assert_close(copy.deepcopy(law).log_prob(z + 0.1), law.log_prob(z + 0.1))
    assert RiemannianWrappedNormal.infer_shapes(loc=(2,), scale_tril=(5, 2, 2)) == ((5,), (2,))


def test_what_has_no_sum_is_refused_by_name() -> None:
    z, y = some_points(3)
    product = ProductMetric([Sphere(2), EuclideanMetric(1)])
    law = RiemannianWrappedNormal(z, None, product, scale_tril=torch.eye(3, dtype=F64))
    with pytest.raises(NotImplementedError, match="product with Sphere"):
        law.log_prob(y)
    wide = RiemannianWrappedNormal(z, None, FlatTorus(3, 0.1), scale_tril=torch.eye(3, dtype=F64))
    with pytest.raises(NotImplementedError, match="images"):
        wide.log_prob(y)


@pytest.mark.parametrize(
    "time, scale_tril, message",
    [
        (None, None, "Give one"),
        (1.0, LONG, "Give one"),
        (None, torch.ones(3, 3, dtype=F64), "shape"),
        (None, LONG.expand(7, 2, 2), "broadcast"),
        (None, LONG.mT.contiguous(), "LowerCholesky"),
    ],
)
def test_bad_covariances_are_named(time: float | None, scale_tril: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RiemannianWrappedNormal(some_points(2)[0], time, Sphere(2), scale_tril=scale_tril, validate_args=True)


class OwnTorus(EuclideanMetric):
    """A flat torus of period 2 by another hand: distances in closed form, and nothing about the images."""

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        step = y - z
        return (step - 2 * torch.round(step / 2)).square().sum(-1)


def test_a_folded_covariance_is_reported_where_images_are_not_known() -> None:
    loc = torch.tensor([0.1, 0.2], dtype=F64)
    thin = torch.tensor([[0.5, 0.0], [0.0, 0.1]], dtype=F64)
    law = RiemannianWrappedNormal(loc, None, OwnTorus(2), scale_tril=thin)
    mass = law.folded_mass(256)
    assert abs(mass.value - math.erfc(2 / math.sqrt(2))) < 2e-3 + mass.standard_error
    with pytest.warns(UserWarning, match="cut locus"):
        law.log_prob(loc + 0.1)
