"""What parts of a VAE ask of data, what encoders see of these, and where likelihoods, precisions and priors start."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from pyro_riemann._formulas import Array, Namespace, places

LINKS = ("identity", "sigmoid")
EXPOSURES = ("none", "total")


class Need(NamedTuple):
    """Which of some values are proper, and what to say of the others."""

    values: Array
    proper: Array
    text: str


def refuse(name: str, needs: Iterator[Need], holds: Callable[[Array], bool]) -> None:
    """Raise at the first need that is not met, as far as ``holds`` can see.

    Args:
        name: of the argument.
        needs: in their order.
        holds: whether a mask is true everywhere.
    """
    for values, proper, text in needs:
        if not holds(proper):
            bad = values[~proper]
            total = math.prod(values.shape)
            raise ValueError(f"`{name}` has {len(bad)} of {total} values such as {float(bad[0]):.4g}: {text}.")


def of_sigmoid(x: Array) -> Iterator[Need]:
    """What Gaussian data ask whose mean is a sigmoid."""
    yield Need(x, (x >= 0) & (x <= 1), "a sigmoid needs data in [0, 1]: rescale them")


def of_bits(x: Array) -> Iterator[Need]:
    """What Bernoulli data ask."""
    yield Need(x, (x >= 0) & (x <= 1), "a Bernoulli likelihood needs zeros and ones, nothing outside [0, 1]")
    hint = "binarise grey values by `x > 0.5` or by drawing, or use a Gaussian likelihood"
    yield Need(x, (x == 0) | (x == 1), f"a Bernoulli likelihood needs zeros and ones: {hint}")


def of_categories(x: Array, num_categories: int) -> Iterator[Need]:
    """What data of categories ask."""
    proper = (x >= 0) & (x < num_categories) & (x % 1 == 0)
    yield Need(x, proper, f"a categorical likelihood needs whole numbers from 0 to {num_categories - 1}")


def of_counts(x: Array, exposure: str) -> Iterator[Need]:
    """What counts ``(*batch, D)`` ask, with one of :data:`EXPOSURES`."""
    yield Need(x, (x >= 0) & (x % 1 == 0), "a likelihood of counts needs whole numbers from 0 on")
    if exposure == "total":
        total = x.sum(-1)
        yield Need(total, total > 0, "the exposure of a datum, its total count, must be positive")


def one_hot(xp: Namespace, x: Array, num_categories: int) -> Array:
    """Categories ``(*batch, D)`` as unit vectors ``(*batch, D k)``: no encoder should take their numbers for amounts.

    By distance, so that learned pseudo-inputs between two categories have a gradient.
    """
    apart = xp.abs(x[..., None] - places(xp, np.arange(num_categories), x))
    return xp.clip(1 - apart, 0, None).reshape(*x.shape[:-1], -1)


def log_counts(xp: Namespace, x: Array) -> Array:
    """log(1 + x), as counts span orders of magnitude; learned pseudo-inputs may leave the counts."""
    return xp.log1p(xp.clip(x, 0, None))


def logit(xp: Namespace, mean: Array, margin: float = 0.02) -> Array:
    """Log odds of means in [0, 1], at most those of the margin."""
    inner = xp.clip(mean, margin, 1 - margin)
    return xp.log(inner) - xp.log1p(-inner)


def units_of(xp: Namespace, data: Array) -> tuple[Array, Array]:
    """Mean of each entry of ``data`` ``(n, D)``, and one standard deviation for all; 1 for constant data."""
    mean = data.mean(0)
    deviation = xp.sqrt(((data - mean) ** 2).mean())
    return mean, xp.where(deviation > 0, deviation, 1.0)


def gaussian_start(xp: Namespace, data: Array, link: str) -> tuple[Array, Array, Array]:
    """Outputs ``(D,)`` at which Gaussian data ``(n, D)`` have their mean, their unit and the standard deviation."""
    mean = data.mean(0)
    deviation = xp.clip(xp.sqrt(((data - mean) ** 2).mean()), 1e-6, None)
    return (logit(xp, mean), xp.ones_like(deviation), deviation) if link == "sigmoid" else (mean, deviation, deviation)


def categorical_start(xp: Namespace, data: Array, num_categories: int) -> Array:
    """Log shares ``(D k,)`` of the categories in ``data`` ``(n, D)``, each counted once more than it was seen."""
    counts = one_hot(xp, data, num_categories).sum(0).reshape(-1, num_categories) + 1
    return xp.log(counts / counts.sum(-1)[..., None]).reshape(-1)


def count_start(xp: Namespace, data: Array, reference: Array) -> Array:
    """Outputs ``(D,)`` at which counts ``(n, D)`` have their mean at the ``reference`` exposure.

    An entry that was never seen has half a count in all.
    """
    return xp.log(xp.clip(data.mean(0), 0.5 / len(data), None) / reference)


def check_codes(codes: np.ndarray, dim: int, bandwidth: float | None) -> np.ndarray:
    """The codes, if they are ``(n, dim)`` and the bandwidth is none or positive."""
    if codes.ndim != 2 or codes.shape[-1] != dim:
        raise ValueError(f"`codes` must have shape (n, {dim}), got {codes.shape}.")
    if bandwidth is not None and not bandwidth > 0:
        raise ValueError(f"`bandwidth` must be positive, got {bandwidth}.")
    return codes


def check_residuals(residuals: Array, count: int, data_dim: int) -> Array:
    """The residuals, if they are ``(count, data_dim)``."""
    if residuals.shape != (count, data_dim):
        raise ValueError(f"`residuals` must have shape {(count, data_dim)}, got {tuple(residuals.shape)}.")
    return residuals


def cluster_centers(codes: np.ndarray, num_centers: int, seed: int) -> np.ndarray:
    """Centres ``(num_centers, d)`` of codes ``(n, d)``, by scikit-learn."""
    from sklearn.cluster import KMeans

    distinct = len(np.unique(codes, axis=0))
    if distinct < num_centers:
        raise ValueError(
            f"{num_centers} centres need as many distinct codes, got {distinct}: lower `num_centers` or encode more "
            "data."
        )
    centers: np.ndarray = KMeans(num_centers, n_init=1, random_state=seed).fit(codes).cluster_centers_
    return centers


def nearest_centers(codes: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which centre is nearest to each code, ``(n,)``, and how far."""
    from sklearn.metrics import pairwise_distances_argmin_min

    nearest, distance = pairwise_distances_argmin_min(codes, centers)
    return nearest, distance


