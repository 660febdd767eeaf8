"""Metrics of which integrals are known, given away by nothing but their tensor; by scipy and NumPy alone, in doubles.

Space forms in several charts and of any curvature, direct products of them, flat space in curved coordinates, and
kernel metrics: about the one centroid of a round one every integral is one-dimensional, an elliptic bump is round
after a linear change of coordinates, and an even power of a sum of round ones is a sum of Gaussians.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement

import numpy as np
import torch
from scipy import integrate, special
from torch import Tensor

from pyro_riemann import RiemannianMetric

Floats = np.ndarray


class Product(RiemannianMetric):
    """The direct product of metrics, each times a factor, in turned coordinates; nothing is told but the tensor."""

    def __init__(self, parts: Sequence[RiemannianMetric], factors: Sequence[float], turn: Tensor) -> None:
        super().__init__()
        self.parts, self.factors, self.turn = torch.nn.ModuleList(parts), list(factors), turn
        self.dim = len(turn)

    def metric(self, z: Tensor) -> Tensor:
        blocks, rows = (
            (z @ self.turn.mT).split([part.dim for part in self.parts], -1),
            self.turn.split([part.dim for part in self.parts]),
        )
        tensors = (
            row.mT @ (factor * part.metric(block)) @ row
            for factor, part, block, row in zip(self.factors, self.parts, blocks, rows, strict=True)
        )
        return sum(tensors, torch.zeros_like(self.turn))


def log_integral(log_f: Callable[[Floats], Floats], low: float, high: float) -> float:
    """Log of the integral of ``exp(log_f)``: 400 panels of Gauss-Legendre where it is within 45 nats of its peak."""
    for _ in range(2):
        x = np.linspace(low, high, 4001)[1:-1]
        value = log_f(x)
        kept = np.flatnonzero(value > value.max() - 45)
        step = (high - low) / 4000
        low, high = max(low, x[kept[0]] - step), min(high, x[kept[-1]] + step)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    edges = np.linspace(low, high, 401)
    x = edges[:-1, None] + (nodes + 1) / 2 * np.diff(edges)[:, None]
    return float(special.logsumexp(log_f(x.ravel()), b=np.tile(weights, 400) * (high - low) / 800))


def log_sphere_area(dim: int) -> float:
    return math.log(2) + dim / 2 * math.log(math.pi) - float(special.gammaln(dim / 2))


# ---------------------------------------------------------------- integrals of radial functions about a point


def space_form(dim: int, curvature: float, time: float, power: float = 1.0) -> float:
    r"""Log of :math:`\int V^{1-p} e^{-r^2 / 2t} dM` within the cut locus of a space of constant ``curvature``."""
    root = math.sqrt(abs(curvature))

    def log_f(r: Floats) -> Floats:
        if curvature > 0:
            log_sine = np.log(np.sin(root * r) / root)
        elif curvature < 0:
            log_sine = root * r + np.log(-np.expm1(-2 * root * r)) - math.log(2 * root)
        else:
            log_sine = np.log(r)
        return -(r**2) / (2 * time) + (dim - 1) * (power * log_sine + (1 - power) * np.log(r))

    end = math.pi / root if curvature > 0 else time * (dim - 1) * root + math.sqrt(time * dim) + 12 * math.sqrt(time)
    return log_sphere_area(dim) + log_integral(log_f, 0.0, end)


def kernel_about_centroid(
    dim: int, precision: float, bandwidth: float, floor: float, time: float, power: float = 1.0
) -> float:
    r"""The same for :math:`G = (p e^{-p r^2 / \rho^2} + \lambda) I`, from its centre, where geodesics are straight."""
    end = (11 + 2 * math.sqrt(dim)) * math.sqrt(time / floor)
    r = np.linspace(0, end, 400_001)
    speed = np.sqrt(precision * np.exp(-precision * r**2 / bandwidth**2) + floor)
    s = integrate.cumulative_simpson(speed, x=r, initial=0)[1:]
    circle = np.log(speed[1:] * r[1:])
    value = np.log(speed[1:]) - s**2 / (2 * time) + (dim - 1) * (power * circle + (1 - power) * np.log(s))
    height = value.max()
    mass = integrate.simpson(
        np.concatenate([[math.exp(value[0] - height) if dim == 1 else 0.0], np.exp(value - height)]), x=r
    )
    return log_sphere_area(dim) + height + math.log(mass)


def past_cut_locus(dims: Sequence[int], curvatures: Sequence[float], time: float) -> float:
    """Share of a tangent Gaussian past the cut locus of a product: at the first antipode in one of the factors."""
    kept = [
        special.gammainc(dim / 2, math.pi**2 / (2 * time * curvature)) if curvature > 0 else 1.0
        for dim, curvature in zip(dims, curvatures, strict=True)
    ]
    return float(1 - np.prod(kept))


# ---------------------------------------------------------------- volumes of boxes


def _log_gauss_box(s: Floats, low: Floats, high: Floats) -> Floats:
    r"""Log of :math:`\int e^{-s |z|^2} dz` over a box, at every s."""
    root = np.sqrt(s)[:, None]
    width = 0.5 * math.sqrt(math.pi) / root * (special.erf(root * high) - special.erf(root * low))
    return np.log(width).sum(-1)


def rational_volume(dim: int, exponent: float, low: Floats, high: Floats) -> float:
    r"""Log of :math:`\int (1 + |z|^2)^{-a} dz` over a box: :math:`\int s^{a-1} e^{-s (1 + |z|^2)} ds / \Gamma(a)`.

    2^d times that with a = d is the volume on the stereographic chart of the sphere, a = 1/2 that of the hyperboloid.
    """

    def log_f(t: Floats) -> Floats:  # s = e^t
        return exponent * t - np.exp(t) + _log_gauss_box(np.exp(t), low, high)

    return log_integral(log_f, -80.0 / exponent, 6.0) - float(special.gammaln(exponent))


def isolated_bumps(precisions: Floats, bandwidth: float, floor: float, log_box: float) -> float:
    r"""Log volume of a kernel metric whose bumps do not meet, within a box of log volume ``log_box``.

    Args:
        precisions: eigenvalues of every centroid's precision, ``(k, d)``.
        bandwidth: rho.
        floor: lambda.
        log_box: of the box.
    """
    dim = precisions.shape[1]
    total = 0.5 * dim * math.log(floor) + log_box
    for p in precisions:

        def log_excess(r: Floats, p: Floats = p) -> Floats:
            bump = (np.log(p[:, None] / floor) - (r / bandwidth) ** 2).T
            ratio = 0.5 * np.logaddexp(0, bump).sum(-1)
            return 0.5 * dim * math.log(floor) + np.log(np.expm1(np.minimum(ratio, 600))) + (dim - 1) * np.log(r)

        top = bandwidth * math.sqrt(max(float(np.log(p / floor).max()), 0.0) + 45)
        one = log_sphere_area(dim) + log_integral(log_excess, 0.0, top) - 0.5 * float(np.log(p).sum())
        total = float(np.logaddexp(total, one))
    return total


def round_bumps(
    centroids: Floats, precision: Floats, bandwidth: float, floor: float, low: Floats, high: Floats
) -> float:
    r"""Log volume of :math:`G = (\sum_i p_i e^{-p_i |z - c_i|^2 / \rho^2} + \lambda) I` on a box, d even.

    The power d / 2 of the sum is one of products of Gaussians, which are Gaussians.
    """
    count, dim = centroids.shape
    order, terms = dim // 2, []
    for chosen in combinations_with_replacement(range(count + 1), order):
        times = np.bincount(chosen, minlength=count + 1)
        value = math.lgamma(order + 1) - special.gammaln(times + 1.0).sum() + times[count] * math.log(floor)
        rate = times[:count] * precision / bandwidth**2
        value += float((times[:count] * np.log(precision)).sum())
        total = float(rate.sum())
        if total == 0:
            terms.append(value + float(np.log(high - low).sum()))
            continue
        mean = rate @ centroids / total
        value -= float(rate @ np.square(centroids - mean).sum(-1))
        with np.errstate(divide="ignore"):
            terms.append(value + float(_log_gauss_box(np.array([total]), low - mean, high - mean)[0]))
    return float(special.logsumexp(terms))
