"""The tabulated metric and its distance field: accuracy, derivatives, and the box's faces under transformations."""

from __future__ import annotations

import pickle
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from pyro_riemann.numpyro import (
    ConstantMetric,
    EuclideanMetric,
    GridMetric,
    PullbackMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    Sphere,
    brownian_motion,
)
from pyro_riemann.numpyro.metrics._spline_table import SplineTable


def immersion(z: Array) -> Array:
    return jnp.concatenate([z, jnp.sin(z), jnp.cos((z * z).sum(-1, keepdims=True))], -1)


@cache
def make(dim: int = 2, outside: str = "metric") -> GridMetric:
    return GridMetric(PullbackMetric(immersion, dim), -1.0, 1.0, {1: 60, 2: 50, 3: 16}[dim], outside)


def points(*shape: int, seed: int = 0) -> Array:
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, size=shape))


@pytest.mark.parametrize("dim", [1, 3])
def test_spline_reproduces_cubics(dim: int) -> None:
    # not-a-knot end conditions: every tensor-product cubic is its own interpolant, up to the faces
    coefficients = np.random.default_rng(0).normal(size=(4,) * dim)

    def cubic(z: np.ndarray, *orders: int) -> np.ndarray:
        """The polynomial, differentiated as often as told along each axis."""
        result = np.broadcast_to(coefficients, (len(z), *coefficients.shape))
        for axis in range(dim):
            powers = np.eye(4)
            for _ in range(orders[axis]):
                powers = np.concatenate([powers[1:] * np.arange(1, 4)[:, None], np.zeros((1, 4))])
            result = np.einsum("ni...,ni->n...", result, np.vander(z[:, axis], 4, increasing=True) @ powers)
        return result

    sizes, low, high = (5, 6, 7)[:dim], np.array([-1.0, 0.0, 2.0])[:dim], np.array([1.0, 0.5, 5.0])[:dim]
    axes = [np.linspace(*span) for span in zip(low, high, sizes, strict=True)]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, dim)
    table = SplineTable(cubic(nodes, *(0,) * dim).reshape(*sizes, 1), jnp.asarray(low), jnp.asarray(high))
    z = low + (high - low) * (np.asarray(points(20, dim)) + 1) / 2
    value, slope, curve = table.with_hessian(jnp.asarray(z))
    unit = np.eye(dim, dtype=int)
    np.testing.assert_allclose(value[:, 0], cubic(z, *(0,) * dim), rtol=1e-9, atol=1e-9)
    for j in range(dim):
        np.testing.assert_allclose(slope[:, 0, j], cubic(z, *unit[j]), rtol=1e-8, atol=1e-8)
        for k in range(dim):
            np.testing.assert_allclose(curve[:, 0, j, k], cubic(z, *(unit[j] + unit[k])), rtol=1e-7, atol=1e-7)


def test_error_is_small_known_and_of_fourth_order() -> None:
    base = PullbackMetric(immersion, 2)
    coarse, fine = (GridMetric(base, -1.0, 1.0, count) for count in (25, 50))
    assert 10 < float(coarse.mean_interpolation_error / fine.mean_interpolation_error) < 40  # 2^4, fewer at the faces
    z = points(200, 2)
    root = jnp.linalg.inv(jnp.linalg.cholesky(base.metric(z)))
    error = jnp.linalg.norm(root @ (fine.metric(z) - base.metric(z)) @ root.mT, 2, axis=(-2, -1))
    assert float(error.max()) < 3 * float(fine.interpolation_error)
    assert float(error.mean()) == pytest.approx(float(fine.mean_interpolation_error), rel=0.5)


