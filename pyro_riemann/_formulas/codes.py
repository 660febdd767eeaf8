"""Codes: laws fitted to them, curves between them, and the table of samplers of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pyro_riemann._decoded import OutputError, outputs
from pyro_riemann._formulas import Array
from pyro_riemann._formulas.novelty import CodeDistances, novelty

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture


def check_enough(shape: tuple[int, ...], num_components: int) -> None:
    """Refuse codes of this shape that are no rows, or fewer than components."""
    if len(shape) != 2 or shape[0] < num_components:
        raise ValueError(f"`codes` must be at least {num_components} rows, got shape {shape}.")


def thinned(codes: Array, max_codes: int) -> Array:
    """At most so many evenly spaced rows of ``codes`` ``(n, d)``."""
    return codes[:: -(-len(codes) // max_codes)]


def fitted_mixture(rows: np.ndarray, num_components: int, seed: int) -> GaussianMixture:
    """Gaussians with full covariances, fitted by scikit-learn to ``rows`` ``(n, d)`` in double precision."""
    from sklearn.mixture import GaussianMixture

    # scikit-learn's 1e-6 is an absolute variance: at the codes' own scale it neither bites nor fails
    floor = max(1e-6 * float(rows.var(0).mean()), 1e-12)
    return GaussianMixture(num_components, random_state=seed, reg_covar=floor).fit(rows)


def check_posteriors(loc: tuple[int, ...], scale: tuple[int, ...]) -> None:
    """Refuse shapes that are not of means ``(n, d)`` and of their standard deviations or Cholesky factors."""
    if len(loc) != 2 or not loc[0] or scale not in (loc, (*loc, loc[-1])):
        raise ValueError(
            "`loc` and `scale` must have shapes (n, d), or `scale` (n, d, d) for Cholesky factors, got "
            f"{loc} and {scale}."
        )


def from_noise(loc: Array, scale: Array, noise: Array) -> Array:
    """Draws of normals ``(n, d)``, of which ``scale`` has the standard deviations or the Cholesky factors."""
    return loc + (scale * noise if scale.ndim == 2 else (scale @ noise[..., None])[..., 0])


KINDS = ("geodesic", "volume", "line")
FINE = 512  # points of the curve from which its length in the chart is summed
LOOKS = 65  # points of a line at which the determinant is looked up
BARE = 0.05  # least coverage of a curve that is passed over in silence

NOT_FINITE = (
    "A curve of kind {kind!r} is not finite: the metric varies by more orders of magnitude between `start` and `end` "
    "than its dtype holds. Use float64, a larger `regularization` or `bandwidth`."
)
ON_FLOOR = (
    "The metric is just its floor on all but {coverage:.2f} of the interpolation: no code is near, and the curve there "
    "is the straight line. Use a larger `bandwidth` or more centroids; `metric.coverage(codes)` should be near 1."
)


def data_of(result: object, array: type, law: Any) -> Array:
    """The data in what a decoder returned: an array, the first of a tuple, the only one of a mapping, or a law's mean.

    Args:
        result: what it returned.
        array: class of arrays.
        law: class, or classes, of distributions.
    """
    first = result[0] if isinstance(result, tuple) and result else result
    try:
        (decoded, *_) = outputs(first, output=None, array=array, law=law)
    except OutputError as error:
        raise TypeError(
            f"`decoder` must return a tensor, or what holds just one, got a {type(first).__name__}: give one that "
            "takes the data out, such as `lambda z: model.decode(z).sample`."
        ) from error
    return decoded.mean if isinstance(decoded, law) else decoded


Law = TypeVar("Law")


def all_laws(baselines: Mapping[str, Law], metrics: Mapping[str, Law], samplers: Mapping[str, Law]) -> dict[str, Law]:
    """One mapping; raises where two rows would have one name."""
    if len({*baselines, *metrics, *samplers}) < len(baselines) + len(metrics) + len(samplers):
        raise ValueError(f"`metrics` and `samplers` must have names that no other row has; taken: {sorted(baselines)}.")
    return {**baselines, **metrics, **samplers}


def row(
    drawn: Array, codes: Array, unseen: Array, frechet: float, recall: float, reach: CodeDistances | None
) -> dict[str, float]:
    """What the table says of one sampler.

    Args:
        drawn: features of its decoded draws, ``(m, p)``, of NumPy.
        codes: those of training codes.
        unseen: those of draws of held-out posteriors.
        frechet: distance of its features to those of real data.
        recall: of real data.
        reach: of the draws of a kernel metric.
    """
    found = novelty(drawn, codes, unseen)
    return {
        "frechet": frechet,
        "novelty": found.ratio,
        "coverage": found.coverage,
        "recall": recall,
        "to_codes": math.nan if reach is None else reach.draws,
        "effective": math.nan if reach is None else reach.effective,
    }
