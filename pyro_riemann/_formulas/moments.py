"""Moments of draws of posteriors."""

from __future__ import annotations

from typing import Any

from pyro_riemann._formulas import Array


def moments_of_draws(xp: Any, draws: Array) -> tuple[Array, Array]:
    """Mean ``(n, d)`` and Cholesky factor of the unbiased covariance ``(n, d, d)`` of draws ``(S, n, d)``.

    Raises:
        ValueError: if there are too few of them.
    """
    if draws.ndim != 3 or draws.shape[0] < 2 * (draws.shape[-1] + 2):
        raise ValueError(
            "`draws` must have shape (num_draws, n, d) with num_draws >= 2 (d + 2), or precisions are mostly noise; "
            f"got {tuple(draws.shape)}."
        )
    loc = draws.mean(0)
    apart = xp.moveaxis(draws - loc, 0, -1)  # (n, d, S)
    return loc, xp.linalg.cholesky(apart @ apart.mT / (draws.shape[0] - 1))