@pytest.mark.parametrize("dim", [1, 2])
def test_closed_derivatives_match_automatic_ones(dim: int) -> None:
    grid, z, v = make(dim, "error"), points(3, dim), points(3, dim, seed=1)

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compilation is all that takes time
    def both(grid: GridMetric, z: Array, v: Array) -> tuple[list[Array], list[Array]]:
        energy = lambda p, v: 0.5 * grid.inner(p, v, v)  # noqa: E731
        closed = [grid.metric_jacobian(z)[1], grid.logdet(z), grid.logdet_gradient(z), grid.speed_hessian(z, v)]
        automatic = [
            jax.vmap(jax.jacfwd(grid.metric))(z),
            jnp.linalg.slogdet(grid.metric(z))[1],
            jax.vmap(jax.grad(grid.logdet))(z),
            jax.vmap(jax.hessian(energy))(z, v),
        ]
        return closed, automatic

    for ours, theirs in zip(*both(grid, z, v), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_outside_the_box() -> None:
    grid, alone = make(), make(2, "error")
    assert grid.base is not None
    z = jnp.array([[0.3, 0.2], [2.0, 0.3], [-5.0, 9.0]])
    exact = grid.base.metric(z)
    for value in (grid.metric(z), jax.jit(grid.metric)(z), jax.vmap(grid.metric)(z)):
        np.testing.assert_allclose(value[1:], exact[1:], rtol=1e-12)
        np.testing.assert_allclose(value[0], alone.metric(z[0]), rtol=1e-12)
    slope = jax.jit(jax.grad(lambda p: grid.logdet(p).sum()))(z)
    np.testing.assert_allclose(slope[1:], grid.base.logdet_gradient(z)[1:], rtol=1e-9)
    # nothing is left of the true metric: an error where the points are known, the nearest face where they are not
    assert alone.base is None
    with pytest.raises(ValueError, match=r"2 of 3 points lie outside the box .* z = \[2\.0"):
        alone.metric(z)
    np.testing.assert_allclose(jax.jit(alone.metric)(z), alone.metric(jnp.clip(z, -1, 1)), rtol=1e-12)


def test_a_compiled_look_up_evaluates_no_immersion() -> None:
    sines = []
    for outside in ("error", "metric"):
        text = jax.jit(make(2, outside).metric).lower(points(3, 2)).as_text()
        sines.append(text.count("sine"))
    assert sines[0] == 0 < sines[1]


def test_pytree_dtype_and_traces() -> None:
    grid, z = make(2, "error"), points(4, 2)
    leaves, tree = jax.tree.flatten(grid)
    jax.tree.unflatten(tree, [object()] * len(leaves))
    for copied in (pickle.loads(pickle.dumps(make())), jax.tree.unflatten(tree, leaves)):
        assert jnp.array_equal(copied.metric(z), grid.metric(z))
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), grid)
    batch.table.coefficients = batch.table.coefficients.at[1].multiply(1.5)
    changed = jax.vmap(lambda of: of.logdet(z))(batch)
    np.testing.assert_allclose(changed[1], 1.5 * changed[0], rtol=1e-12)  # linear in the table's log-diagonal
    total = jax.lax.scan(lambda sum_, of: (sum_ + of.logdet(z), None), jnp.zeros(4), batch)[0]
    np.testing.assert_allclose(total, 2.5 * changed[0], rtol=1e-12)
    # log det is linear in the table, so along the table its derivative is itself
    gradient = jax.grad(lambda of: of.logdet(z).sum())(grid).table.coefficients
    assert float((gradient * grid.table.coefficients).sum()) == pytest.approx(float(grid.logdet(z).sum()), rel=1e-9)
    low = jnp.float32(-1)
    single = GridMetric(PullbackMetric(immersion, 2), low, 1.0, 50, "error")
    value = single.metric(z.astype(jnp.float32))
    assert value.dtype == single.interpolation_error.dtype == jnp.float32
    np.testing.assert_allclose(value, grid.metric(z), rtol=1e-4, atol=1e-5)
    with jax.check_tracer_leaks():
        jax.jit(lambda of, p: of.drift(p))(grid, z)


def test_distance_field_of_closed_forms() -> None:
    centre, z = jnp.array([0.31, -0.27]), 0.75 * points(200, 2)
    sphere = Sphere(2)
    field = GridMetric(sphere, -1.0, jnp.array(1.0, float), 60).distance_field(centre, resolution=40)
    exact = sphere.dist(jnp.broadcast_to(centre, z.shape), z)
    relative = jnp.abs(field.dist(z) - exact) / exact
    assert float(jnp.median(relative)) < 1e-4
    assert float(relative.max()) < 1e-3
    assert float(field.eikonal_error) < 1e-3
    value, slope = jax.value_and_grad(field.dist)(centre)
    assert float(value) == 0
    assert slope.tolist() == [0.0, 0.0]
    # the momentum has length 1 in the metric
    slope = jax.vmap(jax.grad(field.dist))(z[:50])
    squared = jnp.einsum("ni,nij,nj->n", slope, jnp.linalg.inv(sphere.metric(z[:50])), slope)
    np.testing.assert_allclose(squared, np.ones(50), atol=0.02)
    again = pickle.loads(pickle.dumps(field))
    np.testing.assert_allclose(jax.jit(lambda of, p: of(p))(again, z), field.dist(z), rtol=1e-12)


