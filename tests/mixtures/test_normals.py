"""Mixtures of normals against scikit-learn in flat space, and against the laws that made the points elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from pyro_riemann import ConstantMetric, EuclideanMetric, RiemannianNormal, RiemannianWrappedNormal, Sphere
from pyro_riemann.manifolds import Hyperboloid
from pyro_riemann.metrics import LocalMetric
from pyro_riemann.mixtures import RiemannianMixture, fit_normals

F64 = torch.float64


def clouds(seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    first = rng.multivariate_normal([0.0, 0.0], [[0.5, 0.3], [0.3, 0.4]], 150)
    second = rng.multivariate_normal([1.5, -1.0], [[0.2, -0.1], [-0.1, 0.6]], 100)
    return torch.tensor(np.concatenate([first, second]))


def sorted_by_weight(law: RiemannianMixture) -> tuple[Tensor, Tensor, Tensor]:
    order = law.log_weights.argsort(descending=True)
    factor = law.components.scale_tril[order]
    return law.log_weights[order].exp(), law.components.loc[order], factor @ factor.mT


def test_flat_fit_is_that_of_scikit_learn() -> None:
    points = clouds()
    start = fit_normals(points, EuclideanMetric(2), 2, num_steps=0).mixture
    weights, loc, covariance = sorted_by_weight(start)
    known = {"weights_init": weights.numpy(), "means_init": loc.numpy()}
    other = GaussianMixture(2, tol=1e-10, max_iter=1000, precisions_init=torch.linalg.inv(covariance).numpy(), **known)
    other.fit(points.numpy())
    fit = fit_normals(points, EuclideanMetric(2), 2, num_steps=1000, tolerance=1e-10)
    order = np.argsort(-other.weights_)
    weights, loc, covariance = sorted_by_weight(fit.mixture)
    assert fit.converged
    np.testing.assert_allclose(weights, other.weights_[order], rtol=1e-3)
    np.testing.assert_allclose(loc, other.means_[order], atol=1e-3)
    np.testing.assert_allclose(covariance, other.covariances_[order], atol=1e-3)
    np.testing.assert_allclose(fit.log_likelihood[-1], other.score(points.numpy()), rtol=1e-6)
    np.testing.assert_allclose(fit.mixture.log_prob(points).mean(), other.score(points.numpy()), rtol=1e-6)
    np.testing.assert_allclose(
        fit.mixture.responsibilities(points)[:, fit.mixture.log_weights.argmax()],
        other.predict_proba(points.numpy())[:, order[0]],
        atol=2e-3,
    )


def test_a_constant_metric_only_changes_the_measure() -> None:
    points, matrix = clouds(), torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=F64)
    flat = fit_normals(points, EuclideanMetric(2), 1, min_variance=1e-12)
    bent = fit_normals(points, ConstantMetric(matrix), 1, min_variance=1e-12)
    torch.testing.assert_close(bent.mixture.log_prob(points), flat.mixture.log_prob(points))
    mean = points.mean(0)
    torch.testing.assert_close(flat.mixture.components.loc[0], mean)
    factor = flat.mixture.components.scale_tril[0]
    torch.testing.assert_close(factor @ factor.mT, (points - mean).T @ (points - mean) / len(points))


def test_known_mixture_on_hyperbolic_space_is_found() -> None:
    """To four standard errors of the parameters, taken from the spread of the law."""
    torch.manual_seed(0)
    metric = Hyperboloid(2)
    loc = torch.tensor([[0.8, 0.0], [-0.9, 0.6]], dtype=F64)
    factor = torch.tensor([[[0.4, 0.0], [0.1, 0.2]], [[0.15, 0.0], [-0.1, 0.4]]], dtype=F64)
    weights = torch.tensor([0.35, 0.65], dtype=F64)
    truth = RiemannianMixture(RiemannianWrappedNormal(loc, None, metric, scale_tril=factor), weights.log())
    points = truth.sample((3000,))
    fit = fit_normals(points, metric, 2)
    assert fit.converged
    assert (fit.log_likelihood.diff() >= 0).all()
    assert fit.log_likelihood[-1] > (truth.log_prob(points) - 0.5 * metric.logdet(points)).mean()
    order = fit.mixture.log_weights.argsort()
    found = fit.mixture.components.scale_tril[order]
    count = weights * len(points)
    covariance = factor @ factor.mT
    error = (covariance.diagonal(dim1=-2, dim2=-1) / count[:, None]).sqrt()
    assert ((fit.mixture.components.loc[order] - loc).abs() < 5 * error).all()
    torch.testing.assert_close(found @ found.mT, covariance, atol=0.03, rtol=0.2)
    torch.testing.assert_close(fit.mixture.log_weights[order].exp(), weights, atol=0.04, rtol=0)


def test_riemannian_normals_on_a_sphere_are_found() -> None:
    torch.manual_seed(0)
    sphere = Sphere(2)
    loc, scale = torch.tensor([[0.8, 0.0], [-0.5, 0.6]], dtype=F64), torch.tensor([0.3, 0.15], dtype=F64)
    truth = RiemannianMixture(RiemannianNormal(loc, scale, sphere), torch.tensor([0.7, 0.3], dtype=F64).log())
    fit = fit_normals(truth.sample((2000,)), sphere, 2, family="riemannian")
    assert fit.converged
    order = fit.mixture.log_weights.argsort(descending=True)
    torch.testing.assert_close(fit.mixture.components.scale[order], scale, rtol=0.08, atol=0)
    assert (sphere.dist(fit.mixture.components.loc[order], loc) < 0.05).all()


@pytest.mark.slow
def test_normals_on_the_local_metric_follow_the_data() -> None:
    """Points on half a circle: the centre of a Gaussian lies inside of it, that of the adaptive normal on it."""
    generator = torch.Generator().manual_seed(0)
    angle = torch.pi * torch.rand(50, dtype=F64, generator=generator)
    points = torch.stack([angle.cos(), angle.sin()], -1) + 0.04 * torch.randn(50, 2, dtype=F64, generator=generator)
    metric = LocalMetric(points, 0.15, 0.005).tabulate(-1.6, 1.9, 60)
    fit = fit_normals(points, metric, 1, num_steps=2, tolerance=1e-3)
    assert points.mean(0).norm() < 0.75
    assert fit.mixture.components.loc.norm() > 0.85
    assert (fit.log_likelihood.diff() >= 0).all()


def test_shapes_and_bad_arguments() -> None:
    points = clouds()
    law = fit_normals(points, EuclideanMetric(2), 3, num_steps=1).mixture
    assert law.expand((4,)).log_prob(points[:4]).shape == (4,)
    assert law.sample((5,)).shape == (5, 2)
    assert law.responsibilities(points).shape == (250, 3)
    for arguments, options, message in (
        ((points, EuclideanMetric(2), 0), {}, "num_components"),
        ((points, EuclideanMetric(2), 2), {"family": "student"}, "family"),
        ((points, EuclideanMetric(2), 2), {"min_variance": 0.0}, "min_variance"),
        ((torch.ones(9, 3), Sphere(2), 2), {}, "from_ambient"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_normals(*arguments, **options)  # type: ignore[arg-type]
