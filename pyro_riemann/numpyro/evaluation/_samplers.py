"""Is the geometry worth it? Samplers of codes and their baselines, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas.codes import all_laws, row
from pyro_riemann._lazy import needs
from pyro_riemann.numpyro._checks import check_key
from pyro_riemann.numpyro.evaluation._features import frechet_distance, precision_recall
from pyro_riemann.numpyro.metrics import RiemannianMetric, k_medoids
from pyro_riemann.numpyro.sampling import (
    GaussianMixtureSampler,
    LatentSampler,
    NormalSampler,
    PosteriorSampler,
    sample_uniform,
)

Posterior = tuple[Array, Array]
"""Means ``(n, d)`` and standard deviations ``(n, d)``, or Cholesky factors ``(n, d, d)``."""
_ROWS = 1000  # codes decoded at once


def compare_samplers(
    train: Posterior,
    held_out: Posterior,
    metrics: Mapping[str, RiemannianMetric] | None = None,
    decode: Callable[[Array], Array] | None = None,
    features: Callable[[Array], Array] | None = None,
    real: Array | None = None,
    samplers: Mapping[str, LatentSampler] | None = None,
    num_samples: int = 2000,
    num_centroids: int = 100,
    num_components: int = 10,
    seed: int = 0,
    *,
    key: Array,
) -> Any:
    r"""A table of samplers of codes: the uniform laws of metrics beside baselines without geometry.

    The baselines: ``"N(0, I)"``; ``"medoid + noise"``, the posteriors at the k-medoids; ``"Gaussian mixture"``,
    fitted to the means; ``"aggregate posterior"``, the mixture of the posteriors of all training data, with their own
    covariances; ``"held-out posterior"``, the same of the held-out data: what the best sampler would give.

    Frechet distances are between features of decoded draws and of the real data; novelty and coverage compare images of
    draws with images of training codes and of draws of held-out posteriors, in the same features.

    Args:
        train: posteriors of the training data.
        held_out: posteriors of data that no sampler has seen, at least 6.
        metrics: metrics, by the names that their rows get.
        decode: maps codes ``(n, d)`` to data; default: codes as they are.
        features: maps data to features ``(n, p)``; default: data as they are, flattened.
        real: held-out data ``(m, ...)`` as ``decode`` makes them, for the Frechet distance; default: the decoded draws
            of held-out posteriors.
        samplers: more laws of codes, by their names.
        num_samples: draws from each.
        num_centroids: medoids of the baseline.
        num_components: of the mixture of Gaussians.
        key: of all draws, one key of ``jax.random``.
        seed: of the medoids and of the mixture's fit.

    Returns:
        A ``pandas.DataFrame``, one row a sampler, with the columns ``frechet``, ``novelty``, ``coverage`` (see
        :meth:`SamplingResult.novelty <pyro_riemann.numpyro.sampling.SamplingResult.novelty>`), ``recall`` (improved,
        see :func:`precision_recall`; of the real data), and for kernel metrics
        ``to_codes`` and ``effective``, the distance of the draws to the codes and the effective number of centroids
        (:class:`~pyro_riemann.numpyro.sampling.CodeDistances`).

    Raises:
        TypeError, ValueError: naming the argument at fault.
        ImportError: if kmedoids or pandas is not installed.

    Source: Ghosh et al. (2020), *From variational to deterministic autoencoders*, section 4; Tomczak & Welling (2018),
    *VAE with a VampPrior* (the aggregate posterior); C22, section 5.

    Example:
        >>> loc, scale = jax.random.normal(jax.random.key(0), (300, 2)), jnp.full((300, 2), 0.1)
        >>> table = compare_samplers(
        ...     (loc[:200], scale[:200]), (loc[200:], scale[200:]), num_samples=100, key=jax.random.key(1))
        >>> list(table.columns[:3])
        ['frechet', 'novelty', 'coverage']
    """
    with needs("A table of samplers", "diagnostics"):
        import pandas

    loc, scale = train
    medoids = k_medoids(loc, num_centroids, seed)
    unseen_law = PosteriorSampler(*held_out)
    laws: dict[str, LatentSampler | RiemannianMetric] = {
        "N(0, I)": NormalSampler(loc.shape[-1]),
        "medoid + noise": PosteriorSampler(loc[medoids], scale[medoids]),
        "Gaussian mixture": GaussianMixtureSampler(loc, num_components, seed=seed),
        "aggregate posterior": PosteriorSampler(loc, scale),
        "held-out posterior": unseen_law,
    }
    laws = all_laws(laws, metrics or {}, samplers or {})

    def seen(data: Array) -> np.ndarray:
        return np.asarray(data if features is None else features(data)).reshape(len(data), -1)

    def in_parts(data: Array, function: Callable[[Array], np.ndarray]) -> np.ndarray:
        return np.concatenate([function(data[at : at + _ROWS]) for at in range(0, len(data), _ROWS)])

    def image(codes: Array) -> np.ndarray:
        return in_parts(codes, seen if decode is None else lambda part: seen(decode(part)))

    first, *keys = jax.random.split(check_key(key), len(laws) + 1)
    against, other = image(loc), image(unseen_law.sample_each(key=first))
    target = other if real is None else in_parts(real, seen)
    rows = {}
    for (name, law), own in zip(laws.items(), keys, strict=True):
        reach = None
        if isinstance(law, RiemannianMetric):
            result = sample_uniform(law, num_samples, key=own)
            draws, reach = result.draws, result.code_distances
        else:
            draws = law.sample(num_samples, key=own)
        drawn = image(jnp.asarray(draws, loc.dtype))
        frechet, recall = frechet_distance(target, drawn), precision_recall(target, drawn).recall
        rows[name] = row(drawn, against, other, frechet, recall, reach)
    return pandas.DataFrame.from_dict(rows, orient="index")
