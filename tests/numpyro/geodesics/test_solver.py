"""The boundary-value solver against closed forms, finite differences and its own honesty."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from pyro_riemann._formulas import splines
from pyro_riemann.numpyro import GeodesicSolver, PullbackMetric, RiemannianMetric
from pyro_riemann.numpyro.geodesics import _newton
from pyro_riemann.numpyro.geodesics._path import search, shortest_path
from tests.numpyro import charts

BOTH = ["sphere2, sheared pullback", pytest.param("hyperbolic2, sheared, metric only", marks=pytest.mark.slow)]
EXACT = GeodesicSolver(tolerance=1e-16)
NAMES = ["sphere2, sheared pullback", "hyperbolic2, sheared, metric only"]


@cache
def pair(name: str) -> tuple[RiemannianMetric, RiemannianMetric]:
    """A closed form, and the same manifold for the numerical route."""
    exact: RiemannianMetric
    metric: RiemannianMetric
    if name == "sphere2, sheared pullback":
        exact, metric = charts.warped_sphere(2), charts.sphere_pullback(2)
    elif name == "hyperbolic2, sheared, metric only":
        exact = charts.warped_hyperbolic(2)
        metric = charts.OnlyMetric(exact)
    else:
        exact = charts.warped_torus(2, 40.0)
        metric = charts.OnlyMetric(exact)
    metric.solver = EXACT
    return exact, metric


def ends(count: int = 4, scale: float = 0.3) -> tuple[Array, Array]:
    points = scale * np.random.default_rng(1).normal(size=(2, count, 2))
    return jnp.asarray(points[0]), jnp.asarray(points[1])


def central_difference(function: Callable[[Array], Any], z: Array, step: float = 1e-3) -> np.ndarray[Any, Any]:
    """Derivative of a batched function ``(n, d) -> (n, ...)`` by fourth-order differences, ``(n, ..., d)``."""
    slopes = []
    for axis in step * np.eye(z.shape[-1]):
        near = np.asarray(function(z + axis)) - np.asarray(function(z - axis))
        far = np.asarray(function(z + 2 * axis)) - np.asarray(function(z - 2 * axis))
        slopes.append((8 * near - far) / (12 * step))
    return np.stack(slopes, -1)


@jax.jit
def value_and_slopes(metric: RiemannianMetric, z: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
    """Half the squared distances and their gradients in both ends."""
    half, pull = jax.vjp(lambda a, b: metric.squared_dist(a, b) / 2, z, y)
    return half, pull(jnp.ones_like(half))


@jax.jit
def second_derivatives(metric: RiemannianMetric, z: Array, y: Array) -> Array:
    """Hessian of half the squared distance in (z, y), ``(n, 2 d, 2 d)``: forward over reverse mode."""

    def slopes(both: Array) -> Array:
        return jnp.concatenate(value_and_slopes(metric, both[:, :2], both[:, 2:])[1], -1)

    both = jnp.concatenate([z, y], -1)
    return jax.vmap(lambda axis: jax.jvp(slopes, (both,), (jnp.broadcast_to(axis, both.shape),))[1], out_axes=-1)(
        jnp.eye(4, dtype=z.dtype)
    )


@pytest.mark.parametrize("name", [*NAMES, "torus2, sheared, metric only"])
def test_distance_meets_the_closed_form(name: str) -> None:
    exact, metric = pair(name)
    z, y = ends()
    truth = exact.dist(z, y)
    curve = metric.geodesic(z, y, init="line")
    assert curve.converged.all()
    np.testing.assert_allclose(curve.length, truth, rtol=3e-4)
    np.testing.assert_allclose(jnp.sqrt(2 * curve.energy), truth, rtol=1e-5)
    np.testing.assert_allclose(curve(0.0), z, atol=1e-12)
    np.testing.assert_allclose(curve(1.0), y, atol=1e-12)
    # constant speed: a quarter of the time is a quarter of the way
    np.testing.assert_allclose(exact.dist(z, curve(0.25)), truth / 4, rtol=5e-4)
    np.testing.assert_allclose(curve.points[::8], curve(jnp.linspace(0, 1, 5)), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="`t`"):
        curve(1.5)


@pytest.mark.parametrize("name", BOTH)
def test_first_and_second_derivatives_match_finite_differences(name: str) -> None:
    exact, metric = pair(name)
    z, y = ends(scale=0.2)
    half, (slope_z, slope_y) = value_and_slopes(metric, z, y)
    np.testing.assert_allclose(half, jnp.square(exact.dist(z, y)) / 2, rtol=1e-5)
    numerical = central_difference(lambda at: value_and_slopes(metric, at, y)[0], z)
    np.testing.assert_allclose(slope_z, numerical, rtol=1e-8, atol=1e-8)
    numerical = central_difference(lambda at: value_and_slopes(metric, z, at)[0], y)
    np.testing.assert_allclose(slope_y, numerical, rtol=1e-8, atol=1e-8)
    # the covector G gamma'(1): neither the sign nor G may be missing
    momentum = jnp.einsum("...ij,...j->...i", exact.metric(y), -exact.logmap(y, z))
    np.testing.assert_allclose(slope_y, momentum, rtol=0, atol=5e-4)

    hessian = second_derivatives(metric, z, y)
    np.testing.assert_allclose(hessian, hessian.mT, rtol=0, atol=1e-9)
    in_z = central_difference(lambda at: jnp.concatenate(value_and_slopes(metric, at, y)[1], -1), z)
    in_y = central_difference(lambda at: jnp.concatenate(value_and_slopes(metric, z, at)[1], -1), y)
    np.testing.assert_allclose(hessian, np.concatenate([in_z, in_y], -1), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", BOTH)
def test_coincident_points(name: str) -> None:
    """Distance 0 with gradient 0; the second derivative of half the squared distance is G."""
    _, metric = pair(name)
    z, _ = ends()
    half, slopes = value_and_slopes(metric, z, z)
    assert half.tolist() == [0.0] * 4
    assert all(jnp.abs(slope).max() == 0.0 for slope in slopes)
    np.testing.assert_allclose(second_derivatives(metric, z, z)[:, :2, :2], metric.metric(z), rtol=1e-8, atol=1e-8)


def test_forward_mode_agrees_with_reverse_mode() -> None:
    _, metric = pair(NAMES[0])
    z, y = ends()
    direction = jnp.asarray(np.random.default_rng(2).normal(size=z.shape))
    half, slopes = value_and_slopes(metric, z, y)
    value, slope = jax.jvp(lambda at: metric.squared_dist(at, y), (z,), (direction,))
    np.testing.assert_allclose(value, 2 * half, rtol=1e-12)
    np.testing.assert_allclose(slope, 2 * (slopes[0] * direction).sum(-1), rtol=1e-10)


def bowl(weight: Array, z: Array) -> Array:
    return jnp.concatenate([z, weight * jnp.square(z).sum(-1, keepdims=True)], -1)


def test_gradient_in_the_parameters_of_the_metric() -> None:
    """By a metric as an argument that is differentiated, twice."""
    z, y = ends()
    metric = PullbackMetric(jax.tree_util.Partial(bowl, jnp.asarray(0.7)), 2, jitter=0.0)
    metric.solver = EXACT

    @jax.jit
    def slope(shift: float) -> Array:
        moved = jax.tree.map(lambda leaf: leaf + shift, metric)
        return jnp.stack(jax.tree.leaves(jax.grad(lambda m: m.squared_dist(z, y).sum())(moved)))

    @jax.jit
    def value(shift: float) -> Array:
        return jax.tree.map(lambda leaf: leaf + shift, metric).squared_dist(z, y).sum()

    step = 1e-4
    numerical = (8 * (value(step) - value(-step)) - (value(2 * step) - value(-2 * step))) / (12 * step)
    np.testing.assert_allclose(slope(0.0)[0], numerical, rtol=1e-8)
    second = jax.jit(jax.jacfwd(slope))(0.0)
    numerical = (8 * (slope(step) - slope(-step)) - (slope(2 * step) - slope(-2 * step))) / (12 * step)
    np.testing.assert_allclose(second, numerical, rtol=1e-7)


@jax.jit
def log_van_vleck(metric: RiemannianMetric, z: Array, y: Array) -> Array:
    return metric.log_van_vleck(z, y)


def test_van_vleck_determinant() -> None:
    exact, metric = pair(NAMES[0])
    z, y = ends()
    np.testing.assert_allclose(log_van_vleck(metric, z, y), exact.log_van_vleck(z, y), rtol=0, atol=1e-4)
    np.testing.assert_allclose(log_van_vleck(metric, y, y), 0.0, atol=1e-10)


@pytest.mark.slow
def test_gradient_of_the_van_vleck_determinant() -> None:
    _, metric = pair(NAMES[0])
    z, y = ends()
    slope = jax.grad(lambda at: log_van_vleck(metric, at, y).sum())(z)
    numerical = central_difference(lambda at: log_van_vleck(metric, at, y), z)
    np.testing.assert_allclose(slope, numerical, rtol=1e-6, atol=1e-6)


def test_van_vleck_determinant_of_the_cylinder_is_one() -> None:
    rolled = charts.cylinder()  # flat: the Gauss-Newton Hessian would not know
    z, y = jnp.array([[0.1, 0.2]]), jnp.array([[2.3, 1.0]])
    np.testing.assert_allclose(log_van_vleck(rolled, z, y), 0.0, atol=1e-4)


def test_logmap_is_the_initial_velocity() -> None:
    exact, metric = pair(NAMES[1])
    z, y = ends()
    np.testing.assert_allclose(metric.logmap(z, y), exact.logmap(z, y), rtol=0, atol=2e-4)


class Exponential(RiemannianMetric):
    """exp(2 z) on the line: the arc length from minus infinity is exp(z)."""

    dim = 1

    def metric(self, z: Array) -> Array:
        return jnp.exp(2 * z)[..., None]


def on_the_line(z: Any, y: Any, bend: float = 0.0) -> Any:
    """Interior control points ``(P, K + 1, 1)`` of the curve whose arc length is even in time, or bent by a bump."""
    time = np.linspace(0, 1, 65)[:, None]
    track = np.log((1 - time) * np.exp(z)[:, None] + time * np.exp(y)[:, None]) + bend * np.sin(np.pi * time)
    return splines.fit_matrix(4, 65) @ np.concatenate([track, track[:, :1], track[:, -1:]], 1)


#: Ends on that line, and a solver that takes what it is given.
LINE = np.array([[0.2], [-0.5]]), np.array([[0.9], [-0.8]])
IDLE = GeodesicSolver(num_knots=4, num_segments=16, max_iterations=0, max_polish=0)


def test_curves_move_with_their_ends() -> None:
    """On that line the middle of the curve from z to y is log((exp z + exp y) / 2)."""
    (z, y), half = LINE, splines.basis(4, np.array([0.5]))[:, 1:-1]  # to which the ends add nothing

    @jax.jit
    def moved(z: Array, slope: Array) -> tuple[Array, Array]:
        start = on_the_line(*LINE)[None]
        return jax.jvp(lambda z: shortest_path(IDLE, Exponential(), z, jnp.asarray(y), start, None), (z,), (slope,))

    control, slope = map(np.asarray, moved(z, np.ones_like(z)))
    near, far = np.exp(z), np.exp(y)
    np.testing.assert_allclose(half @ control, np.log((near + far) / 2)[:, None], atol=1e-5)
    np.testing.assert_allclose(half @ slope, (near / (near + far))[:, None], atol=1e-4)


def test_the_best_of_several_starts_is_kept() -> None:
    best, worse = on_the_line(*LINE), on_the_line(*LINE, bend=0.3)
    starts = np.stack([np.stack([best[0], worse[1]]), np.stack([worse[0], best[1]])])
    found, _ = jax.jit(lambda z, y, starts: search(IDLE, Exponential(), z, y, starts))(*LINE, starts)
    np.testing.assert_allclose(found, best, atol=1e-3)


class Countdown(NamedTuple):
    """Curves that are done after a number of iterations of their own."""

    left: Array
    done: Array
    iterations: Array


@pytest.mark.parametrize("count", [16, 37, 48])  # one list, three with two to fill up, three
def test_a_long_list_is_cut_and_all_of_it_done(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_newton, "_LIST", 1)  # 16 chunks of one
    left = jnp.asarray(np.random.default_rng(0).integers(1, 9, count))

    def advance(state: Countdown) -> Countdown:
        return Countdown(state.left - 1, state.left <= 1, state.iterations + 1)

    state = Countdown(left, jnp.zeros(count, bool), jnp.zeros(count, jnp.int32))
    found = _newton.work(advance, state, 1, lambda now: (~now.done & (now.iterations <= 6), None))
    np.testing.assert_array_equal(found.iterations, np.minimum(left, 7))
    np.testing.assert_array_equal(found.done, left <= 7)
    np.testing.assert_array_equal(found.left, left - np.minimum(left, 7))


def test_one_program_serves_all_calls_of_a_shape() -> None:
    traces = []

    def immersion(z: Array) -> Array:
        traces.append(z.shape)
        return jnp.concatenate([z, jnp.sin(z)], -1)

    metric = PullbackMetric(immersion, 2)
    z, y = ends()
    first = metric.squared_dist(z, y)
    count = len(traces)
    np.testing.assert_array_equal(metric.squared_dist(z, y), first)
    metric.squared_dist(z + 0.1, y)
    metric.squared_dist(y.reshape(2, 2, 2), z.reshape(2, 2, 2))  # the same number of pairs
    assert len(traces) == count


def test_transformations_agree_and_leak_nothing() -> None:
    """Pair by pair under ``vmap`` and ``scan``, in float32, and with no pair at all."""
    exact, metric = pair(NAMES[0])
    z, y = ends()
    wanted, (slope, _) = value_and_slopes(metric, z, y)

    def half(z: Array, y: Array) -> Array:
        return metric.squared_dist(z, y) / 2

    with jax.check_tracer_leaks():
        values, slopes = jax.jit(jax.vmap(jax.value_and_grad(half)))(z, y)
    np.testing.assert_allclose(values, wanted, rtol=1e-12)
    np.testing.assert_allclose(slopes, slope, rtol=0, atol=1e-10)
    table = jax.jit(jax.vmap(jax.vmap(half, (None, 0)), (0, None)))(z, y)
    np.testing.assert_allclose(jnp.diagonal(table), wanted, rtol=1e-12)
    scanned = jax.jit(lambda z, y: jax.lax.scan(lambda _, ends: (None, half(*ends)), None, (z, y))[1])(z, y)
    np.testing.assert_allclose(scanned, wanted, rtol=1e-12)

    single, (slope_z, _) = value_and_slopes(metric, z.astype(jnp.float32), y.astype(jnp.float32))
    assert single.dtype == slope_z.dtype == jnp.float32
    np.testing.assert_allclose(single, jnp.square(exact.dist(z, y)) / 2, rtol=2e-4)
    np.testing.assert_allclose(slope_z, slope, rtol=0, atol=2e-3)
    assert metric.squared_dist(jnp.zeros((0, 2)), jnp.zeros((0, 2))).shape == (0,)


def test_a_batch_of_metrics() -> None:
    z, y = ends()
    weights = jnp.array([0.2, 0.9])
    bowls = PullbackMetric(jax.tree_util.Partial(bowl, weights[0]), 2, jitter=0.0)
    many = jax.jit(jax.vmap(lambda w: jax.tree.map(lambda _: w, bowls).squared_dist(z, y)))(weights)
    np.testing.assert_allclose(many[0], bowls.squared_dist(z, y), rtol=1e-12)
    assert (many[1] > many[0]).all()


def two_hills(z: Array) -> Array:
    """Flat but for two tall hills (ridges in more dimensions): the straight line slides into the pass between them."""
    x, y = z[..., :1], z[..., 1:2]
    return jnp.concatenate([z] + [6 * jnp.exp(-2 * (x**2 + (y - at) ** 2)) for at in (-0.05, 1.6)], -1)


class Hills(PullbackMetric):
    """With codes that a path can follow."""

    pytree_data_fields = ("landmarks",)

    def __init__(self, dim: int) -> None:
        super().__init__(two_hills, dim, jitter=0.0)
        codes = 4 * np.random.default_rng(0).uniform(size=(600, dim)) - 2
        self.landmarks = jnp.asarray(codes * np.array([1.0, 1.0, 0.1, 0.1])[:dim])
        self.solver = GeodesicSolver(num_knots=16, num_segments=64, init="graph")


@pytest.mark.parametrize("dim", [2, 4])
def test_graph_walks_around_the_hills(dim: int) -> None:
    metric = Hills(dim)
    z = jnp.zeros((1, dim)).at[:, 0].set(-2.0)
    line, graph = (metric.geodesic(z, -z, init=init) for init in ("line", "graph"))
    assert graph.converged.all()
    assert line.length.item() > 1.05 * graph.length.item()
    if dim == 4:
        slope = jax.grad(lambda at: metric.squared_dist(at, -z).sum())(z)
        # momentum: covector G gamma'(0), of norm the distance
        np.testing.assert_allclose(
            jnp.sqrt(jnp.linalg.solve(metric.metric(z)[0], slope[0]) @ slope[0]), 2 * graph.length[0], rtol=1e-2
        )
        with pytest.raises(ValueError, match='init="graph"'):
            jax.jit(metric.squared_dist)(z, -z)


def test_tunnelling_and_unfinished_iterations_are_not_called_convergence() -> None:
    def wall(z: Array) -> Array:
        """A plane cut by a wall much thinner than a chord."""
        return jnp.concatenate([z, 5 * jnp.exp(-((40 * (z[..., :1] - 0.01)) ** 2))], -1)

    metric = PullbackMetric(wall, 2, jitter=0.0)
    z, y = jnp.array([[-1.0, 0.0]]), jnp.array([[1.0, 0.3]])
    curve = metric.geodesic(z, y, init="line", num_knots=4, num_segments=16, on_failure="ignore")
    assert curve.length.item() > 10  # up and down the wall
    assert (2 * curve.energy.item()) ** 0.5 < 0.9 * curve.length.item()  # the chords jumped it
    assert not curve.converged.any()
    rough = pair(NAMES[0])[1].geodesic(*ends(), init="line", max_iterations=1, max_polish=0, on_failure="ignore")
    assert not rough.converged.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init": "random"}, "`init`"),
        ({"num_segments": 7}, "`num_segments`"),
        ({"num_knots": 0}, "`num_knots`"),
        ({"tolerance": 0.0}, "`tolerance`"),
        ({"max_iterations": -1}, "`max_iterations`"),
        ({"on_failure": "shout"}, "`on_failure`"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeodesicSolver(**settings)


def test_bad_points_are_refused() -> None:
    metric = pair(NAMES[0])[1]
    with pytest.raises(ValueError, match="do not broadcast"):
        metric.squared_dist(jnp.zeros((3, 2)), jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match="`y` has 1 NaN"):
        metric.squared_dist(jnp.zeros(2), jnp.array([0.0, jnp.nan]))
