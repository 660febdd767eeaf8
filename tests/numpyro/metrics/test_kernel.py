"""The kernel metric against its definition, in float32 and as a pytree."""

from __future__ import annotations

import math
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from pyro_riemann._formulas import kernel
from pyro_riemann.numpyro import KernelMetric

NUM, DIM = 12, 3


def make(diagonal: bool = True, seed: int = 1) -> KernelMetric:
    generator = np.random.default_rng(seed)
    precisions = 0.5 + 3 * generator.random((NUM, DIM))
    if not diagonal:
        root = 0.5 * generator.normal(size=(NUM, DIM, DIM))
        precisions = precisions[:, :, None] * np.eye(DIM) + root @ root.transpose(0, 2, 1)
    return KernelMetric(generator.normal(size=(NUM, DIM)), precisions, 1.3, 0.05)


def points(*shape: int, seed: int = 0) -> Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_definition(batch: tuple[int, ...], diagonal: bool) -> None:
    # equation 7, kernel by kernel
    metric, z = make(diagonal), points(*batch, DIM)
    expected = 0.05 * np.eye(DIM)
    for centroid, precision in zip(metric.centroids, metric.precisions, strict=True):
        matrix = jnp.diag(precision) if diagonal else precision
        distance = jnp.einsum("...i,ij,...j->...", z - centroid, matrix, z - centroid)
        expected = expected + matrix * jnp.exp(-distance / 1.3**2)[..., None, None]
    np.testing.assert_allclose(metric.metric(z), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(metric.logdet(z), np.linalg.slogdet(expected)[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("pairs", [kernel.PAIRS, 45])  # 45: five centroids at a time, the last three of weight 0
@pytest.mark.parametrize("diagonal", [True, False])
def test_derivatives_are_those_of_the_metric(diagonal: bool, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "PAIRS", pairs)
    jax.clear_caches()  # of programs with blocks of another size
    metric, z, v = make(diagonal), points(2, 4, DIM), points(2, 4, DIM, seed=1)
    each = jnp.vectorize(jax.jacfwd(metric.metric), signature="(d)->(d,d,d)")
    np.testing.assert_allclose(metric.metric_jacobian(z)[1], each(z), rtol=1e-9, atol=1e-10)

    def speed(point: Array, along: Array) -> Array:
        return 0.5 * along @ metric.metric(point) @ along

    bend = jnp.vectorize(jax.hessian(speed), signature="(d),(d)->(d,d)")
    np.testing.assert_allclose(metric.speed_hessian(z, v), bend(z, v), rtol=1e-9, atol=1e-10)
    jax.clear_caches()


def test_volume_of_an_isolated_bump() -> None:
    # sqrt(det G) of one kernel without floor is (2 pi rho^2 / d)^(d/2) times the density N(c, rho^2 Sigma / d)
    rho, precision, centroid = 0.7, np.array([9.0, 2.0]), np.array([0.3, -0.2])
    metric = KernelMetric(centroid[None], precision[None], rho, 1e-30)
    axes = [c + np.linspace(-8, 8, 401) * rho / p**0.5 for c, p in zip(centroid, precision, strict=True)]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    cell = math.prod(axis[1] - axis[0] for axis in axes)
    mass = jnp.exp(0.5 * metric.logdet(jnp.asarray(nodes))).sum() * cell
    assert float(mass) == pytest.approx(math.pi * rho**2, rel=1e-8)


def test_float32_keeps_its_digits() -> None:
    # posterior standard deviations of 0.03 a few units from the origin: an expanded square cancels five digits
    generator = np.random.default_rng(0)
    centroids = (generator.normal(size=(50, 2)) + 4).astype(np.float32)
    z = (centroids + 0.3 * generator.normal(size=(50, 2))).astype(np.float32)
    precisions = (0.03**-2 * generator.uniform(0.5, 2, size=(50, 2))).astype(np.float32)
    coarse = KernelMetric(centroids, precisions, 0.5 / 0.03, 1e-3)
    exact = KernelMetric(centroids.astype(float), precisions.astype(float), 0.5 / 0.03, 1e-3)

    @jax.jit
    def parts(metric: KernelMetric, z: Array) -> Any:
        return metric.logdet(z), metric.drift(z), jax.grad(lambda p: metric.logdet(p).sum())(z)

    computed, wide = parts(coarse, jnp.asarray(z)), parts(exact, jnp.asarray(z, float))
    assert all(value.dtype == jnp.float32 for value in computed)
    for value, reference, tolerance in zip(computed, wide, (1e-5, 1e-4, 1e-4), strict=True):
        np.testing.assert_allclose(value, reference, rtol=tolerance, atol=tolerance * float(jnp.abs(reference).max()))

    @jax.jit
    def by_precision(metric: KernelMetric, z: Array) -> Any:
        gradient = jax.grad(lambda of: of.logdet(z).sum())(metric)
        return gradient.precisions, gradient.centroids

    for value, reference in zip(by_precision(coarse, z), by_precision(exact, z.astype(float)), strict=True):
        np.testing.assert_allclose(value, reference, rtol=1e-3, atol=1e-4 * float(jnp.abs(reference).max()))


def test_no_array_over_points_centroids_and_axes() -> None:
    points_, centroids, dim = 300, 200, 16
    generator = np.random.default_rng(0)
    metric = KernelMetric(generator.normal(size=(centroids, dim)), generator.random((centroids, dim)) + 0.5, 3.0, 0.1)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), metric)
    for of in (metric, single):
        z = points(points_, dim).astype(of.centroids.dtype)
        program = jax.jit(jax.value_and_grad(lambda p, of: of.logdet(p).sum())).lower(z, of).compile()
        assert program.memory_analysis().temp_size_in_bytes < points_ * centroids * dim * z.dtype.itemsize


def test_far_away_only_the_floor_remains() -> None:
    metric, z = make(), jnp.array([1e4, -1e6, 1e12], jnp.float32)
    value, slope = jax.value_and_grad(metric.logdet)(z)
    assert float(value) == pytest.approx(3 * math.log(0.05), rel=1e-6)
    assert slope.tolist() == metric.drift(z).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("diagonal", [True, False])
def test_pytree(diagonal: bool) -> None:
    first, second, z = make(diagonal), make(diagonal, seed=2), points(4, DIM)
    expected = first.logdet(z)
    leaves, tree = jax.tree.flatten(first)
    assert len(leaves) == 4
    jax.tree.unflatten(tree, [object()] * 4)
    for copied in (
        jax.tree.unflatten(tree, leaves),
        pickle.loads(pickle.dumps(first)),
        jax.tree.map(lambda x: x, first),
    ):
        assert jnp.array_equal(copied.logdet(z), expected)
    batch = jax.tree.map(lambda *x: jnp.stack(x), first, second)
    many = jax.vmap(lambda of: of.logdet(z))(batch)
    np.testing.assert_allclose(many, jnp.stack([expected, second.logdet(z)]), rtol=1e-12)
    scanned = jax.lax.scan(lambda total, of: (total + of.logdet(z), None), jnp.zeros(4), batch)[0]
    np.testing.assert_allclose(scanned, many.sum(0), rtol=1e-12)
    step = 1e-6
    gradient = jax.grad(lambda of: of.logdet(z).sum())(first)
    moved = [
        KernelMetric(first.centroids, first.precisions, first.bandwidth + side * step, first.regularization)
        for side in (1, -1)
    ]
    slope = (moved[0].logdet(z).sum() - moved[1].logdet(z).sum()) / (2 * step)
    assert float(gradient.bandwidth) == pytest.approx(float(slope), rel=1e-6)


def test_equal_shapes_compile_once() -> None:
    traces = 0

    @jax.jit
    def logdet(metric: KernelMetric, z: Array) -> Array:
        nonlocal traces
        traces += 1
        return metric.logdet(z)

    for seed in range(3):
        logdet(make(seed=seed), points(4, DIM, seed=seed))
    assert traces == 1
    with jax.check_tracer_leaks():
        jax.jit(lambda of, z: of.drift(z))(make(), points(4, DIM))


def test_coverage_tells_overlapping_kernels_from_bumps() -> None:
    generator = np.random.default_rng(0)
    loc, scale = generator.normal(size=(2000, 8)), 0.03 + 0.05 * generator.random((2000, 8))
    overlapping = KernelMetric.from_posterior(loc, scale, num_centroids=50, bandwidth="mahalanobis")
    bumps = KernelMetric.from_posterior(loc, scale, num_centroids=50, bandwidth="euclidean")
    assert float(overlapping.coverage(loc)) > 0.95
    assert float(bumps.coverage(loc)) < 0.5
    assert float(bumps.coverage(bumps.landmarks)) == 1.0


GOOD: dict[str, Any] = {
    "centroids": np.zeros((3, 2)),
    "precisions": np.ones((3, 2)),
    "bandwidth": 1.0,
    "regularization": 0.1,
}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"centroids": np.zeros(2)}, r"`centroids` must have shape \(k, d\)"),
        ({"centroids": np.full((3, 2), np.nan)}, "`centroids` has 6 NaN"),
        ({"precisions": np.ones((4, 2))}, r"`precisions` must have shape \(3, 2\)"),
        ({"precisions": -np.ones((3, 2))}, "`precisions` must be finite and strictly positive"),
        ({"precisions": np.full((3, 2, 2), 1.0)}, "3 matrices that are not positive definite"),
        ({"precisions": np.broadcast_to([[1.0, 0.5], [0.0, 1.0]], (3, 2, 2))}, "`precisions` must be symmetric"),
        ({"bandwidth": np.ones(3)}, "`bandwidth` must be a number"),
        ({"regularization": 0.0}, "`regularization`"),
    ],
)
def test_bad_arguments(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        KernelMetric(**(GOOD | changes))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"scale": np.ones((20, 3))}, "`loc` and `scale`"),
        ({"scale": -np.ones((20, 2))}, "log-variances"),
        ({"scale": np.ones((20, 2, 2))}, "lower triangular"),
        ({"num_centroids": 21}, "`num_centroids` must be between 1 and"),
        ({"bandwidth": "maximum"}, "`bandwidth` must be a number or one of"),
        ({"loc": np.zeros((20, 2)), "bandwidth": "mahalanobis"}, "duplicates"),
    ],
)
def test_bad_posteriors(changes: dict[str, Any], match: str) -> None:
    arguments: dict[str, Any] = {"loc": np.arange(40.0).reshape(20, 2), "scale": np.ones((20, 2)), "num_centroids": 5}
    with pytest.raises(ValueError, match=match):
        KernelMetric.from_posterior(**(arguments | changes))


def test_wrong_points() -> None:
    with pytest.raises(ValueError, match=r"`z` must have shape \(\*batch, 3\)"):
        make().logdet(jnp.zeros(2))
    with pytest.raises(TypeError, match="`z`"):
        make().metric([0.0, 0.0, 0.0])  # type: ignore[arg-type]
