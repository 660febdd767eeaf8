"""Chains of any sampler as ArviZ data, and a table that says whether to trust them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._arviz import Summary, judge, to_arviz
from pyro_riemann._work import announced
from pyro_riemann.numpyro.geodesics import GeodesicSolver
from pyro_riemann.numpyro.metrics import RiemannianMetric

_ACCURATE = dataclasses.asdict(GeodesicSolver(num_knots=16, num_segments=64, init="graph", on_failure="ignore"))

__all__ = ["Summary", "summary", "to_arviz"]


@announced
def summary(
    result: Any,
    metric: RiemannianMetric | None = None,
    *,
    var_names: str | Sequence[str] | None = None,
    loc: Array | None = None,
    num_geodesics: int = 200,
) -> Summary:
    """Judge chains: moments with their errors, R-hat, effective sizes, divergences, geometry.

    Args:
        result: anything that :func:`to_arviz` takes.
        metric: the metric of the latent space; adds the geometric checks, over every variable whose last axis
            has length ``metric.dim``. Draws on the floor are counted where the metric tells
            ``coverage`` (:class:`~pyro_riemann.numpyro.KernelMetric`).
        var_names: the variables to show and check; all by default.
        loc: ``(d,)``, centre from which geodesics are solved; the prior's centre is the natural choice. The mean of
            the draws by default.
        num_geodesics: number of draws, equally spaced, to which a geodesic is solved; 0 skips that check. The settings
            are accurate ones from graph starts, not the metric's own: those of a training judge themselves.

    Returns:
        A ``DataFrame`` with the columns mean, sd, mcse_mean, mcse_sd, ess_bulk, ess_tail and r_hat (rank-normalised,
        split: Vehtari et al. 2021), which carries the checks of the whole run as :attr:`Summary.divergences`,
        :attr:`Summary.floor_share`, :attr:`Summary.converged_share`.

    Raises:
        ValueError: as :func:`to_arviz`; if a variable is missing, or none has the metric's dimension.
        TypeError, ImportError: as :func:`to_arviz`.

    Example:
        >>> draws = jax.random.normal(jax.random.key(0), (4, 500, 2))
        >>> table = summary({"z": draws}, EuclideanMetric(2))
        >>> table.shape, table.converged_share, bool(table["r_hat"].max() < 1.01)
        ((2, 7), 1.0, True)
    """
    if metric is None:
        return judge(result, var_names)

    def shares(draws: np.ndarray, chosen: np.ndarray) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        points, ends = _like(metric, draws), _like(metric, chosen)
        if (coverage := metric.coverage(points)) is not None:
            found["floor_share"] = 1.0 - float(coverage)
        if len(ends):
            centre = points.mean(0) if loc is None else jnp.asarray(loc, points.dtype)
            curves = metric.geodesic(jnp.broadcast_to(centre, ends.shape), ends, **_ACCURATE)
            found["converged_share"] = float(curves.converged.mean())
        return found

    return judge(result, var_names, metric.dim, num_geodesics, shares)


def _like(metric: RiemannianMetric, array: np.ndarray) -> Array:
    """The array with the dtype of the metric's first floating leaf."""
    for leaf in jax.tree.leaves(metric):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.asarray(array, leaf.dtype)
    return jnp.asarray(array)
