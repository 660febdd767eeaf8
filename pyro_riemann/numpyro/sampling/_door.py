"""The arguments that all samplers share, checked at the door."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas.peaks import variances
from pyro_riemann.numpyro._box import check_box, check_metric
from pyro_riemann.numpyro._memo import is_known
from pyro_riemann.numpyro.metrics import KernelMetric, RiemannianMetric
from pyro_riemann.numpyro.sampling._target import Target

MARGIN = 4.0  # standard deviations of the bumps by which the default box exceeds the centroids


def default_box(metric: RiemannianMetric, margin: float = MARGIN) -> tuple[Array, Array]:
    r"""Bounding box of the bumps of a kernel metric: the centroids and ``margin`` standard deviations around each.

    A bump has the covariance :math:`\rho^2 P_i^{-1} / d`.

    Args:
        metric: a :class:`~pyro_riemann.numpyro.KernelMetric`; no other metric knows where its data are.
        margin: number of standard deviations.

    Returns:
        Lower and upper corner, ``(d)`` each.

    Raises:
        ValueError: for another metric.

    Source: C22, eq. 7.

    Example:
        >>> low, high = default_box(KernelMetric(jnp.zeros((1, 2)), jnp.ones((1, 2)), bandwidth=1.0), margin=3.0)
        >>> high.round(3).tolist() == [2.121, 2.121] or bool(jnp.allclose(high, 3 / 2**0.5))
        True
    """
    if not isinstance(metric, KernelMetric):
        raise ValueError(
            f"`low` and `high` are missing: a {type(metric).__name__} has no centroids to put a box around, and its "
            "uniform law on all of R^d is improper. Give both corners."
        )
    loc, covariance = metric.peaks()
    reach = margin * jnp.sqrt(variances(jnp, covariance))
    return (loc - reach).min(0), (loc + reach).max(0)


def target_of(metric: RiemannianMetric, low: Any, high: Any) -> Target:
    """Check the arguments that all samplers share.

    Raises:
        TypeError, ValueError: naming the argument at fault.
    """
    check_metric(metric)
    if low is None and high is None:
        low, high = default_box(metric)
    low, high = check_box(metric, low, high)
    if low.ndim > 1:
        raise ValueError(
            f"`low` and `high` must be numbers or have shape ({metric.dim},), got a batch of boxes {low.shape[:-1]}; "
            "sample them one by one, or with RiemannianUniform(...).sample()."
        )
    if not is_known(metric, low, high):
        raise ValueError("`metric`, `low` and `high` must be known: call samplers outside of `jit`, `vmap` and `grad`.")
    target = Target(metric, low, high)
    target.check()
    return target
