"""Isometric immersions of families of distributions with their Fisher metric, and the Fisher-Rao distance of normals.

Written over an array namespace ``xp``, that of torch or of JAX. Each has finite values and derivatives also on the edge
of its family, where a probability or a mean is 0.

Source: Rao (1945), *Information and the accuracy attainable in the estimation of statistical parameters*; Atkinson and
Mitchell (1981), *Rao's distance measure*; Costa, Santos and Strapasson (2015), *Fisher information distance*.
"""

from __future__ import annotations

from pyro_riemann._formulas import Array, Namespace, smooth


def root(xp: Namespace, x: Array) -> Array:
    """Square root with derivative 0, not infinity, at 0."""
    positive = x > 0
    return xp.where(positive, xp.sqrt(xp.where(positive, x, xp.ones_like(x))), xp.zeros_like(x))


def two_roots(xp: Namespace, x: Array) -> Array:
    """The image ``2 sqrt(x)`` of a mean of a Poisson law, or of the probabilities of a categorical one."""
    return 2 * root(xp, x)


def bernoulli(xp: Namespace, probs: Array) -> Array:
    """The image ``2 asin(sqrt(p))``."""
    return 2 * xp.arctan2(root(xp, probs), root(xp, 1 - probs))


def bernoulli_logits(xp: Namespace, logits: Array) -> Array:
    """The same less ``pi / 2`` from log-odds, exact also where p rounds to 1: the Gudermannian of half of them."""
    return 2 * xp.arctan(xp.tanh(logits / 4))


def negative_binomial(xp: Namespace, odds: Array, count: Array) -> Array:
    """The image ``2 sqrt(r) asinh(sqrt(m / r))`` for the mean m = r odds and the fixed dispersion r."""
    return 2 * xp.sqrt(count) * xp.arcsinh(root(xp, odds))


def negative_binomial_logits(xp: Namespace, logits: Array, count: Array) -> Array:
    """The same for ``odds = exp(logits)``, which may be large or small."""
    half = logits / 2
    small = xp.exp(xp.where(half > 0, -half, half))  # not the absolute value, whose derivative at 0 is none
    large = half + xp.log1p(xp.sqrt(1 + small * small))
    return 2 * xp.sqrt(count) * xp.where(half > 0, large, xp.arcsinh(small))


def half_plane_squared_dist(xp: Namespace, loc: Array, scale: Array, other_loc: Array, other_scale: Array) -> Array:
    r"""Squared Fisher-Rao distance of normals, entry by entry: :math:`8 \operatorname{asinh}^2 \sqrt s`.

    Here :math:`s = ((\mu - \mu')^2 / 2 + (\sigma - \sigma')^2) / (4 \sigma \sigma')`, for the metric
    :math:`(d\mu^2 + 2\, d\sigma^2) / \sigma^2`.
    """
    gap, stretch = loc - other_loc, scale - other_scale
    s = (gap * gap / 2 + stretch * stretch) / (4 * scale * other_scale)
    return 2 * smooth.squared_dist(xp, s, 1 + s, -1)


def half_plane_turn(
    xp: Namespace, loc: Array, scale: Array, other_loc: Array, other_scale: Array
) -> tuple[Array, Array]:
    r"""Cosine and sine of the turn of a vector on its way along the geodesic from the other normal to this one.

    Its components are :math:`(d\mu, \sqrt2\,d\sigma) / \sigma`. With :math:`z = \mu / \sqrt2 + i \sigma` parallel
    transport from w to z multiplies them, as a complex number, by :math:`(z - \bar w) / (w - \bar z)`.
    """
    a, b = (loc - other_loc) * 0.5**0.5, scale + other_scale
    square = a * a + b * b
    return (b * b - a * a) / square, -2 * a * b / square
