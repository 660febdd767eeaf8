"""The exponential map, its Jacobian and curvature against closed forms."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from tests.numpyro import charts


def test_flow_of_a_metric_only_meets_the_closed_form() -> None:
    exact = charts.warped_hyperbolic(2)
    metric = charts.OnlyMetric(exact)
    z, v = (jnp.asarray(draw) for draw in 0.3 * np.random.default_rng(0).normal(size=(2, 5, 2)))
    end, log_v = metric.expmap_log_van_vleck(z, v)
    np.testing.assert_allclose(end, exact.expmap(z, v), rtol=0, atol=1e-6)
    length = exact.norm(z, v)
    np.testing.assert_allclose(log_v, jnp.log(length / jnp.sinh(length)), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="left the reals"):
        metric.expmap(z, 1e200 * v)


def test_scalar_curvature_by_both_routes() -> None:
    z = jnp.asarray(0.3 * np.random.default_rng(0).normal(size=(4, 2)))
    np.testing.assert_allclose(charts.sphere_pullback(2).scalar_curvature(z), 2.0, rtol=1e-8)
    np.testing.assert_allclose(charts.OnlyMetric(charts.warped_hyperbolic(2)).scalar_curvature(z), -2.0, rtol=1e-8)
