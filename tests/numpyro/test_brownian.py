"""Brownian motion against exact laws, in charts where a missing drift shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.test_util import check_grads
from scipy import stats

from pyro_riemann.numpyro import ConstantMetric, PullbackMetric, RiemannianMetric, Sphere, brownian_motion
from pyro_riemann.numpyro.brownian import METHODS, _pilot, choose_steps, default_method
from pyro_riemann.numpyro.manifolds import HalfSpace, Hyperboloid, ProductMetric
from tests.numpyro import charts

START = np.array([-0.4, -0.4])  # of the sheared sphere, where the drift is large


class Law(NamedTuple):
    metric: RiemannianMetric
    start: np.ndarray[tuple[int], np.dtype[np.float64]]
    time: float
    num_steps: int
    statistic: Callable[[Array], Array]
    exact: float
    tolerance: float  # relative, beside three standard errors


def stereographic(z: Array) -> Array:
    """The unit sphere, origin at the last axis."""
    square = jnp.square(z).sum(-1, keepdims=True)
    return jnp.concatenate([2 * z, 1 - square], -1) / (1 + square)


def warped_sphere(z: Array) -> Array:
    return stereographic(charts.shear(z))


def along_axis(z: Array) -> Array:
    """Product with an axis half along the drift at the start."""
    return warped_sphere(z) @ (warped_sphere(jnp.asarray(START)) + jnp.array([0.61, 0.16, -0.77]))


def half_space_cosh(z: Array) -> Array:
    """cosh of the distance from height 1 above the origin of the half-space."""
    height = jnp.exp(z[..., 2])
    return 1 + (jnp.square(z[..., :2]).sum(-1) + jnp.square(height - 1)) / (2 * height)


def law(name: str) -> Law:
    if name == "H2":
        metric = charts.OnlyMetric(charts.hyperboloid_chart(2))
        cosh = lambda z: jnp.sqrt(1 + jnp.square(z).sum(-1))  # noqa: E731
        return Law(metric, np.zeros(2), 0.25, 32, cosh, math.exp(0.25), 4e-3)
    if name == "H3":
        metric = charts.OnlyMetric(charts.half_space_log_height(3))
        return Law(metric, np.zeros(3), 0.5, 64, half_space_cosh, math.exp(0.75), 1e-2)
    exact = math.exp(-0.15) * along_axis(jnp.asarray(START)).item()
    return Law(PullbackMetric(warped_sphere, 2, jitter=0.0), START, 0.15, 32, along_axis, exact, 4e-3)


def deviation(name: str, method: str, count: int = 1500) -> tuple[float, float]:
    """Relative deviation of the sampled mean from the exact one, and its standard error.

    Every path has a mirrored twin, driven by the negative noise.
    """
    case = law(name)
    half = np.random.default_rng(0).normal(size=(case.num_steps, count, case.metric.dim))
    start = jnp.broadcast_to(case.start, (2, count, case.metric.dim))
    end = brownian_motion(
        case.metric, start, case.time, case.num_steps, method, noise=jnp.asarray(np.stack([half, -half], 1))
    )
    value = case.statistic(end).mean(0) / case.exact
    return value.mean().item() - 1, value.std().item() / count**0.5


@pytest.mark.parametrize(
    ("name", "method"),
    [("H2", "second_order"), ("H2", "euler"), ("H3", "second_order")]
    + [("S2", method) for method in METHODS if method != "driftless"],
)
def test_law(name: str, method: str) -> None:
    bias, error = deviation(name, method)
    assert abs(bias) < law(name).tolerance + 3 * error


@pytest.mark.parametrize("name", ["H2", "H3", "S2"])
def test_the_laws_would_catch_a_missing_drift(name: str) -> None:
    bias, error = deviation(name, "driftless")
    assert abs(bias) > law(name).tolerance + 4 * error


def test_two_charts_follow_the_same_ambient_noise() -> None:
    left, right = (PullbackMetric(surface, 2, jitter=0.0) for surface in (warped_sphere, stereographic))
    start = jnp.array([-0.3, -0.3])
    half = np.random.default_rng(0).normal(size=(32, 1000, 3))
    noise = jnp.asarray(np.stack([half, -half], 1))
    first = brownian_motion(left, jnp.broadcast_to(start, (2, 1000, 2)), 0.1, 32, noise=noise)
    second = brownian_motion(right, jnp.broadcast_to(charts.shear(start), (2, 1000, 2)), 0.1, 32, noise=noise)
    assert jnp.abs((warped_sphere(first) - stereographic(second)).mean((0, 1))).max() < 2e-4


def test_flat_space_is_exact() -> None:
    """With constant G the end is the start plus L^-T times the summed noise, N(0, time G^-1)."""
    matrix = jnp.array([[2.0, 0.6], [0.6, 0.5]])
    noise, start = (jnp.asarray(np.random.default_rng(0).normal(size=shape)) for shape in ((4, 6, 2), (6, 2)))
    root = jnp.linalg.inv(jnp.linalg.cholesky(matrix).mT)
    for method in ("second_order", "euler", "geodesic"):
        end = brownian_motion(ConstantMetric(matrix), start, 0.8, 4, method, noise=noise)
        np.testing.assert_allclose(end, start + noise.sum(0) @ root.mT * 0.2**0.5, rtol=0, atol=1e-12)


def scaled_sphere(radius: Array, z: Array) -> Array:
    return radius * warped_sphere(z)


@pytest.mark.parametrize("method", ["retraction", "second_order"])
def test_gradients_match_finite_differences(method: str) -> None:
    """In start, time and the metric's parameter, with the noise held fixed; forward and reverse mode."""
    noise = jnp.asarray(np.random.default_rng(0).normal(size=(2, 1, 2)))

    @jax.jit
    def end(start: Array, time: Array, radius: Array) -> Array:
        metric = PullbackMetric(jax.tree_util.Partial(scaled_sphere, radius), 2)
        return brownian_motion(metric, start, time, 2, method, noise=noise)

    check_grads(end, (jnp.asarray(START), jnp.array([0.1]), jnp.asarray(1.2)), order=1, rtol=1e-6, atol=1e-6)


