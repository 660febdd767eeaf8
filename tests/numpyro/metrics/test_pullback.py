"""Pullbacks of immersions with a known metric, and the kinds of immersion that are taken."""

from __future__ import annotations

import importlib
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from pyro_riemann.numpyro import PullbackMetric
from pyro_riemann.numpyro.vae import GaussianDecoder, RBFPrecision, mlp


def points(*shape: int, seed: int = 0) -> Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def saddle(z: Array) -> Array:
    """(x, y, x y): G = I + (y, x)(y, x)^T."""
    return jnp.concatenate([z, z.prod(-1, keepdims=True)], -1)


def affine(weight: Array, z: Array) -> Array:
    return jnp.tanh(z @ weight)


def decoder() -> GaussianDecoder:
    std = RBFPrecision(points(6, 2), jnp.full(6, 0.8), points(9, 6, seed=1))
    return GaussianDecoder(mlp([2, 8, 9], key=jax.random.key(0)), std)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_saddle(dtype: Any) -> None:
    metric = PullbackMetric(saddle, 2, jitter=0.0)
    z, v = points(2, 4, 2).astype(dtype)
    normal = z[:, ::-1]
    tolerance = 1e-5 if dtype == jnp.float32 else 1e-12
    value = metric.metric(z)
    assert value.dtype == dtype
    np.testing.assert_allclose(value, np.eye(2) + normal[:, :, None] * normal[:, None], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(metric.logdet(z), jnp.log1p((z * z).sum(-1)), rtol=tolerance, atol=tolerance)
    # Gamma(v, v) = G^{-1} J^T D^2 f[v, v] = 2 v_1 v_2 (y, x) / (1 + |z|^2)
    expected = 2 * v.prod(-1, keepdims=True) / (1 + (z * z).sum(-1, keepdims=True)) * normal
    np.testing.assert_allclose(metric.christoffel(z, v), expected, rtol=tolerance, atol=tolerance)
    # the same with 2 g^{xy} = -2 x y / (1 + |z|^2) for 2 v_1 v_2, times -1/2
    drift = z.prod(-1, keepdims=True) / (1 + (z * z).sum(-1, keepdims=True)) ** 2 * normal
    np.testing.assert_allclose(metric.drift(z), drift, rtol=tolerance, atol=tolerance)


def test_two_outputs_add_their_metrics_and_take_a_finer_curve() -> None:
    module, z = decoder(), points(6, 2)
    both = PullbackMetric(module, 2, jitter=0.0)
    mean, scale = (PullbackMetric(part, 2, jitter=0.0) for part in (module.mean, module.std))
    np.testing.assert_allclose(both.metric(z), mean.metric(z) + scale.metric(z), rtol=1e-12)
    assert (both.solver.num_knots, mean.solver.num_knots) == (16, 8)
    reduced = PullbackMetric(module.distance_immersion(), 2, jitter=0.0)
    np.testing.assert_allclose(reduced.metric(z), both.metric(z), rtol=1e-10)
    chords = [jnp.square(of.embed(z[1:]) - of.embed(z[:-1])).sum(-1) for of in (both, reduced)]
    np.testing.assert_allclose(chords[0], chords[1], rtol=1e-10)


def test_jacobian_by_finite_differences() -> None:
    metric, z = PullbackMetric(decoder(), 2), points(5, 2)
    value, jacobian = metric.embed_jacobian(z)
    np.testing.assert_allclose(value, metric.embed(z), rtol=1e-12)
    columns = [(metric.embed(z + e) - metric.embed(z - e)) / 2e-6 for e in 1e-6 * np.eye(2)]
    np.testing.assert_allclose(jacobian, jnp.stack(columns, -1), rtol=1e-6, atol=1e-8)
    tensor, force = metric.metric_and_force(z)
    np.testing.assert_allclose(tensor, metric.metric(z), rtol=1e-12)
    v = points(5, 2, seed=3)
    np.testing.assert_allclose(
        jnp.linalg.solve(tensor, force(v)[..., None])[..., 0], metric.christoffel(z, v), rtol=1e-9
    )


def test_jitter_is_added_and_repairs_lost_rank() -> None:
    flat = PullbackMetric(lambda z: jnp.stack([z[..., 0], z[..., 0] ** 2], -1), 2, jitter=1e-4)
    np.testing.assert_allclose(flat.metric(jnp.zeros(2)), np.diag([1.0 + 1e-4, 1e-4]), rtol=1e-12)


def linen() -> Any:
    nn = importlib.import_module("flax.linen")
    module = nn.Sequential([nn.Dense(8), jnp.tanh, nn.Dense(5)])
    return module.bind(module.init(jax.random.key(0), jnp.zeros(2)))


def equinox() -> Any:
    nn = importlib.import_module("equinox").nn
    network = nn.MLP(2, 5, 8, 1, key=jax.random.key(0))
    return nn.Lambda(
        jax.tree_util.Partial(jnp.vectorize(type(network).__call__, signature="(i)->(o)", excluded={0}), network)
    )


@pytest.mark.parametrize("kind", ["pytree", "partial", "linen", "equinox"])
def test_arrays_of_an_immersion_are_data(kind: str) -> None:
    make = {"pytree": decoder, "partial": lambda: jax.tree_util.Partial(affine, points(2, 4)), "linen": linen}
    immersion = (make | {"equinox": equinox})[kind]()
    metric, z = jax.tree.map(lambda leaf: leaf.astype(float), PullbackMetric(immersion, 2)), points(3, 2)
    leaves, tree = jax.tree.flatten(metric)
    assert leaves
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    jax.tree.unflatten(tree, [object()] * len(leaves))
    expected = jax.jit(lambda of: of.logdet(z))(metric)
    np.testing.assert_allclose(metric.logdet(z), expected, rtol=1e-10)
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, 1.1 * leaf]), metric)
    many = jax.vmap(lambda of: of.logdet(z))(batch)
    other = jax.tree.map(lambda leaf: 1.1 * leaf, metric)
    np.testing.assert_allclose(many, jnp.stack([expected, other.logdet(z)]), rtol=1e-9)
    # the gradient against a finite difference along all parameters at once
    gradient = jax.grad(lambda of: of.logdet(z).sum())(metric)
    step = 1e-6
    ends = [
        jax.tree.map(lambda leaf, factor=factor: factor * leaf, metric).logdet(z).sum()
        for factor in (1 + step, 1 - step)
    ]
    along = sum(jax.tree.leaves(jax.tree.map(lambda g, leaf: (g * leaf).sum(), gradient, metric)))
    assert float(along) == pytest.approx(float(ends[0] - ends[1]) / (2 * step), rel=1e-5)


