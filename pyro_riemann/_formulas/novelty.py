"""How far draws lie from codes, and codes from each other: in the norms of a kernel metric, and in Euclidean ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from pyro_riemann._formulas import Array

CROWDED, FEW = 0.1, 20  # share of the centroids that draws must reach, of at least so many, lest a warning be given
FAR = 0.5  # share of draws beyond the reach of codes above which a sample is warned of
_QUANTILE = 0.95  # of the codes' own distances
_DRAWS = 2000  # draws, and centroids, that are measured at most
_ENTRIES = 2**22  # of a table of distances


@dataclass(frozen=True)
class CodeDistances:
    r"""How far draws lie from the codes of a kernel metric, and codes from each other.

    Lengths are :math:`|\cdot|_{P_i} / \sqrt d` to the centroid :math:`c_i` where they are least: posterior standard
    deviations an axis. A draw of a posterior lies about 1 from its own mean.

    Attributes:
        draws: median of the draws' distances to the nearest centroid.
        codes: median over the centroids of the distance of a draw of the posterior there to the nearest other
            centroid; NaN with one centroid.
        bound: the 95 % quantile of the same, by the 95 % quantile of the posterior's length too.
        beyond: share of the draws farther from all centroids than ``bound``; above one half the sampler warns.
        effective: effective number of centroids, the inverse probability that two draws have the same nearest centroid,
            without bias; at most the number of centroids. Below a tenth of it the draws crowd on a few codes, of which
            the sampler warns.
        num_centroids: how many there are.

    Example:
        >>> CodeDistances(7.6, 5.0, 6.0, 0.9, 12.0, 100).far
        True
    """

    draws: float
    codes: float
    bound: float
    beyond: float
    effective: float
    num_centroids: int

    @property
    def far(self) -> bool:
        """Whether more than half of the draws lie beyond the bound."""
        return self.beyond > FAR

    @property
    def crowded(self) -> bool:
        """Whether the draws crowd on less than a tenth of the centroids; of few centroids nothing is said."""
        return self.num_centroids >= FEW and self.effective < CROWDED * self.num_centroids

    def __str__(self) -> str:
        return (
            f"draws lie {self.draws:.2g} posterior standard deviations an axis from the nearest centroid, codes "
            f"{self.codes:.2g} from each other (95 %: {self.bound:.2g}; {self.beyond:.1%} of the draws beyond)\n"
            f"effective centroids {self.effective:.0f} of {self.num_centroids}"
        )

    def warning(self) -> list[str]:
        """What to say of draws that lie far from all codes, or crowd on a few."""
        said = []
        if self.far:
            said.append(
                f"This sample: {self.beyond:.0%} of the draws lie farther than {self.bound:.2g} posterior standard "
                f"deviations an axis from every centroid (median {self.draws:.2g}), which 95 % of the codes keep from "
                'each other: a decoder has seen nothing like them. Lower `bandwidth`, or take `"posterior"`.'
            )
        if self.crowded:
            said.append(
                f"This sample: the draws crowd on {self.effective:.0f} of {self.num_centroids} centroids. Where n "
                "kernels overlap, sqrt(det G) is n^(d/2) times that of one. Lower `bandwidth`, or take "
                '`"posterior"`.'
            )
        return said


def code_distances(draws: Array, centroids: Array, precisions: Array) -> CodeDistances:
    """Distances of draws ``(n, d)`` to centroids ``(k, d)``, by precisions ``(k, d)`` or ``(k, d, d)``, of NumPy."""
    num, dim = centroids.shape
    draws = draws[:: -(-len(draws) // _DRAWS)].astype(np.float64)
    some = np.arange(num)[:: -(-num // _DRAWS)]
    centroids, precisions = centroids.astype(np.float64), precisions.astype(np.float64)
    squared, place = _nearest_kernel(draws, centroids, precisions, None)
    bound = codes = float("nan")
    beyond = 0.0
    if num > 1:
        apart, _ = _nearest_kernel(centroids[some], centroids, precisions, some)
        codes = float(np.median(np.sqrt(apart / dim + 1)))
        bound = float(
            np.sqrt((np.quantile(apart, _QUANTILE) + 2 * scipy.special.gammaincinv(dim / 2, _QUANTILE)) / dim)
        )
        beyond = float((squared > bound**2 * dim).mean())
    counts, n = np.bincount(place), len(draws)
    same = float((counts * (counts - 1)).sum()) / max(1, n * (n - 1))
    effective = min(float(num), 1 / same if same else float(n) ** 2)
    return CodeDistances(float(np.median(np.sqrt(squared / dim))), codes, bound, beyond, effective, num)


def _nearest_kernel(points: Array, centroids: Array, precisions: Array, own: Array | None) -> tuple[Array, Array]:
    """Least squared distances ``(n,)`` and which centroid; ``own`` are the centroids that points are, not counted."""
    centre = centroids.mean(0)
    points, centroids = points - centre, centroids - centre
    full = precisions.ndim == 3
    shifted = np.einsum("kij,kj->ki", precisions, centroids) if full else precisions * centroids
    columns = np.concatenate(
        [precisions.reshape(len(centroids), -1), -2 * shifted, (shifted * centroids).sum(-1, keepdims=True)], -1
    )
    rows = max(1, _ENTRIES // max(len(centroids), columns.shape[-1]))
    least, place = [], []
    for start in range(0, len(points), rows):
        z = points[start : start + rows]
        square = (z[:, :, None] * z[:, None, :]).reshape(len(z), -1) if full else z * z
        found = np.concatenate([square, z, np.ones_like(z[:, :1])], -1) @ columns.T
        if own is not None:
            found[np.arange(len(z)), own[start : start + rows]] = np.inf
        place.append(found.argmin(-1))
        least.append(np.maximum(found.min(-1), 0))
    return np.concatenate(least), np.concatenate(place)


@dataclass(frozen=True)
class Novelty:
    """Distances of draws to the nearest training item against those of held-out items, of which they cover a share.

    Attributes:
        ratio: median distance of draws to the nearest training item, over that of held-out items. About 1: as new as
            real data; far below: copies; far above: unlike the data.
        draws: the median of the draws.
        held_out: the median of the held-out items.
        coverage: share of the held-out items with a draw nearer than their fifth nearest held-out neighbour.

    Example:
        >>> Novelty(0.1, 0.5, 5.0, 0.8).ratio
        0.1
    """

    ratio: float
    draws: float
    held_out: float
    coverage: float

    def __str__(self) -> str:
        return (
            f"novelty ratio {self.ratio:.2f} (to the nearest training item: draws {self.draws:.3g}, held-out items "
            f"{self.held_out:.3g}); {self.coverage:.1%} of the held-out items covered"
        )


def novelty(draws: Array, train: Array, held_out: Array, neighbors: int = 5) -> Novelty:
    """Novelty and coverage of draws ``(n, p)`` against training ``(N, p)`` and held-out items ``(m, p)``.

    Raises:
        ValueError: if these are no finite matrices of one width, or the held-out items are training items.
    """
    for name, value in (("draws", draws), ("train", train), ("held_out", held_out)):
        if value.ndim != 2 or not len(value) or value.shape[-1] != draws.shape[-1]:
            raise ValueError(
                f"`{name}` must be a matrix (n, {draws.shape[-1]}) as wide as the draws, got {tuple(value.shape)}."
            )
        if not np.isfinite(value).all():
            raise ValueError(f"`{name}` has NaN or infinite entries.")
    if len(held_out) <= neighbors:
        raise ValueError(f"`held_out` must have more than {neighbors} rows, got {len(held_out)}.")
    draws, train, held_out = (value.astype(np.float64) for value in (draws, train, held_out))
    near, far = (float(np.median(_smallest(part, train, 1))) for part in (draws, held_out))
    if far == 0:
        raise ValueError("`held_out` has rows that are rows of `train`: most lie at distance 0. Give items held out.")
    radius = _smallest(held_out, held_out, neighbors + 1)  # the first is the item itself
    covered = float((_smallest(held_out, draws, 1) <= radius).mean())
    return Novelty(near / far, near, far, covered)


def _smallest(queries: Array, data: Array, rank: int) -> Array:
    """Distances ``(n,)`` of queries to their nearest row of ``data`` of a rank, from 1."""
    found = []
    centre = data.mean(0)
    data, length = data - centre, ((data - centre) ** 2).sum(-1)
    for start in range(0, len(queries), rows := max(1, _ENTRIES // len(data))):
        part = queries[start : start + rows] - centre
        place = np.argpartition(length - 2 * part @ data.T, rank - 1, axis=-1)[:, rank - 1]
        # the expanded square finds the row; its own distance is taken without the cancellation
        found.append(np.sqrt(((part - data[place]) ** 2).sum(-1)))
    return np.concatenate(found)


def as_matrix(value: Any) -> Array:
    """Rows of anything as a NumPy matrix: images are flattened."""
    array = np.asarray(value)
    return array.reshape(len(array), -1) if array.ndim > 2 else array
