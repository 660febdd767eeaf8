"""The law to be sampled: a metric on a box, checked at the door."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_riemann._memo import remember
from pyro_riemann.distributions import RiemannianUniform
from pyro_riemann.distributions._base import check_metric
from pyro_riemann.distributions._box import log_volume_slope
from pyro_riemann.distributions._box_fit import Fitted, fit_proposal
from pyro_riemann.distributions._uniform import check_chart
from pyro_riemann.metrics import KernelMetric, RiemannianMetric

MARGIN = 4.0  # standard deviations of the bumps by which the default box exceeds the centroids


class Target(NamedTuple):
    """The Riemannian uniform of a metric on a box.

    Attributes:
        metric: the metric.
        low: lower corner, ``(d)``.
        high: upper corner, ``(d)``.
        generator: of all random numbers.
    """

    metric: RiemannianMetric
    low: Tensor
    high: Tensor
    generator: torch.Generator

    def slopes(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Log of the unnormalised density, ``(n)``, and its gradient, ``(n, d)``."""
        return log_volume_slope(self.metric, z)

    def proposal(self) -> Fitted:
        """The fitted mixture proposal, kept for as long as the metric stays as it is."""
        metric, low, high = self.metric, self.low, self.high
        with torch.no_grad():

            def fit() -> tuple[Fitted, Tensor]:
                fitted = fit_proposal(metric, low, high)
                return fitted, fitted.probe.nodes

            return remember(metric, "proposal", (), (low, high), fit)


def default_box(metric: RiemannianMetric, margin: float = MARGIN) -> tuple[Tensor, Tensor]:
    r"""Bounding box of the bumps of a kernel metric: the centroids and ``margin`` standard deviations around each.

    A bump has the covariance :math:`\rho^2 P_i^{-1} / d`.

    Args:
        metric: a :class:`~pyro_riemann.metrics.KernelMetric`; no other metric knows where its data are.
        margin: number of standard deviations.

    Returns:
        Lower and upper corner, ``(d)`` each.

    Raises:
        ValueError: for another metric.

    Source: C22, eq. 7.

    Example:
        >>> low, high = default_box(KernelMetric(torch.zeros(1, 2), torch.ones(1, 2), bandwidth=1.0), margin=3.0)
        >>> high
        tensor([2.1213, 2.1213])
    """
    if not isinstance(metric, KernelMetric):
        raise ValueError(
            f"`low` and `high` are missing: a {type(metric).__name__} has no centroids to put a box around, and its "
            "uniform law on all of R^d is improper. Give both corners."
        )
    with torch.no_grad():
        precisions = metric.precisions
        if metric.is_diagonal:
            variance = precisions.reciprocal()
        else:
            variance = torch.linalg.inv(precisions).diagonal(dim1=-2, dim2=-1)
        reach = margin * metric.bandwidth * (variance / metric.dim).sqrt()
        return (metric.centroids - reach).amin(0).detach(), (metric.centroids + reach).amax(0).detach()


def target_of(metric: RiemannianMetric, low: Any, high: Any, seed: int | None) -> Target:
    """Check the arguments that all samplers share.

    Raises:
        TypeError, ValueError: naming the argument at fault.
    """
    check_metric(metric)
    if low is None and high is None:
        low, high = default_box(metric)
    # checks the bounds, and that the box is within the metric's chart
    law = RiemannianUniform(metric, low, high, validate_args=True)
    if law.batch_shape:
        raise ValueError(
            f"`low` and `high` must be numbers or have shape ({metric.dim},), got a batch of boxes "
            f"{tuple(law.batch_shape)}; sample them one by one, or with RiemannianUniform(...).sample()."
        )
    check_chart(metric, law.low, law.high)
    low, high = law.low.detach().contiguous(), law.high.detach().contiguous()
    generator = torch.Generator(low.device)
    generator.manual_seed(int(torch.randint(2**62, (), device="cpu")) if seed is None else seed)
    return Target(metric, low, high, generator)


def check_count(name: str, value: int, least: int = 1) -> int:
    """Raise unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"`{name}` must be an int, got {type(value).__name__}.")
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}, got {value}.")
    return value