def bandwidths(xp: Namespace, radius: Array, median: float, given: float | None, factor: float) -> Array:
    """Bandwidths of clusters with these mean radii ``(K,)``; ``median`` is that of those above 0."""
    # a cluster of one code has radius 0: a spike, not a bump
    return xp.full_like(radius, given) if given is not None else factor * xp.clip(radius, 0.5 * median, None)


def log_weights(xp: Namespace, total: Array, counts: Array, overall: Array, min_scale: float, apart: Array) -> Array:
    """Log weights ``(D, K)`` for which the precision at a centre is the inverse mean residual of its cluster.

    Args:
        xp: the array namespace.
        total: sums of squared residuals in the clusters, ``(K, D)``.
        counts: of their codes, ``(K, 1)``.
        overall: mean squared residual of all data, ``(D,)``.
        min_scale: least standard deviation.
        apart: distances of the centres, in units of the bandwidth of the second, ``(K, K)``.
    """
    variance = (total + 5 * overall) / (counts + 5)  # shrunk: a small cluster knows little
    target = 1 / (variance + max(min_scale, 1e-3) ** 2)
    # basis functions overlap: divide by their sum at each centre, so that they add up to the target
    overlap = xp.exp(-0.5 * apart**2).sum(-1)
    return xp.log(xp.clip(target / overlap[:, None], 1e-6, None)).mT


def heat_kernel_start(
    squared_dist: Callable[[Array, Array], Array], codes: Array, candidates: int, sample: int
) -> tuple[Array, Array]:
    """A code with small mean squared distance to the others, ``(d,)``, and that distance over d, the time.

    Args:
        squared_dist: of batches of points.
        codes: ``(n, d)``.
        candidates: how many codes in the middle are tried.
        sample: how many codes stand for all.
    """
    probes = codes[:: max(1, len(codes) // sample)][:sample]
    middle = ((probes - probes.mean(0)) ** 2).sum(-1).argsort()[:candidates]
    mean = squared_dist(probes[middle, None], probes[None]).mean(-1)
    best = int(mean.argmin())
    return probes[middle[best]], mean[best] / codes.shape[-1]
