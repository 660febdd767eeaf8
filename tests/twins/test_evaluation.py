"""Features and the table of samplers of both faces on the same numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from pyro_riemann import evaluation
from pyro_riemann.numpyro import KernelMetric
from pyro_riemann.numpyro import evaluation as twin
from pyro_riemann.numpyro.sampling import PosteriorSampler
from tests.precision import enable_x64

SCALE = np.array([0.3, 0.3, 0.6])


@pytest.fixture(autouse=True)
def _double():
    with enable_x64():
        yield


def features(count: int, width: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, width)) @ generator.normal(size=(width, width)) + seed


@pytest.mark.parametrize(("count", "width"), [(200, 1), (1300, 3), (20, 30)])
def test_features_have_the_same_distances_and_supports(count: int, width: int) -> None:
    first, second = features(count, width, 0), features(count + 50, width, 1)
    x, y = jnp.asarray(first), jnp.asarray(second)
    exact = evaluation.frechet_distance(torch.as_tensor(first), torch.as_tensor(second))
    assert twin.frechet_distance(x, y) == pytest.approx(exact, rel=1e-5)
    shares = evaluation.precision_recall(torch.as_tensor(first), torch.as_tensor(second))
    assert tuple(twin.precision_recall(x, y)) == tuple(shares)
    assert twin.precision_recall(x, y, num_neighbors=7).recall >= shares.recall


def posteriors(count: int, seed: int) -> tuple[jax.Array, jax.Array]:
    """Codes whose aggregate posterior is N(0, diag(1, 1, 4))."""
    spread = np.sqrt(np.array([1.0, 1.0, 4.0]) - SCALE**2)
    loc = spread * np.random.default_rng(seed).normal(size=(count, 3))
    return jnp.asarray(loc), jnp.broadcast_to(jnp.asarray(SCALE), loc.shape)


def test_the_table_tells_copies_from_honest_draws() -> None:
    train, held_out = posteriors(400, 2), posteriors(300, 3)
    narrow = KernelMetric.from_posterior(*train, 50, factor=0.02, regularization=1e-9)
    table = twin.compare_samplers(
        train, held_out, {"copies": narrow}, lambda z: z * 2, samplers={"held out": PosteriorSampler(*held_out)},
        num_samples=1000, num_centroids=50, num_components=3, key=jax.random.key(0),
    )  # fmt: skip
    # of normal laws with variances (1, 1, 4) and (1, 1, 1), of codes times 2
    assert table.frechet["N(0, I)"] == pytest.approx(4 * (2 - 1) ** 2, rel=0.4)
    for name in ("aggregate posterior", "held-out posterior", "Gaussian mixture", "held out"):
        assert table.frechet[name] < 1.0, name  # of 400 codes and 300 others, which differ by chance
        assert table.novelty[name] == pytest.approx(1.0, abs=0.2), name
        assert table.coverage[name] > 0.9, name
    assert table.novelty["copies"] < 0.1
    assert table.effective["copies"] > 40
    known, unknown = (tuple(torch.as_tensor(np.array(part)) for part in laws) for laws in (train, held_out))
    other = evaluation.compare_samplers(
        (known[0], known[1]), (unknown[0], unknown[1]), num_samples=20, num_centroids=5, num_components=2
    )
    assert list(table.columns) == list(other.columns)


def test_bad_tables() -> None:
    train, held_out = posteriors(40, 0), posteriors(30, 1)
    few = {"num_centroids": 5, "num_components": 2, "num_samples": 20}
    with pytest.raises(ValueError, match="no other row has"):
        twin.compare_samplers(
            train, held_out, samplers={"N(0, I)": PosteriorSampler(*train)}, key=jax.random.key(0), **few
        )
    with pytest.raises(ValueError, match="generated"):
        twin.frechet_distance(train[0], jnp.zeros((5, 2)))