def test_shapes_path_keys_and_programs() -> None:
    traces = []

    class Hyperboloid(RiemannianMetric):
        dim = 2

        def metric(self, z: Array) -> Array:
            traces.append(z.shape)
            outer = z[..., :, None] * z[..., None, :]
            return jnp.eye(2, dtype=z.dtype) - outer / (1 + jnp.square(z).sum(-1))[..., None, None]

    metric = Hyperboloid()
    start, time = jnp.zeros((5, 1, 2)), jnp.array([0.1, 0.4, 0.9])
    key = jax.random.key(1)
    path = brownian_motion(metric, start, time, 6, return_path=True, key=key)
    assert path.shape == (7, 5, 3, 2)
    np.testing.assert_array_equal(path[0], 0.0)
    assert len(jnp.unique(path[-1, ..., 0])) == 15
    count = len(traces)
    again = brownian_motion(metric, start, time, 6, return_path=True, key=key)
    np.testing.assert_array_equal(path, again)
    brownian_motion(metric, start + 0.1, 2 * time, 6, return_path=True, key=jax.random.key(2))
    assert len(traces) == count
    with jax.check_tracer_leaks():
        single = jax.jit(lambda key, z: brownian_motion(metric, z, 0.3, 3, key=key))(
            key, jnp.zeros((4, 2), jnp.float32)
        )
    assert single.dtype == jnp.float32
    assert jnp.isfinite(single).all()
    assert brownian_motion(metric, jnp.zeros((0, 2)), 0.4, 2, key=key).shape == (0, 2)


