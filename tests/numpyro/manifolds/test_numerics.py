"""Special points, transformations of JAX, wrong input."""

from __future__ import annotations

import math
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.tree_util import Partial
from numpyro.distributions.transforms import ExpTransform

from pyro_riemann.numpyro import EuclideanMetric, FlatTorus, Hyperbolic, RiemannianMetric, Sphere, WarpedMetric
from pyro_riemann.numpyro.manifolds import HalfSpace, Hyperboloid
from tests.numpyro.charts import ball_as_hyperboloid, shear, warped_sphere

# ---------------------------------------------------------------- special points


@pytest.mark.parametrize("metric", [Sphere(2), HalfSpace(2), FlatTorus(2, 3.0)], ids=["sphere", "half-space", "torus"])
def test_coincident_points(metric: RiemannianMetric) -> None:
    """Squared distance is 0 with gradient 0 and Hessian 2 G; the distance has gradient 0, not NaN."""
    z = jnp.array([0.3, -0.2])
    slope = jax.grad(metric.squared_dist, argnums=1)
    assert metric.dist(z, z) == 0
    assert jnp.abs(slope(z, z)).max() < 1e-15
    assert jnp.isfinite(jax.grad(metric.dist, argnums=1)(z, z)).all()
    np.testing.assert_allclose(jax.jacfwd(slope, argnums=1)(z, z), 2 * metric.metric(z), rtol=1e-12, atol=1e-12)


def test_nothing_is_nan_at_the_antipode() -> None:
    sphere, z = Sphere(3), jnp.array([0.5, 0.5, 0.5])
    y = -z / jnp.square(z).sum()
    assert sphere.dist(z, y).item() == pytest.approx(math.pi)
    assert sphere.norm(z, sphere.logmap(z, y)).item() == pytest.approx(math.pi)

    def total(y: Array) -> Array:
        return sphere.dist(z, y) + sphere.log_van_vleck(z, y) + sphere.log_heat_kernel(z, y, 0.5)

    assert jnp.isfinite(jax.grad(total)(y)).all()


@pytest.mark.parametrize("metric", [Hyperbolic(3), Hyperboloid(3), HalfSpace(3)], ids=["ball", "hyperboloid", "half"])
def test_far_points_stay_finite_in_float32(metric: RiemannianMetric) -> None:
    v = 30 * jax.random.normal(jax.random.key(0), (200, 3), jnp.float32)
    y = metric.expmap(jnp.zeros_like(v), v)
    back = metric.expmap(y, -metric.logmap(y, y[::-1]))
    for value in (y, back, metric.dist(y, back), metric.log_van_vleck(y, back)):
        assert value.dtype == jnp.float32
        assert jnp.isfinite(value).all()


# ---------------------------------------------------------------- transformations


def test_equal_metrics_share_a_program() -> None:
    """Also after pickling, and where a chart is made of methods of another metric."""
    traces = []

    @jax.jit
    def distance(metric: RiemannianMetric, z: Array) -> Array:
        traces.append(type(metric).__name__)
        return metric.dist(z, 2 * z)

    z = jnp.array([0.1, 0.2])
    for make in (Sphere, warped_sphere, ball_as_hyperboloid, lambda dim: FlatTorus(dim, [2.0, 3.0])):
        metrics = [make(2), make(2), pickle.loads(pickle.dumps(make(2)))]
        first, *others = [distance(metric, z) for metric in metrics]
        assert all(other == first for other in others)
    assert traces == ["Sphere", "WarpedMetric", "WarpedMetric", "FlatTorus"]


def test_a_batch_of_tori_and_a_gradient_in_the_period() -> None:
    tori = jax.vmap(lambda period: FlatTorus(1, period))(jnp.array([1.0, 2.0]))
    z, y = jnp.zeros(1), jnp.array([0.9])
    np.testing.assert_allclose(jax.vmap(lambda torus: torus.dist(z, y))(tori), [0.1, 0.9], rtol=1e-12)
    slope = jax.grad(lambda period: FlatTorus(1, period).squared_dist(z, y))(1.0)
    assert slope.item() == pytest.approx(2 * (1 - 0.9))


def scale(factor: Array, z: Array) -> Array:
    return factor * z


