"""Mixtures of normals of the twin against scikit-learn in flat space, and against the laws that made the points."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from sklearn.mixture import GaussianMixture

from pyro_riemann.numpyro import (
    ConstantMetric,
    EuclideanMetric,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianWrappedNormal,
    Sphere,
)
from pyro_riemann.numpyro.manifolds import Hyperboloid
from pyro_riemann.numpyro.mixtures import RiemannianMixture, fit_normals

KEY = jax.random.key(0)


def clouds(seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    first = rng.multivariate_normal([0.0, 0.0], [[0.5, 0.3], [0.3, 0.4]], 150)
    second = rng.multivariate_normal([1.5, -1.0], [[0.2, -0.1], [-0.1, 0.6]], 100)
    return jnp.asarray(np.concatenate([first, second]))


def sorted_by_weight(law: RiemannianMixture) -> tuple[Array, Array, Array]:
    order = jnp.argsort(-law.log_weights)
    factor = law.components.scale_tril[order]
    return jnp.exp(law.log_weights[order]), law.components.loc[order], factor @ factor.mT


def test_flat_fit_is_that_of_scikit_learn() -> None:
    points, metric = clouds(), EuclideanMetric(2)
    weights, loc, covariance = sorted_by_weight(fit_normals(points, metric, 2, KEY, num_steps=0).mixture)
    known = {"weights_init": np.asarray(weights), "means_init": np.asarray(loc)}
    precisions = np.linalg.inv(covariance)
    other = GaussianMixture(2, tol=1e-10, max_iter=1000, precisions_init=precisions, **known)
    other.fit(np.asarray(points))
    fit = fit_normals(points, metric, 2, KEY, num_steps=1000, tolerance=1e-10)
    order = np.argsort(-other.weights_)
    weights, loc, covariance = sorted_by_weight(fit.mixture)
    assert fit.converged
    np.testing.assert_allclose(weights, other.weights_[order], rtol=1e-3)
    np.testing.assert_allclose(loc, other.means_[order], atol=1e-3)
    np.testing.assert_allclose(covariance, other.covariances_[order], atol=1e-3)
    np.testing.assert_allclose(fit.log_likelihood[-1], other.score(np.asarray(points)), rtol=1e-6)
    largest = int(fit.mixture.log_weights.argmax())
    np.testing.assert_allclose(
        fit.mixture.responsibilities(points)[:, largest],
        other.predict_proba(np.asarray(points))[:, order[0]],
        atol=2e-3,
    )


def test_a_constant_metric_only_changes_the_measure() -> None:
    points, matrix = clouds(), jnp.array([[2.0, 0.3], [0.3, 1.0]])
    flat = fit_normals(points, EuclideanMetric(2), 1, KEY, min_variance=1e-12)
    bent = fit_normals(points, ConstantMetric(matrix), 1, KEY, min_variance=1e-12)
    np.testing.assert_allclose(bent.mixture.log_prob(points), flat.mixture.log_prob(points), rtol=1e-6)
    mean = points.mean(0)
    np.testing.assert_allclose(flat.mixture.components.loc[0], mean, rtol=1e-9)
    factor = flat.mixture.components.scale_tril[0]
    np.testing.assert_allclose(factor @ factor.mT, (points - mean).T @ (points - mean) / len(points), rtol=1e-9)


def test_known_mixture_on_hyperbolic_space_is_found() -> None:
    """To five standard errors of the parameters, taken from the spread of the law."""
    metric = Hyperboloid(2)
    loc = jnp.array([[0.8, 0.0], [-0.9, 0.6]])
    factor = jnp.array([[[0.4, 0.0], [0.1, 0.2]], [[0.15, 0.0], [-0.1, 0.4]]])
    weights = jnp.array([0.35, 0.65])
    truth = RiemannianMixture(RiemannianWrappedNormal(loc, None, metric, scale_tril=factor), jnp.log(weights))
    points = truth.sample(jax.random.key(1), (3000,))
    fit = fit_normals(points, metric, 2, KEY)
    assert fit.converged
    assert (jnp.diff(fit.log_likelihood) >= 0).all()
    assert fit.log_likelihood[-1] > (truth.log_prob(points) - 0.5 * metric.logdet(points)).mean()
    order = jnp.argsort(fit.mixture.log_weights)
    found = fit.mixture.components.scale_tril[order]
    covariance = factor @ factor.mT
    error = jnp.sqrt(jnp.diagonal(covariance, axis1=-2, axis2=-1) / (weights * len(points))[:, None])
    assert (jnp.abs(fit.mixture.components.loc[order] - loc) < 5 * error).all()
    np.testing.assert_allclose(found @ found.mT, covariance, atol=0.03, rtol=0.2)
    np.testing.assert_allclose(jnp.exp(fit.mixture.log_weights[order]), weights, atol=0.04)


def test_riemannian_normals_on_a_sphere_are_found() -> None:
    sphere = Sphere(2)
    loc, scale = jnp.array([[0.8, 0.0], [-0.5, 0.6]]), jnp.array([0.3, 0.15])
    truth = RiemannianMixture(RiemannianNormal(loc, scale, sphere), jnp.log(jnp.array([0.7, 0.3])))
    fit = fit_normals(truth.sample(jax.random.key(1), (2000,)), sphere, 2, KEY, family="riemannian")
    assert fit.converged
    order = jnp.argsort(-fit.mixture.log_weights)
    np.testing.assert_allclose(fit.mixture.components.scale[order], scale, rtol=0.08)
    assert (sphere.dist(fit.mixture.components.loc[order], loc) < 0.05).all()


def test_shapes_pytrees_and_bad_arguments() -> None:
    points, flat = clouds(), EuclideanMetric(2)
    law = fit_normals(points, flat, 3, KEY, num_steps=1).mixture
    assert law.expand((4,)).log_prob(points[:4]).shape == (4,)
    assert law.sample(KEY, (5,)).shape == (5, 2)
    assert law.responsibilities(points).shape == (250, 3)
    again = jax.tree.unflatten(jax.tree.structure(law), jax.tree.leaves(law))
    assert isinstance(again, RiemannianMixture)
    np.testing.assert_array_equal(jax.jit(lambda law, z: law.log_prob(z))(again, points), law.log_prob(points))
    wrong: tuple[tuple[Array, RiemannianMetric, int, dict[str, object], str], ...] = (
        (points, flat, 0, {}, "num_components"),
        (points, flat, 2, {"family": "student"}, "family"),
        (points, flat, 2, {"min_variance": 0.0}, "min_variance"),
        (jnp.ones((9, 3)), Sphere(2), 2, {}, "from_ambient"),
    )
    for data, metric, count, options, message in wrong:
        with pytest.raises(ValueError, match=message):
            fit_normals(data, metric, count, KEY, **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="transformation"):
        jax.jit(lambda x: fit_normals(x, flat, 2, KEY).mixture.mean)(points)