def test_default_method() -> None:
    assert default_method(PullbackMetric(warped_sphere, 2)) == "retraction"
    assert default_method(Sphere(2)) == "geodesic"
    assert default_method(charts.warped_sphere(2)) == "geodesic"
    assert default_method(charts.OnlyMetric(Sphere(2))) == "second_order"


def test_a_correction_never_exceeds_the_step() -> None:
    """On a wall of slope 200 the uncapped correction is many times the step."""
    metric = PullbackMetric(lambda z: jnp.concatenate([z, jnp.tanh(200 * z)], -1), 1, jitter=0.0)
    start, noise = jnp.linspace(-0.05, 0.05, 101)[:, None], jnp.ones((1, 101, 1))
    plain, moved = (brownian_motion(metric, start, 0.1, 1, way, noise=noise) for way in ("driftless", "retraction"))
    step, correction = metric.norm(start, plain - start), metric.norm(start, moved - plain)
    assert (correction <= step * (1 + 1e-12)).all()
    assert (correction > step * (1 - 1e-12)).any()


class Vanishing(RiemannianMetric):
    """exp(-2 z) on the line: curves of finite length reach infinity."""

    dim = 1

    def metric(self, z: Array) -> Array:
        return jnp.exp(-2 * z)[..., None]


def test_a_lost_path_is_reported() -> None:
    start, key = jnp.full((50, 1), 3.0), jax.random.key(0)
    with pytest.raises(ValueError, match="left the reals"):
        brownian_motion(Vanishing(), start, 100.0, 50, key=key)
    end = jax.jit(lambda z: brownian_motion(Vanishing(), z, 100.0, 50, key=key))(start)
    assert not jnp.isfinite(end).all()


def test_bad_input() -> None:
    metric, start, key = PullbackMetric(warped_sphere, 2), jnp.ones((3, 2)), jax.random.key(0)
    for time in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`time` must be finite and strictly positive"):
            brownian_motion(metric, start, time, 4, key=key)
    with pytest.raises(ValueError, match="`start` must have shape"):
        brownian_motion(metric, jnp.ones(3), 0.1, 4, key=key)
    with pytest.raises(ValueError, match="`start` has 6 NaN"):
        brownian_motion(metric, start * jnp.nan, 0.1, 4, key=key)
    with pytest.raises(ValueError, match="`num_steps` must be at least 1"):
        brownian_motion(metric, start, 0.1, 0, key=key)
    with pytest.raises(ValueError, match="`method` must be one of 'retraction'"):
        brownian_motion(metric, start, 0.1, 4, "milstein", key=key)
    with pytest.raises(ValueError, match="'retraction' needs an immersion"):
        brownian_motion(Vanishing(), jnp.ones(1), 0.1, 4, "retraction", key=key)
    with pytest.raises(ValueError, match=r"`time` of shape \(4,\) does not broadcast"):
        brownian_motion(metric, start, jnp.ones(4), 4, key=key)
    with pytest.raises(ValueError, match=r"`noise` must have shape \(4, 3, 2\)"):
        brownian_motion(metric, start, 0.1, 4, noise=jnp.ones((5, 3, 2)))
    with pytest.raises(ValueError, match="ambient noise needs an immersion"):
        brownian_motion(Vanishing(), jnp.ones((3, 1)), 0.1, 4, noise=jnp.ones((4, 3, 3)))
    with pytest.raises(ValueError, match="either a `key`"):
        brownian_motion(metric, start, 0.1, 4)