@pytest.mark.parametrize(
    "immersion", [saddle, jax.tree_util.Partial(affine, np.eye(2)), decoder()], ids=["function", "partial", "decoder"]
)
def test_pickle_and_equal_programs(immersion: Any) -> None:
    metric, z = PullbackMetric(immersion, 2), points(3, 2)
    again = pickle.loads(pickle.dumps(metric))
    assert jnp.array_equal(again.metric(z), metric.metric(z))
    assert jax.tree.structure(again) == jax.tree.structure(metric)
    assert jax.tree.structure(PullbackMetric(immersion, 2)) == jax.tree.structure(metric)


def test_construction_under_a_transformation() -> None:
    def volume(weight: Array) -> Array:
        return PullbackMetric(jax.tree_util.Partial(affine, weight), 2).logdet(jnp.zeros(2))

    # at the origin G = W W^T + jitter: the derivative of its log determinant is 2 G^{-1} W
    weight = points(2, 4)
    expected = 2 * jnp.linalg.solve(weight @ weight.T + 1e-6 * jnp.eye(2), weight)
    np.testing.assert_allclose(jax.jit(jax.grad(volume))(weight), expected, rtol=1e-8)


@pytest.mark.parametrize(
    ("immersion", "match"),
    [
        (lambda z: jnp.ones((*z.shape[:-1], 3)), "does not depend on z"),
        (lambda z: z[..., :1], "outputs for a latent dimension of 2"),
        (lambda z: z.sum(0, keepdims=True), "batch shape"),
        (lambda z: jnp.concatenate([z, jnp.log(z)], -1), "NaN"),
    ],
)
def test_bad_immersions(immersion: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        PullbackMetric(immersion, 2)


def test_wrong_types() -> None:
    with pytest.raises(TypeError, match="`immersion` must be callable"):
        PullbackMetric(jnp.zeros(3), 2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="neither arrays nor hashable"):
        PullbackMetric(jax.tree_util.Partial(affine, {1}), 2)
    with pytest.raises(ValueError, match="`jitter`"):
        PullbackMetric(saddle, 2, jitter=-1.0)
    with pytest.raises(TypeError, match="floating"):
        PullbackMetric(saddle, 2).metric(jnp.zeros(2, int))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_saturated_immersion_is_on_its_floor(dtype: Any) -> None:
    """``tanh`` has the slope ``cosh^-2``: the eigenvalues are known, and fall below ten jitters at |z| = 3.6.

    One dead direction, of two, is not enough: the walk goes where the other one lets it.
    """
    metric = PullbackMetric(lambda z: jnp.concatenate([jnp.tanh(z), 2 * jnp.tanh(z[..., :1])], -1), 2, jitter=1e-6)
    z = jnp.asarray([[0.0, 0.0], [9.0, 3.5], [9.0, 3.7], [9.0, 0.3], [9.0, 9.0]], dtype)
    assert metric.on_floor(z).tolist() == [False, False, True, False, True]
    assert jax.jit(lambda z: metric.on_floor(z).mean())(z) == jnp.asarray(0.4, jnp.float32)
    dead = PullbackMetric(lambda z: jnp.concatenate([jnp.tanh(z[..., :2]), z[..., :1]], -1), 3)
    assert not dead.on_floor(jax.random.normal(jax.random.key(0), (20, 3), dtype)).any()
    assert PullbackMetric(saddle, 2, jitter=0.0).on_floor(z) is None


def test_products_of_vectors_are_those_of_the_tensor_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    network = mlp([8, 20, 30], key=jax.random.key(0))
    metric = PullbackMetric(network, 8, jitter=0.1)
    z, u, v = points(3, 5, 4, 8).astype(jnp.float64)
    tensor = metric.metric(z)
    expected = jnp.einsum("...i,...ij,...j->...", u, tensor, v)
    one = jnp.einsum("...i,...ij,...j->...", u[0, 0], tensor, v[:1])
    length = jnp.sqrt(jnp.einsum("...i,...ij,...j->...", u, tensor, u))
    many = metric.norm(z[0, 0], v)

    def refuse(*_: object) -> None:
        raise AssertionError("a product of two vectors needs no tensor")

    monkeypatch.setattr(PullbackMetric, "metric", refuse)  # not what it compiles, which is kept
    np.testing.assert_allclose(metric.inner(z, u, v), expected, rtol=1e-6)
    np.testing.assert_allclose(metric.inner(z, u[0, 0], v[:1]), one, rtol=1e-6)
    np.testing.assert_allclose(metric.norm(z, u), length, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(metric.inner)(z, u, v), expected, rtol=1e-6)
    np.testing.assert_allclose(metric.norm(jnp.broadcast_to(z[0, 0], v.shape), v), many, rtol=1e-6)
