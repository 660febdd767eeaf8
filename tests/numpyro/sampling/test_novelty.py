"""What a result of the twin says of copying: the numbers by hand, and those of the torch side for the same draws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from pyro_riemann import EuclideanMetric as TorchEuclidean
from pyro_riemann.numpyro import EuclideanMetric, KernelMetric
from pyro_riemann.numpyro.sampling import SamplingResult, sample_uniform
from pyro_riemann.sampling import sample_uniform as torch_sample_uniform


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture(scope="module")
def drawn() -> tuple[KernelMetric, SamplingResult]:
    scale = 0.1 + 0.1 * np.abs(normal(30, 2, seed=1))
    metric = KernelMetric.from_posterior(jnp.asarray(normal(30, 2)), jnp.asarray(scale), 30, regularization=1e-6)
    return metric, sample_uniform(metric, 400, key=jax.random.key(0))


def test_distances_to_codes_by_hand(drawn: tuple[KernelMetric, SamplingResult]) -> None:
    metric, result = drawn
    found = result.code_distances
    assert found is not None

    def squared(points: Any) -> np.ndarray:
        apart = np.asarray(points)[:, None] - np.asarray(metric.centroids)
        return (apart**2 * np.asarray(metric.precisions)).sum(-1)

    to_draws = squared(result.draws).min(-1)
    among = squared(metric.centroids)
    np.fill_diagonal(among, np.inf)
    apart = among.min(-1)
    assert found.draws == pytest.approx(np.median(np.sqrt(to_draws / 2)))
    bound = np.sqrt((np.quantile(apart, 0.95) + 5.991464547107979) / 2)  # chi squared with two degrees of freedom
    assert found.bound == pytest.approx(bound)
    assert found.beyond == pytest.approx((to_draws > 2 * bound**2).mean())
    assert 1 < found.effective <= 1.2 * 30
    assert found.num_centroids == 30
    assert "effective centroids" in str(result)


def test_one_centroid_and_other_metrics() -> None:
    alone = sample_uniform(KernelMetric(jnp.zeros((1, 2)), jnp.ones((1, 2)), 1.0, 1e-6), 100, key=jax.random.key(0))
    found = alone.code_distances
    assert found is not None
    assert (found.effective, found.num_centroids, found.far) == (1.0, 1, False)
    flat = sample_uniform(EuclideanMetric(2), 10, 0.0, 1.0, key=jax.random.key(0))
    assert flat.code_distances is None


def test_novelty_is_that_of_the_torch_side(drawn: tuple[KernelMetric, SamplingResult]) -> None:
    train, held_out, fresh = (normal(300, 2, seed=seed) for seed in range(3))
    result = replace(drawn[1], draws=jnp.asarray(fresh))
    other = replace(torch_sample_uniform(TorchEuclidean(2), 10, 0.0, 1.0, seed=0), draws=torch.tensor(fresh))

    def decode(codes: Any) -> Any:
        return (jnp if isinstance(codes, jax.Array) else torch).stack([codes, codes**2], -1)

    for image in (None, decode):
        found = result.novelty(jnp.asarray(train), jnp.asarray(held_out), image)
        expected = other.novelty(torch.tensor(train), torch.tensor(held_out), image)
        np.testing.assert_allclose(
            [found.draws, found.held_out, found.ratio, found.coverage],
            [expected.draws, expected.held_out, expected.ratio, expected.coverage],
            rtol=1e-9,
        )
        assert found.ratio == pytest.approx(1.0, abs=0.2)
    copies = replace(result, draws=jnp.asarray(train + 1e-3)).novelty(jnp.asarray(train), jnp.asarray(held_out))
    assert copies.ratio == pytest.approx(2**0.5 * 1e-3 / copies.held_out)
    assert replace(result, draws=jnp.asarray(fresh + 100)).novelty(train, held_out).coverage == 0.0


def test_bad_items(drawn: tuple[KernelMetric, SamplingResult]) -> None:
    result, train = drawn[1], normal(20, 2, seed=1)
    for held_out, match in [
        (train, "rows of `train`"),
        (normal(20, 3), "as wide as the draws"),
        (train[:5], "more than 5 rows"),
        (train * np.nan, "NaN"),
    ]:
        with pytest.raises(ValueError, match=match):
            result.novelty(train, held_out)
    with pytest.raises(TypeError, match="`train`"):
        result.novelty([1.0], train)  # type: ignore[arg-type]


def test_novelty_of_images_that_are_scaled_codes() -> None:
    """Images three times as long as their codes lie three times as far apart, and their ratio is the same."""
    result = sample_uniform(EuclideanMetric(1), 40, 0.0, 1.0, key=jax.random.key(0))
    train, held_out = (jnp.asarray(np.random.default_rng(seed).uniform(size=(40, 1))) for seed in range(2))
    codes, images = (result.novelty(train, held_out, image) for image in (None, lambda codes: 3 * codes))
    assert (images.draws, images.held_out) == pytest.approx((3 * codes.draws, 3 * codes.held_out))
    assert (images.ratio, images.coverage) == pytest.approx((codes.ratio, codes.coverage))
    assert codes.draws > 0
