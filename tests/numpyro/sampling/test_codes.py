"""Laws of codes: their moments, their densities on the other face, and draws that their key decides."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from numpy.random import default_rng

from pyro_riemann.numpyro import KernelMetric
from pyro_riemann.numpyro.sampling import (
    GaussianMixtureSampler,
    LatentSampler,
    NormalSampler,
    PosteriorSampler,
    UniformSampler,
    sample_uniform,
)
from pyro_riemann.sampling import GaussianMixtureSampler as TorchMixture

KEY = jax.random.key(0)


def two_groups() -> np.ndarray:
    random = default_rng(0)
    return np.concatenate([0.3 * random.normal(size=(400, 2)) + 2, random.normal(size=(200, 2)) - 2])


def test_the_mixture_is_that_of_the_other_face_and_its_draws_have_its_moments() -> None:
    codes = two_groups()
    sampler = GaussianMixtureSampler(jnp.asarray(codes), num_components=2)
    other = TorchMixture(torch.from_numpy(codes), num_components=2)
    points = default_rng(1).normal(size=(20, 2))
    expected = other.law.log_prob(torch.from_numpy(points))
    np.testing.assert_allclose(sampler.law.log_prob(jnp.asarray(points)), expected, rtol=1e-9)
    draws = sampler.sample(20_000, key=KEY)
    assert abs(float((draws[:, 0] > 0).mean()) - 2 / 3) < 5 * (2 / 9 / 20_000) ** 0.5
    np.testing.assert_allclose(np.cov(draws.T), np.cov(codes.T), atol=0.15)


def test_mixture_of_few_codes_in_many_dimensions() -> None:
    """Codes along a line: their covariance is singular but for the floor, and draws stay with the codes."""
    random = default_rng(0)
    line = 100 * random.normal(size=(70, 1)) * random.normal(size=(1, 16)) + 0.01 * random.normal(size=(70, 16))
    codes = jnp.asarray(line, jnp.float32)
    draws = GaussianMixtureSampler(codes, num_components=2).sample(2000, key=KEY)
    assert draws.dtype == codes.dtype
    assert bool(jnp.isfinite(draws).all())
    length, expected = (jnp.linalg.norm(rows, axis=-1).mean() for rows in (draws, codes))
    assert abs(float(length / expected) - 1) < 0.15


@pytest.mark.parametrize("full", [False, True])
def test_mixture_of_posteriors_has_its_moments(full: bool) -> None:
    random, count = default_rng(0), 40_000
    loc, root = random.normal(size=(5, 3)), random.normal(size=(5, 3, 3))
    scale = np.linalg.cholesky(root @ root.mT + np.eye(3)) if full else np.abs(root[:, 0]) + 0.1
    sampler = PosteriorSampler(jnp.asarray(loc), jnp.asarray(scale))
    draws = np.asarray(sampler.sample(count, key=KEY))
    within = scale @ scale.mT if full else np.stack([np.diag(row**2) for row in scale])
    covariance = within.mean(0) + np.cov(loc.T, ddof=0)
    deviation = np.sqrt(np.diag(covariance))
    assert (np.abs(draws.mean(0) - loc.mean(0)) < 4.5 * deviation / count**0.5).all()
    # the law is no normal one, but its fourth moments are less than three times as large
    error = 6**0.5 * np.outer(deviation, deviation) / count**0.5
    assert (np.abs(np.cov(draws.T) - covariance) < 4.5 * error).all()
    each = PosteriorSampler(jnp.asarray(loc), 1e-9 * jnp.asarray(scale)).sample_each(key=KEY)
    np.testing.assert_allclose(each, loc, atol=1e-7)


def test_draws_are_those_of_their_key() -> None:
    codes = jnp.asarray(two_groups()[::3])
    metric = KernelMetric.from_posterior(codes, jnp.full_like(codes, 0.3), num_centroids=10)
    uniform = UniformSampler(metric)
    laws: list[LatentSampler] = [
        NormalSampler(2),
        GaussianMixtureSampler(codes, 2),
        PosteriorSampler(codes, jnp.ones_like(codes)),
        uniform,
    ]
    for law in laws:
        first, again, other = (law.sample(30, key=jax.random.key(seed)) for seed in (1, 1, 2))
        assert first.shape == (30, 2)
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()
    np.testing.assert_array_equal(first, sample_uniform(metric, 30, key=jax.random.key(1)).draws)
    assert uniform.result is not None
    assert uniform.result.draws.shape == (30, 2)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda x: GaussianMixtureSampler(x[:3], 4), ValueError, "`codes` must be at least 4 rows"),
        (lambda x: GaussianMixtureSampler(x.at[0].set(jnp.inf), 2), ValueError, "`codes` has 2 NaN or infinite"),
        (lambda x: PosteriorSampler(x, x[:5]), ValueError, "`loc` and `scale` must have shapes"),
        (lambda x: PosteriorSampler(x, x.at[0].set(jnp.nan)), ValueError, "`scale` has 2 NaN"),
        (lambda x: NormalSampler(2).sample(3, key=0), TypeError, "`key`"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments(call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call(jnp.asarray(two_groups()))
