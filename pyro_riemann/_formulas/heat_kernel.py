"""Exact heat kernels, as functions of distance and time.

Log densities with respect to the Riemannian measure; the generator is half the Laplace-Beltrami
operator, so time is variance. ``s``, ``c`` (see ``space_form``) and ``time`` have been broadcast to one shape.

All sums and integrals are of terms that hardly cancel, whatever the time and the distance, so that the logarithm is
right where the kernel itself has long underflowed: to 1e-12 or the rounding of the exponent ``l^2 / 2t``, whichever is
larger. On the sphere that takes a contour integral at small times, in hyperbolic space positive recursions.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from pyro_riemann._formulas import Array, Namespace, smooth, table

LARGEST_ERROR = 0.1  # of a logarithm, by the rounding of its exponent: a kernel with a larger one is refused
_WIDER = {"float64": ".", "float32": ', or `jax.config.update("jax_enable_x64", True)`.'}


def too_far(dtype: str) -> str:
    """What a refusal says where a distance cannot be told."""
    reach = 709 if dtype == "float64" else 88
    return (
        f"Two points of hyperbolic space lie further apart than {reach}, where sinh(l/2)^2 overflows in {dtype}: "
        "their heat kernel is not computed. Keep to that distance; at time t points are about "
        f"(dim - 1) t / 2 apart{_WIDER[dtype]}"
    )


def no_digits(dim: int, time: float, dist: float, exponent: float, dtype: str) -> str:
    """What a refusal says: time and distance at which rounding alone leaves nothing of the logarithm."""
    return (
        f"The log heat kernel in dimension {dim} at time {time:.3g} and distance {dist:.3g} has the exponent "
        f"{exponent:.3g}, of which {dtype} keeps no digit after the point. Use a longer `time` or closer "
        f"points{_WIDER[dtype]}"
    )


def circle(xp: Namespace, step: Array, time: Array, period: Array) -> Array:
    """Wrapped normal of variance ``time`` on a circle of length ``period`` (infinite: the normal itself).

    Nine images or four harmonics, whichever converges: both are exact to 1e-15 at the switch.
    """
    finite = xp.isfinite(period)
    frequency = 2 * math.pi / xp.where(finite, period, xp.ones_like(period))
    turn = step * frequency
    turn = turn - 2 * math.pi * xp.round(turn / (2 * math.pi))
    variance = time * xp.square(frequency)
    spread = xp.clip(variance, max=2 * math.pi)
    shift = 2 * math.pi * table(xp, range(-4, 5), step)
    # relative to the nearest image, so that no exponent is positive
    images = xp.sum(xp.exp(-shift * (shift + 2 * turn[..., None]) / (2 * spread[..., None])), -1)
    images = xp.log(images) - xp.square(turn) / (2 * spread) - 0.5 * xp.log(2 * math.pi * spread)
    order = table(xp, range(1, 5), step)
    decay = xp.exp(-xp.square(order) * xp.clip(variance, min=2 * math.pi)[..., None] / 2)
    harmonics = xp.log1p(2 * xp.sum(decay * xp.cos(order * turn[..., None]), -1)) - math.log(2 * math.pi)
    wrapped = xp.where(variance < 2 * math.pi, images, harmonics) + xp.log(frequency)
    normal = -xp.square(step) / (2 * time) - 0.5 * xp.log(2 * math.pi * time)
    return xp.where(finite, wrapped, normal)


# ---------------------------------------------------------------- sphere

_CONTOUR_NODES = 40


def sphere_switch(dim: int) -> float:
    """Time from which :func:`sphere_series_end` is as good as :func:`sphere`: a few harmonics, hardly cancelling."""
    return min(1.0, 8 / dim)


def sphere(xp: Namespace, s: Array, c: Array, time: Array, dim: int) -> Array:
    r"""S^d, d >= 2, up to :func:`sphere_switch`: one contour integral for every dimension.

    Two dimensions more are one derivative in :math:`\cos l`, so with :math:`\mu = (d - 1) / 2` the kernel is
    :math:`e^{\mu^2 t / 2} (2\pi)^{-\mu} (d / d\cos l)^\mu f`, f the wrapped normal on the circle (odd d) or
    its antiperiodic sibling (even d, where the derivative is fractional). By Cauchy, in :math:`x = \cos(a / 2)`,

    .. math:: (d / d\cos l)^\mu f = \frac{\Gamma(\mu + 1)}{2^\mu}\, \frac{1}{2\pi}
        \int_0^{2\pi} f(x)\, x\, S^{-d}\, d\alpha, \qquad
        x = A \cos\alpha + i B \sin\alpha, \quad S = B \cos\alpha + i A \sin\alpha,

    on any ellipse with foci :math:`\pm\cos(l / 2)`. Since all derivatives of f are positive, on an ellipse near the
    saddle point, :math:`A^2 - \cos(l/2)^2 = B^2 = A (d + 1) t / 5`, the integrand hardly cancels.
    """
    half, reach = (dim - 1) / 2, (dim + 1) / 5 * time
    long = reach / 2 + xp.sqrt(xp.square(reach) / 4 + c)
    short = xp.sqrt(long * reach)
    # a quarter of the ellipse, as far as the integrand stays above exp(-40) of its peak; equal steps
    end = 2 * xp.asin(xp.sqrt(xp.clip(5 * time / long, max=0.5)))
    nodes = table(xp, (np.arange(_CONTOUR_NODES) + 0.5) / _CONTOUR_NODES, s)
    angle, time_there = end[..., None] * nodes, time[..., None]
    cos, sin = xp.cos(angle), xp.sin(angle)
    x = long[..., None] * cos + 1j * (short[..., None] * sin)
    root = short[..., None] * cos + 1j * (long[..., None] * sin)
    squared = _squared_angle(xp, s[..., None] - root * root, x)
    angle_there = xp.sqrt(squared)
    first = xp.log(x) - dim * xp.log(root) - squared / (2 * time_there)
    shift = first.real[..., :1]
    # the images a - 2 pi and a + 2 pi; the next are below 1e-17 up to time 1
    turn = 2 * math.pi / time_there
    images = xp.exp(turn * (angle_there - math.pi)) + xp.exp(-turn * (angle_there + math.pi))
    total = xp.exp(first - shift) * (1 + (-1) ** (dim + 1) * images)
    integral = 2 / math.pi * end / _CONTOUR_NODES * xp.sum(total.real, -1)
    constant = math.lgamma(half + 1) - half * math.log(4 * math.pi)
    return constant + half**2 * time / 2 - 0.5 * xp.log(2 * math.pi * time) + shift[..., 0] + xp.log(integral)


def _squared_angle(xp: Namespace, s: Array, x: Array) -> Array:
    """``a^2`` from the complex ``s = sin(a/2)^2`` and ``x = cos(a/2)``, of positive real part."""
    small = xp.square(s.real) + xp.square(s.imag) < 4e-4
    near = xp.where(small, s, xp.zeros_like(s))
    sine = xp.sqrt(xp.where(small, xp.ones_like(s), s))
    # of the two roots that one whose sum with x does not cancel; the square of the logarithm is the same
    sine = xp.where(sine.imag > 0, -sine, sine)
    half = xp.log(x + 1j * sine)
    return 4 * xp.where(small, near * smooth.arc_series(xp, near), -half * half)


def sphere_series_start(xp: Namespace, x: Array, time: Array, dim: int) -> tuple[Array, Array, Array]:
    """State before the first of the spherical harmonics at cosine ``x``: two Gegenbauer polynomials and the sum."""
    return xp.ones_like(x), (dim - 1) * x, xp.ones_like(x * time)


def sphere_series_step(
    xp: Namespace, state: tuple[Array, Array, Array], n: Any, x: Array, time: Array, dim: int
) -> tuple[Array, Array, Array]:
    """State after the harmonics of degree ``n = 1, 2, ...``"""
    index, (previous, current, total) = (dim - 1) / 2, state
    total = total + (n + index) / index * current * xp.exp(-n * (n + dim - 1) * time / 2)
    return current, (2 * (n + index) * x * current - (n + 2 * index - 1) * previous) / (n + 1), total


def sphere_series_end(xp: Namespace, state: tuple[Array, Array, Array], dim: int) -> Array:
    """Log heat kernel of S^d, d >= 2, from the state after enough degrees."""
    log_volume = math.log(2) + (dim + 1) / 2 * math.log(math.pi) - math.lgamma((dim + 1) / 2)
    return xp.log(state[2]) - log_volume


@cache
def sphere_series_degree(dim: int) -> int:
    """Degree at which the terms at s = 0 fall below 1e-17 from :func:`sphere_switch` on."""
    time, degree = sphere_switch(dim), 4
    # (2 n + d - 1) / (d - 1) times the number of ways to choose n of n + d - 2 bounds a term
    while degree * (degree + dim - 1) * time / 2 < 40 + math.lgamma(degree + dim) - math.lgamma(
        degree + 1
    ) - math.lgamma(dim) + math.log(2 * degree + dim):
        degree += 1
    return degree


# ---------------------------------------------------------------- hyperbolic space

_SERIES_END = 0.6


def hyperbolic_odd(xp: Namespace, s: Array, time: Array, dim: int) -> Array:
    r"""H^d, d odd, in closed form.

    Two dimensions more are one derivative: :math:`p_{d+2} = -e^{-d t/2} / (2\pi)\, dp_d / d\cosh l`; odd d starts
    from the normal density on the line.
    """
    squared, value = _odd(xp, s / (1 + s), xp.log1p(s), time, (dim - 1) // 2)
    return value - squared / (2 * time)


def hyperbolic_even_end(xp: Namespace, s: Array, time: Array, dim: int) -> Array:
    """Where the integrand of :func:`hyperbolic_even` has fallen to exp(-70)."""
    y = s / (1 + s)
    start = xp.sqrt(y) * _slopes(xp, y, xp.log1p(s), 1)[0]
    # the exponent there is about (step^2 / 2 + start step) / t + (d - 1) / 2 step
    rate = start / time + (dim - 1) / 2
    step = 140 / (rate + xp.sqrt(xp.square(rate) + 140 / time))
    return xp.acosh(xp.exp(step / 2) * (1 + xp.exp(-start - step)) / (1 + xp.exp(-start)))


def hyperbolic_even(xp: Namespace, s: Array, time: Array, end: Array, dim: int) -> Array:
    r"""H^d, d even, as an integral over H^{d+1}; nothing in it is negative.

    :math:`p_d(l) = \sqrt 2\, e^{(2d - 1) t / 8} \int_l^\infty p_{d+1}(a) \sinh a\, (\cosh a - \cosh l)^{-1/2} da`
    (McKean's integral for d = 2), by :math:`\cosh(a/2) = \cosh(l/2) \cosh\phi` without singularity.
    """
    nodes, weights = _gauss_legendre(xp, 80, s)
    phi = end[..., None] * nodes
    y, log_square = s / (1 + s), xp.log1p(s)
    # the same for a: sums of positive terms, and nothing that overflows
    log_cosh = phi + xp.log1p(xp.exp(-2 * phi)) - math.log(2)
    y_there = y[..., None] / xp.square(xp.cosh(phi)) + xp.square(xp.tanh(phi))
    squared = y * xp.square(_slopes(xp, y, log_square, 1)[0])
    squared_there, value = _odd(xp, y_there, log_square[..., None] + 2 * log_cosh, time[..., None], dim // 2)
    exponent = value + log_cosh - (squared_there - squared[..., None]) / (2 * time[..., None])
    shift = exponent[..., :1]
    integral = end * xp.sum(weights * xp.exp(exponent - shift), -1)
    log_scale = math.log(4) + (2 * dim - 1) * time / 8 + log_square / 2 - squared / (2 * time)
    return log_scale + shift[..., 0] + xp.log(integral)


def _odd(xp: Namespace, y: Array, log_square: Array, time: Array, steps: int) -> tuple[Array, Array]:
    """``l^2`` and ``log p + l^2 / 2t`` in dimension ``2 steps + 1``.

    ``y = tanh(l/2)^2``, ``log_square = log cosh(l/2)^2``. With ``q = l^2 / 2``, whose derivatives in ``u = cosh l``
    alternate in sign, those of ``exp(-q / t)`` follow from Leibniz' rule, ``f' = -q' f / t``, all terms of one sign.
    """
    slopes = _slopes(xp, y, log_square, max(steps, 1))
    factors = [xp.ones_like(y * time)]  # (-t (u + 1) d/du)^n exp(-q / t), over exp(-q / t)
    for n in range(steps):
        terms = [math.comb(n, k) * slopes[k] * time**k * factors[n - k] for k in range(n + 1)]
        factors.append(sum(terms[1:], terms[0]))
    value = -steps * (math.log(4 * math.pi) + log_square + xp.log(time) + steps * time / 2)
    return y * xp.square(slopes[0]), value - 0.5 * xp.log(2 * math.pi * time) + xp.log(factors[steps])


def _slopes(xp: Namespace, y: Array, log_square: Array, count: int) -> list[Array]:
    r"""``(u + 1)^{k+1} (-d/du)^k (l / sinh l)``, ``u = cosh l``, for k below ``count``; the first is ``l / sqrt(y)``.

    They are :math:`2 (k!)^2 / (3/2)_k\, {}_2F_1(k + 1, 1/2; k + 3/2; y)` and satisfy
    :math:`y W_{k+1} = (k + 1/2) (1 + y) W_k - k^2 W_{k-1}`, with 1 in place of the last term at k = 0: backward from
    the power series for small y, where going forward would lose digits, forward from k = 0 for large y.
    """
    last, small = count - 1, xp.clip(y, max=_SERIES_END)
    near = [_slope_series(xp, small, last)]
    if last > 0:
        near.insert(0, _slope_series(xp, small, last - 1))
    for k in range(last - 1, 0, -1):
        near.insert(0, ((k + 0.5) * (1 + small) * near[0] - small * near[1]) / k**2)
    large = xp.clip(y, min=_SERIES_END)
    root = xp.sqrt(large)
    far = [(log_square + 2 * xp.log1p(root)) / root]
    for k in range(last):
        before = k**2 * far[k - 1] if k > 0 else 1.0
        far.append(((k + 0.5) * (1 + large) * far[k] - before) / large)
    return [xp.where(y < _SERIES_END, *pair) for pair in zip(near, far, strict=True)]


def _slope_series(xp: Namespace, y: Array, k: int) -> Array:
    """The power series, eighty-one terms as a product of matrices and nine of Horner's steps: short for a compiler."""
    blocks = table(xp, _slope_coefficients(k), y)
    powers = [xp.ones_like(y)]
    for _ in range(9):
        powers.append(powers[-1] * y)
    inner = xp.stack(powers[:9], -1) @ blocks
    total = inner[..., 8]
    for block in range(7, -1, -1):
        total = total * powers[9] + inner[..., block]
    return total


@cache
def _slope_coefficients(k: int) -> np.ndarray[Any, Any]:
    """Coefficient of ``y^(i + 9 j)`` at ``[i, j]``."""
    coefficients = [2 * math.factorial(k) ** 2 * math.gamma(1.5) / math.gamma(k + 1.5)]
    for n in range(80):
        coefficients.append(coefficients[-1] * (k + 1 + n) * (n + 0.5) / ((k + 1.5 + n) * (n + 1)))
    return np.array(coefficients).reshape(9, 9).T


def _gauss_legendre(xp: Namespace, count: int, like: Array) -> tuple[Array, Array]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = _nodes_and_weights(count)
    return table(xp, nodes, like), table(xp, weights, like)


@cache
def _nodes_and_weights(count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2
