"""Mixtures of Gaussians fitted to codes, and posteriors to draw codes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyro_riemann._formulas import Array

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
