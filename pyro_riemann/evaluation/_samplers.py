"""Is the geometry worth it? Samplers of codes and their baselines, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_riemann._formulas.codes import all_laws, row
from pyro_riemann._lazy import needs
from pyro_riemann._seed import seeded
from pyro_riemann._work import announced
from pyro_riemann.evaluation._frechet import frechet_distance
from pyro_riemann.evaluation._precision_recall import precision_recall
from pyro_riemann.metrics import RiemannianMetric, k_medoids
from pyro_riemann.sampling import (
    GaussianMixtureSampler,
    LatentSampler,
    NormalSampler,
    PosteriorSampler,
    sample_uniform,
)

Posterior = tuple[Tensor, Tensor]
"""Means ``(n, d)`` and standard deviations ``(n, d)``, or Cholesky factors ``(n, d, d)``."""
_ROWS = 1000  # codes decoded at once


@announced
def compare_samplers(
    train: Posterior,
    held_out: Posterior,
    metrics: Mapping[str, RiemannianMetric] | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
    features: Callable[[Tensor], Tensor] | None = None,
    real: Tensor | None = None,
    samplers: Mapping[str, LatentSampler] | None = None,
    num_samples: int = 2000,
    num_centroids: int = 100,
    num_components: int = 10,
    seed: int = 0,
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
        seed: of all draws; the global random state is not touched.

    Returns:
        A ``pandas.DataFrame``, one row a sampler, with the columns ``frechet``, ``novelty``, ``coverage`` (see
        :meth:`SamplingResult.novelty <pyro_riemann.sampling.SamplingResult.novelty>`), ``recall`` (improved, see
        :func:`precision_recall`; of the real data), and for kernel metrics
        ``to_codes`` and ``effective``, the distance of the draws to the codes and the effective number of centroids
        (:class:`~pyro_riemann.sampling.CodeDistances`).

    Raises:
        TypeError, ValueError: naming the argument at fault.
        ImportError: if torchmetrics, kmedoids or pandas is not installed.

    Source: Ghosh et al. (2020), *From variational to deterministic autoencoders*, section 4; Tomczak & Welling (2018),
    *VAE with a VampPrior* (the aggregate posterior); C22, section 5.

    Example:
        >>> loc, scale = torch.randn(300, 2), torch.full((300, 2), 0.1)
        >>> table = compare_samplers((loc[:200], scale[:200]), (loc[200:], scale[200:]), num_samples=100)
        >>> list(table.columns[:3])
        ['frechet', 'novelty', 'coverage']
    """
    with needs("A table of samplers", "diagnostics"):
        import pandas

    loc, scale = train
    medoids = k_medoids(loc, num_centroids, seed)
    laws: dict[str, LatentSampler | RiemannianMetric] = {
        "N(0, I)": NormalSampler(loc.shape[-1]),
        "medoid + noise": PosteriorSampler(loc[medoids], scale[medoids]),
        "Gaussian mixture": GaussianMixtureSampler(loc, num_components, seed=seed),
        "aggregate posterior": PosteriorSampler(loc, scale),
        "held-out posterior": PosteriorSampler(*held_out),
    }
    laws = all_laws(laws, metrics or {}, samplers or {})

    def seen(data: Tensor) -> Tensor:
        return (data if features is None else features(data)).reshape(len(data), -1)

    def image(codes: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([seen(part if decode is None else decode(part)) for part in codes.split(_ROWS)])

    with seeded(seed):
        unseen = PosteriorSampler(*held_out).sample_each()
        against, other = image(loc), image(unseen)
        target = other if real is None else torch.cat([seen(part) for part in real.split(_ROWS)])
        rows = {}
        for name, law in laws.items():
            reach = None
            if isinstance(law, RiemannianMetric):
                result = sample_uniform(law, num_samples, seed=seed)
                draws, reach = result.draws, result.code_distances
            else:
                draws = law.sample(num_samples).to(loc)
            drawn = image(draws)
            frechet, recall = frechet_distance(target, drawn), precision_recall(target, drawn).recall
            own, known, unknown = (part.cpu().numpy() for part in (drawn, against, other))
            rows[name] = row(own, known, unknown, frechet, recall, reach)
    return pandas.DataFrame.from_dict(rows, orient="index")
