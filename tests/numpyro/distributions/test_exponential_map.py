"""The exponential map as NumPyro's transform: its determinant, its inverse, and the laws that it makes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import SVI, Trace_ELBO

from pyro_riemann.numpyro import RiemannianMetric, RiemannianWrappedNormal, Sphere
from pyro_riemann.numpyro.distributions import ExponentialMap
from pyro_riemann.numpyro.manifolds import HalfSpace, Hyperboloid

METRICS = [Sphere(2), HalfSpace(2), Hyperboloid(3)]


def some_points(dim: int) -> jax.Array:
    return 0.3 * jax.random.normal(jax.random.key(dim), (2, 3, dim))


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_determinant_is_that_of_the_derivative(metric: RiemannianMetric) -> None:
    for centre, velocity in zip(*some_points(metric.dim), strict=True):
        transform = ExponentialMap(metric, centre)
        expected = jnp.linalg.slogdet(jax.jacobian(transform)(velocity))[1]
        z, log_van_vleck = transform.call_with_intermediates(velocity)
        assert jnp.allclose(transform.log_abs_det_jacobian(velocity, z), expected, atol=1e-9)
        assert jnp.allclose(transform.log_abs_det_jacobian(velocity, z, log_van_vleck), expected, atol=1e-9)
        assert jnp.allclose(transform.inv(z), velocity, atol=1e-9)


def test_determinant_at_the_pole_of_a_sphere() -> None:
    """In the stereographic chart v goes to tan|v| v / |v|: the determinant is tan|v| / (|v| cos^2 |v|)."""
    v = jnp.asarray(np.array([[0.3, -0.4], [0.0, 1.2]]))
    transform = ExponentialMap(Sphere(2), jnp.zeros(2))
    size, z = np.array([0.5, 1.2]), transform(v)
    np.testing.assert_allclose(z, v * (np.tan(size) / size)[:, None], rtol=1e-9)
    exact = np.log(np.tan(size) / size) - 2 * np.log(np.cos(size))
    np.testing.assert_allclose(transform.log_abs_det_jacobian(v, z), exact, rtol=1e-9)


def test_of_a_gaussian_it_makes_the_wrapped_normal() -> None:
    metric = Hyperboloid(2)
    loc, v = some_points(2)
    base = dist.MultivariateNormal(jnp.zeros_like(loc), 0.2 * jnp.linalg.inv(metric.metric(loc)))
    law = dist.TransformedDistribution(base, ExponentialMap(metric, loc))
    z = metric.expmap(loc, v)
    assert jnp.allclose(law.log_prob(z), RiemannianWrappedNormal(loc, 0.2, metric).log_prob(z), atol=1e-9)
    mapped = jax.vmap(
        lambda mu, z: dist.TransformedDistribution(
            dist.Laplace(jnp.zeros(2), 0.2).to_event(1), ExponentialMap(metric, mu)
        ).log_prob(z)
    )
    whole = dist.TransformedDistribution(dist.Laplace(jnp.zeros((3, 2)), 0.2).to_event(1), ExponentialMap(metric, loc))
    assert jnp.allclose(mapped(loc, z), whole.log_prob(z), atol=1e-9)


def test_the_guide_by_its_draw_and_the_model_by_the_inverse_agree() -> None:
    """The same law on both sides: SVI keeps the velocity of a guide's draw, the model solves for it."""

    def model() -> None:
        base = dist.StudentT(4.0, jnp.zeros(2), 0.2).to_event(1)
        with numpyro.plate("data", 5):
            z = numpyro.sample(
                "z", dist.TransformedDistribution(base, ExponentialMap(HalfSpace(2), jnp.array([0.3, 0.1])))
            )
        assert z.shape == (5, 2)

    svi = SVI(model, model, numpyro.optim.Adam(0.1), Trace_ELBO())
    state = svi.init(jax.random.key(0))
    assert abs(svi.evaluate(state)) < 1e-6


def test_errors_name_the_argument() -> None:
    with pytest.raises(TypeError, match="metric"):
        ExponentialMap(2, jnp.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="loc"):
        ExponentialMap(Sphere(2), jnp.array([jnp.nan, 0.0]))
    with pytest.raises(ValueError, match="x"):
        ExponentialMap(Sphere(2), jnp.zeros(2))(jnp.zeros(3))