def shrink(factor: Array, z: Array) -> Array:
    return z / factor


def test_learned_coordinates_are_data() -> None:
    def squared(factor: Array) -> Array:
        metric = WarpedMetric(Sphere(2), (Partial(scale, factor), Partial(shrink, factor)))
        return metric.squared_dist(jnp.array([0.1, 0.2]), jnp.array([-0.3, 0.5]))

    def direct(factor: Array) -> Array:
        return Sphere(2).squared_dist(factor * jnp.array([0.1, 0.2]), factor * jnp.array([-0.3, 0.5]))

    factor = jnp.array(2.0)
    assert jax.jit(jax.grad(squared))(factor).item() == pytest.approx(jax.grad(direct)(factor).item(), rel=1e-12)
    metric = WarpedMetric(Sphere(2), (Partial(scale, factor), Partial(shrink, factor)))
    assert len(jax.tree.leaves(metric)) == 2
    assert jax.tree.structure(pickle.loads(pickle.dumps(metric))) == jax.tree.structure(metric)


def test_no_tracer_is_left_behind() -> None:
    with jax.checking_leaks():
        metric = warped_sphere()
        value = jax.jit(jax.grad(lambda z: metric.log_heat_kernel(z, 2 * z, 0.3)))(jnp.array([0.1, 0.2]))
    assert jnp.isfinite(value).all()


def test_accepts_transforms() -> None:
    metric, z, y = WarpedMetric(EuclideanMetric(2), ExpTransform()), jnp.array([0.1, 0.2]), jnp.array([-0.3, 0.5])
    assert metric.dist(z, y).item() == pytest.approx(jnp.linalg.norm(jnp.exp(z) - jnp.exp(y)).item())
    np.testing.assert_allclose(metric.expmap(z, metric.logmap(z, y)), y)
    assert metric.immersed() is None


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize("point", [[1.0, 0.0], [0.9, 0.9], [math.nan, 0.0]])
def test_points_outside_the_ball_raise_or_are_nan(point: list[float]) -> None:
    ball, inside, outside = Hyperbolic(2), jnp.zeros(2), jnp.array(point)
    for call in (ball.logdet, ball.drift, lambda z: ball.dist(inside, z), lambda z: ball.expmap(z, inside)):
        with pytest.raises(ValueError, match=r"open unit ball.*Hyperboloid"):
            call(outside)
    assert jnp.isnan(jax.jit(ball.squared_dist)(inside, outside))


@pytest.mark.parametrize("space", [Sphere, Hyperbolic, Hyperboloid, HalfSpace, FlatTorus])
def test_dimension_and_shapes_are_checked(space: Any) -> None:
    with pytest.raises(ValueError, match="`dim` must be at least 1"):
        space(0)
    with pytest.raises(ValueError, match=r"shape \(\*batch, 2\)"):
        space(2).dist(jnp.zeros(3), jnp.zeros(3))
    with pytest.raises(TypeError, match="floating dtype"):
        space(2).dist(jnp.zeros(2, int), jnp.zeros(2, int))


@pytest.mark.parametrize("periods", [[1.0, 2.0, 3.0], 0.0, [1.0, math.nan]])
def test_periods_are_checked(periods: object) -> None:
    with pytest.raises(ValueError, match="`periods` must be"):
        FlatTorus(2, periods)


@pytest.mark.parametrize("time", [0.0, -1.0, math.nan, math.inf])
def test_time_must_be_positive(time: float) -> None:
    with pytest.raises(ValueError, match="`time`"):
        Sphere(2).log_heat_kernel(jnp.zeros(2), jnp.ones(2), time)


def test_diffeomorphism_is_checked() -> None:
    with pytest.raises(TypeError, match="`base` must be a RiemannianMetric"):
        WarpedMetric("sphere", ExpTransform())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pair of functions"):
        WarpedMetric(Sphere(2), shear)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="does not undo it"):
        WarpedMetric(Sphere(2), (shear, shear))
    with pytest.raises(ValueError, match="must keep the shape"):
        WarpedMetric(Sphere(2), (lambda z: z[..., :1], lambda x: x))
    with pytest.raises(ValueError, match="unit length"):
        Sphere(2).from_ambient(jnp.ones(3))
