r"""Radial densities in spaces of constant curvature, where the volume around every point is known.

In geodesic polar coordinates the volume element is :math:`dM = r^{d-1} / V\,dr\,du` with
:math:`V = (\sqrt K r / \sin \sqrt K r)^{d-1}`, hyperbolic where K is negative. Integrals of radial functions are
one-dimensional, and their integrands log-concave: that bounds where they end on either side of the mode.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyro_riemann._formulas import Array, Namespace, table

_DROP = 40.0  # nats below the mode at which integrals end
_BISECTIONS = 16
_GAUSS = 96  # nodes of the rule that checks the other one
_CELLS = 1024  # of the table that draws are made from


class RadialLaw(NamedTuple):
    """What a metric may know of its volume: it has constant curvature.

    Attributes:
        curvature: the sectional curvature K; the cut locus is at :math:`\\pi / \\sqrt K` where it is positive.
        periods: of a flat torus, the period of every axis of its chart, ``(d,)``, infinite for a line; else None.

    Example:
        >>> from pyro_riemann._formulas.radial import RadialLaw
        >>> RadialLaw(-1.0).curvature
        -1.0
    """

    curvature: float
    periods: Any = None

    def is_flat(self, dim: int) -> bool:
        """Whether V is 1 and there is no cut locus but that of a torus."""
        return self.curvature == 0 or (dim == 1 and self.curvature < 0)


def log_relative_mass(
    xp: Namespace, curvature: float, dim: int, variance: Array, constant: Array, power: float = 1.0
) -> tuple[Array, Array]:
    r"""Log of :math:`(2 \pi t)^{-d/2} \int V^{1-p} e^{-r^2 / 2t}\,dM` within the cut locus, and a bound on its error.

    ``power`` p is 1 for the Riemannian normal, 1/2 for the heat kernel with its Van Vleck-Morette determinant.
    Differentiable in ``variance`` t, ``(*batch)``, of which ``constant`` is the value without gradient; K is not 0. By
    the tanh-sinh rule; the error is the difference to Gauss-Legendre, and round-off.
    """
    scaled = variance * abs(curvature)
    low, high = _ends(xp, curvature, dim, constant * abs(curvature), power)
    logs = []
    for nodes, log_weights in (_tanh_sinh(), _gauss_legendre()):
        unit = table(xp, nodes, scaled).reshape(-1, *(1,) * scaled.ndim)
        weight = table(xp, log_weights, scaled).reshape(unit.shape)
        x = low + (high - low) * unit
        logs.append(_logsumexp(xp, _log_integrand(xp, curvature, dim, scaled, power, x) + weight) + xp.log(high - low))
    area = math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
    value = logs[0] + area - 0.5 * dim * xp.log(2 * math.pi * scaled)
    round_off = 8 * xp.finfo(scaled.dtype).eps * (1 + xp.abs(logs[0]))
    return value, xp.abs(logs[0] - logs[1]) + round_off


def radial_table(xp: Namespace, curvature: float, dim: int, variance: Array, power: float = 1.0) -> tuple[Array, ...]:
    """Radii ``(*batch, n)``, their density up to a constant, and its cumulative mass, from 0 to 1.

    The density is taken as linear between the radii, which changes the law by 1e-5 in total variation.
    """
    root = abs(curvature) ** 0.5
    scaled = (variance * abs(curvature))[..., None]
    low, high = _ends(xp, curvature, dim, scaled, power)
    x = low + (high - low) * table(xp, np.linspace(0, 1, _CELLS + 1), scaled)
    log_density = _log_integrand(xp, curvature, dim, scaled, power, x)
    density = xp.exp(log_density - xp.amax(log_density, -1)[..., None])
    mass = xp.cumsum(density[..., 1:] + density[..., :-1], -1)
    mass = mass / mass[..., -1:]
    return x / root, density, xp.concatenate([xp.zeros_like(mass[..., :1]), mass], -1)


def within_cell(xp: Namespace, share: Array, left: Array, right: Array) -> Array:
    """Where in a cell of unit width, on which the density goes linearly from ``left`` to ``right``, the mass is split.

    ``share`` of it lies to the left. Stable where both densities are equal or one is 0.
    """
    root = xp.sqrt(left**2 + share * (right**2 - left**2))
    below = left + root
    tiny = xp.finfo(below.dtype).tiny
    return xp.clip(share * (left + right) / xp.where(below > tiny, below, xp.ones_like(below)), min=0.0, max=1.0)


def _log_integrand(xp: Namespace, curvature: float, dim: int, scaled: Array, power: float, x: Array) -> Array:
    """``-x^2 / 2t + (d - 1) ((1 - p) log x + p log sn x)`` in units of the radius of curvature."""
    if dim == 1:
        return -(x**2) / (2 * scaled)
    tiny = xp.finfo(x.dtype).tiny
    x = xp.clip(x, min=tiny**0.5)
    if curvature > 0:
        log_sine = xp.log(xp.clip(xp.sin(x), min=tiny))
    else:
        log_sine = x + xp.log(-xp.expm1(-2 * x)) - math.log(2)
    return -(x**2) / (2 * scaled) + (dim - 1) * ((1 - power) * xp.log(x) + power * log_sine)


def _ends(xp: Namespace, curvature: float, dim: int, scaled: Array, power: float) -> tuple[Array, Array]:
    """Where the integrand has fallen by 40 nats on both sides of its mode, or its domain ends.

    The mode is where ``(d - 1) (p / tn x + (1 - p) / x) = x / t``. As ``1 / tan x <= 1 / x`` and
    ``1 <= 1 / tanh x <= 1 + 1 / x``, it is in a bracket of about the integrand's width, a fraction of which will do.
    """
    inverse = 1 / scaled
    if curvature > 0:  # the second derivative of log sin is at most -1, that of log x at most -1 / pi^2
        inverse = inverse + (dim - 1) * (power + (1 - power) / math.pi**2)
    width = (2 * _DROP / inverse) ** 0.5
    grown = (dim - 1) * scaled
    if curvature > 0:
        low, high = xp.zeros_like(scaled), xp.clip(grown**0.5, max=math.pi)
    else:
        low, high = power * grown, grown + grown**0.5
    for _ in range(_BISECTIONS):  # the mode: the slope is positive to the left of it
        middle = 0.5 * (low + high)
        safe = xp.clip(middle, min=xp.finfo(middle.dtype).tiny ** 0.5)
        slope = power / (xp.tan(safe) if curvature > 0 else xp.tanh(safe)) + (1 - power) / safe
        rising = (dim - 1) * slope > middle / scaled
        low, high = xp.where(rising, middle, low), xp.where(rising, high, middle)
    ends = (xp.clip(low - width, min=0.0), low + width)
    return ends if curvature < 0 else (ends[0], xp.clip(ends[1], max=math.pi))


def _logsumexp(xp: Namespace, values: Array) -> Array:
    peak = xp.amax(values, 0)
    return peak + xp.log(xp.sum(xp.exp(values - peak), 0))


@lru_cache(maxsize=1)
def _tanh_sinh() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    step = 0.05
    t = step * np.arange(-64, 65)
    inner = np.pi / 2 * np.sinh(t)
    nodes = 1 / (1 + np.exp(-2 * inner))  # (1 + tanh) / 2
    return nodes, np.log(step * np.pi / 4 * np.cosh(t)) - 2 * np.logaddexp(inner, -inner) + 2 * math.log(2)


@lru_cache(maxsize=1)
def _gauss_legendre() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    nodes, weights = np.polynomial.legendre.leggauss(_GAUSS)
    return (nodes + 1) / 2, np.log(weights / 2)