@pytest.mark.parametrize(("dim", "time"), [(3, 1.6), (9, 0.8)])
@pytest.mark.parametrize("space", [Sphere, Hyperboloid])
def test_default_steps_keep_the_mean_distance(space: Any, dim: int, time: float) -> None:
    """E cosh l = exp(d t / 2), E cos l = exp(-d t / 2); the distance itself from the exact heat kernel."""
    metric, start = space(dim), jnp.zeros((4000, dim))
    positive = space is Sphere
    top = np.pi if positive else dim * time / 2 + 10 * time**0.5
    r = (np.arange(3000) + 0.5) / 3000 * top
    y = np.zeros((3000, dim))
    y[:, 0] = np.tan(r / 2) if positive else np.sinh(r)
    kernel = metric.log_heat_kernel(jnp.zeros(dim), jnp.asarray(y), time)
    weight = np.exp(np.asarray(kernel) + (dim - 1) * np.log(np.sin(r) if positive else np.sinh(r)))
    exact = (weight * r).sum() / weight.sum()
    drawn = metric.dist(start, brownian_motion(metric, start, time, key=jax.random.key(0)))
    assert abs(float(drawn.mean()) / exact - 1) < 0.01 + 3 * float(drawn.std()) / 4000**0.5 / exact


def test_default_steps_serve_the_longest_time_and_the_most_curved_factor() -> None:
    curved, flat = Hyperboloid(6), ConstantMetric(jnp.eye(2))
    start, time = jnp.zeros((3, 8)), jnp.array([[0.02], [6.0], [0.1]])
    alone = [choose_steps(curved, start[:1, 2:], one[None], "geodesic") for one in time]
    most = max(alone)
    assert most == alone[1] > alone[0]
    assert choose_steps(curved, start[:, 2:], time, "geodesic") == most
    assert choose_steps(ProductMetric([flat, curved]), start, time, "geodesic") == most
    assert choose_steps(ProductMetric([curved, flat]), start, time, "geodesic") == most


@pytest.mark.parametrize("num_steps, size", [(8, 4), (32, 1)])
def test_walks_that_are_tried_have_the_variance_of_their_time(num_steps: int, size: int) -> None:
    """In flat space, however many draws a step sums; what comes back is how far they get, as inverse sine."""
    start, time = jnp.zeros((2, 500, 3)), jnp.full((2, 500, 1), 0.7)
    far, lost = _pilot(ConstantMetric(jnp.eye(3)), start, time, num_steps, size, "driftless")
    scale = 2 * math.sqrt(3 * 0.7)
    squared = np.square(scale * np.sinh(np.asarray(far)[0] / scale)) / 0.7
    assert not lost
    assert stats.kstest(squared, stats.chi2(3).cdf).pvalue > 1e-3


def test_default_steps_of_a_users_metric() -> None:
    class Own(RiemannianMetric):
        dim = 3

        def metric(self, z: Array) -> Array:
            return HalfSpace(3).metric(z)

    metric, start = Own(), jnp.zeros((1500, 3))
    num_steps = choose_steps(metric, start, jnp.full((1500, 1), 0.4), "second_order")
    assert 24 <= num_steps <= 512
    cosh = half_space_cosh(brownian_motion(metric, start, 0.4, num_steps, key=jax.random.key(1))) / np.exp(0.6)
    assert abs(float(cosh.mean()) - 1) < 0.015 + 3 * float(cosh.std()) / 1500**0.5
    traced = jax.jit(lambda key: brownian_motion(metric, start[:2], 0.4, return_path=True, key=key))
    assert traced(jax.random.key(0)).shape == (65, 2, 3)


def test_paths_that_run_off_to_the_floor_are_reported() -> None:
    metric = PullbackMetric(lambda z: jnp.tanh(jnp.concatenate([z, 0.5 * z], -1)), 2)
    start = jnp.full((400, 2), 3.2)
    with pytest.warns(UserWarning, match="Brownian paths end where the PullbackMetric is only its floor") as said:
        end = brownian_motion(metric, start, 0.2, 16, key=jax.random.key(0))
    assert str(said[0].message).startswith(f"{float(metric.on_floor(end).mean()):.0%} of 400 ")
    brownian_motion(metric, jnp.zeros((400, 2)), 0.01, 8, key=jax.random.key(0))