def test_prepared_paths_keep_to_the_table() -> None:
    matrix = jnp.array([[4.0, 0.0], [0.0, 1.0]])
    grid = GridMetric(ConstantMetric(matrix), -1.0, 1.0, 8).prepare_paths(16)
    z, y = jnp.array([[-0.5, 0.0]]), jnp.array([[0.5, 0.4]])
    assert grid.paths is not None
    curve = grid.paths(z, y, num_knots=4)
    np.testing.assert_allclose(curve[0, 0], z[0], atol=1e-12)
    assert len(jax.tree.leaves(grid)) == 6  # the paths are part of the program, not data


class Broken(RiemannianMetric):
    dim = 2

    def metric(self, z: Array) -> Array:
        return (z + 0.5)[..., None] * jnp.eye(2)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((EuclideanMetric(4), -1.0, 1.0, 5), "dimension 4"),
        ((EuclideanMetric(2), 1.0, 1.0, 5), "`low` must lie below `high`"),
        ((EuclideanMetric(2), -1.0, float("inf"), 5), "low and high"),
        ((EuclideanMetric(2), -1.0, 1.0, 3), "`resolution` must be 2 whole numbers"),
        ((EuclideanMetric(2), -1.0, 1.0, 5, "clamp"), "`outside` must be one of"),
        ((Broken(), -1.0, 1.0, 5), r"not finite and positive definite at 16 of 25 nodes.*z = \[-1\.0"),
    ],
)
def test_bad_arguments(arguments: tuple, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        GridMetric(*arguments)


@pytest.mark.parametrize(
    ("loc", "match"),
    [
        (jnp.array([2.0, 0.0]), "inside the box"),
        (jnp.zeros((3, 2)), r"one point \(2,\)"),
        (jnp.array([jnp.nan, 0.0]), "`loc` has 1 NaN"),
    ],
)
def test_bad_centres(loc: Array, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make(2, "error").distance_field(loc)


def test_no_table_under_a_transformation() -> None:
    with pytest.raises(TypeError, match=r"outside of `jit`"):
        jax.jit(lambda matrix: GridMetric(ConstantMetric(matrix), -1.0, 1.0, 5).metric(jnp.zeros(2)))(jnp.eye(2))


def test_error_is_that_where_the_table_is_used() -> None:
    """A wall of width 0.05 at z_0 = 0.8, and points at z_0 < 0."""
    base = PullbackMetric(lambda z: jnp.concatenate([z, 5 * jnp.exp(-0.5 * ((z[..., :1] - 0.8) / 0.05) ** 2)], -1), 2)
    z = jax.random.uniform(jax.random.key(0), (200, 2), minval=-1.0, maxval=0.0)
    grid = GridMetric(base, -1.0, 1.0, 20, points=z)
    errors = grid.interpolation_error_at(z)
    root = jnp.linalg.inv(jnp.linalg.cholesky(base.metric(z)))
    exact = jnp.linalg.norm(root @ (grid.metric(z) - base.metric(z)) @ root.mT, 2, axis=(-2, -1))
    np.testing.assert_allclose(errors, exact, rtol=1e-3, atol=1e-6)
    assert float((errors <= grid.interpolation_error).mean()) == pytest.approx(0.9, abs=0.01)
    at_wall, outside = grid.interpolation_error_at(jnp.array([[0.83, 0.5], [5.0, 0.0]])).tolist()
    assert at_wall > 10 * float(grid.interpolation_error)
    assert outside == 0
    wall = jnp.array([0.8, 0.0]) + 0.04 * jax.random.normal(jax.random.key(1), (100, 2))
    with pytest.warns(UserWarning, match="90 % of the given points"):
        GridMetric(base, -1.0, 1.0, 20, points=wall)
    with pytest.raises(ValueError, match="none of the 1 `points`"):
        GridMetric(base, -1.0, 1.0, 20, points=jnp.full((1, 2), 7.0))


def test_a_table_on_its_own_knows_its_floor_and_where_it_knows_the_metric() -> None:
    saturated = PullbackMetric(jnp.tanh, 2)  # sech^4 falls below nine jitters at |z| = 3.6
    alone, z = GridMetric(saturated, -5.0, 5.0, 81, outside="error"), jnp.array([[0.2, 3.0], [4.0, -4.0], [6.0, 0.0]])
    assert alone.on_floor(z).tolist() == [False, True, False]
    assert alone.on_floor(z[1]).shape == ()
    for metric in (alone, alone.conformal(), GridMetric(alone, -1.0, 1.0, 8)):
        assert metric.covers(z).tolist() == [True, True, False]
    assert saturated.covers(z) is None
    assert GridMetric(saturated, -1.0, 1.0, 8).covers(z) is None
    assert GridMetric(Sphere(2), -1.0, 1.0, 8, outside="error").on_floor(z) is None


def test_a_table_alone_is_constant_across_its_faces() -> None:
    grid = GridMetric(PullbackMetric(lambda z: jnp.concatenate([z, z**2], -1), 2), -1.0, 1.0, 12)
    alone, beyond = grid.alone(), jnp.array([[1.7, 0.3], [-2.0, 4.0], [0.5, 0.4]])
    np.testing.assert_allclose(alone.metric(beyond), grid.metric(jnp.clip(beyond, -1.0, 1.0)), rtol=1e-5)
    slope = jax.vmap(jax.jacfwd(alone.metric))(beyond)
    np.testing.assert_allclose(alone.metric_jacobian(beyond)[1], slope, atol=1e-4)
    np.testing.assert_allclose(alone.logdet_gradient(beyond), jax.vmap(jax.grad(alone.logdet))(beyond), atol=1e-4)
    v = jnp.array([[0.3, -1.0]] * 3)

    def speed(z: Array, v: Array) -> Array:
        return 0.5 * v @ alone.metric(z) @ v

    np.testing.assert_allclose(alone.speed_hessian(beyond, v), jax.vmap(jax.hessian(speed))(beyond, v), atol=2e-3)
    assert (alone.base, alone.covers(beyond), grid.outside) == (None, None, "metric")
    assert np.isfinite(alone.dist(beyond[0], beyond[1]))


def test_what_leaves_a_table_on_its_own_is_reported() -> None:
    """Compiled code cannot raise on the way, so walks, curves and rays say afterwards that they left."""

    class Own(RiemannianMetric):
        dim = 2

        def metric(self, z: Array) -> Array:
            return Sphere(2).metric(z)

    table = GridMetric(Own(), -1.0, 1.0, 20, outside="error")
    start = jnp.full((200, 2), 0.8)
    with pytest.raises(ValueError, match="left the reals or the box of a table"):
        brownian_motion(table, start, 0.3, 8, key=jax.random.key(0))
    assert brownian_motion(table, 0 * start, 0.001, 8, key=jax.random.key(0)).shape == (200, 2)
    z, y = jnp.array([-0.9, 0.98]), jnp.array([0.9, 0.98])  # great circles bend outward beyond the equator
    with pytest.warns(UserWarning, match="1 of 1 pairs of points have no converged geodesic"):
        table.dist(z, y)
    # on a flat table the mass of a heat kernel is that of the box, and the rest is error
    flat = GridMetric(ConstantMetric(jnp.array([[1.5, 0.4], [0.4, 0.8]])), -0.9, 0.9, 8, outside="error")
    law = RiemannianHeatKernel(jnp.array([0.2, -0.1]), 0.3, flat, num_directions=64)
    with pytest.warns(UserWarning, match="a stated error of"):
        value, error = law.log_normalizer()
    axis = 0.9 * (np.arange(600) + 0.5 - 300) / 300
    inside = np.stack(np.meshgrid(axis, axis), -1) - np.array([0.2, -0.1])
    squared = np.einsum("...i,ij,...j->...", inside, np.array([[1.5, 0.4], [0.4, 0.8]]), inside)
    mass = (np.exp(-squared / 0.6) / (0.6 * np.pi) * 1.04**0.5).sum() * 0.003**2
    assert abs(float(value) - np.log(mass)) < 0.01
    assert abs(float(value)) < error
