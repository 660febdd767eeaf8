"""Fisher's metrics of families: immersions that make them Euclidean, and spaces of those that have none.

Written over an array namespace ``xp``, that of torch or of JAX. Each has finite values and derivatives also on the edge
of its family, where a probability or a mean is 0.

Source: Rao (1945), *Information and the accuracy attainable in the estimation of statistical parameters*; Atkinson and
Mitchell (1981), *Rao's distance measure*; Costa, Santos and Strapasson (2015), *Fisher information distance*.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, ClassVar, Protocol

from pyro_riemann._formulas import Array, Namespace, smooth
from pyro_riemann._formulas.calculus import A
from pyro_riemann._formulas.metric import MetricAlgebra


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


# ---------------------------------------------------------------- spaces


class Ambient(Protocol[A]):
    """A space with coordinates ``(*batch, size)``, into which a map can go."""

    @property
    def has_distance(self) -> bool:
        """Whether :meth:`squared_dist` costs next to nothing."""
        ...

    def squared_dist(self, x: A, y: A) -> A:
        """Squared distance of near points, ``(*batch)``; exact to third order at least."""
        ...

    def pull(self, x: A, jacobian: A) -> A:
        """``J^T A(x) J``, ``(*batch, d, d)``, for a Jacobian ``(*batch, size, d)``."""
        ...

    @property
    def has_frames(self) -> bool:
        """Whether :meth:`frame` and :meth:`carry` are known."""
        ...

    def frame(self, x: A, jacobian: A) -> A:
        """The Jacobian ``(*batch, size, d)`` at x in an orthonormal frame there."""
        ...

    def carry(self, x: A, y: A, vectors: A) -> A:
        """Vectors ``(*batch, size, d)`` in the frame at y, in that at x after transport along the geodesic."""
        ...


class Frameless:
    """A space whose parallel transport is not known."""

    has_frames = False

    def frame(self, x: Array, jacobian: Array) -> Array:
        raise NotImplementedError

    def carry(self, x: Array, y: Array, vectors: Array) -> Array:
        raise NotImplementedError


class Library:
    """What spaces ask of an array library."""

    xp: ClassVar[Namespace]
    split: ClassVar[Any]  # of an array, into so many equal parts or at these places, along an axis


@dataclasses.dataclass(frozen=True)
class Flat:
    """Euclidean space."""

    has_distance = has_frames = True

    def squared_dist(self, x: Array, y: Array) -> Array:
        return ((x - y) ** 2).sum(-1)

    def pull(self, x: Array, jacobian: Array) -> Array:
        return jacobian.mT @ jacobian

    def frame(self, x: Array, jacobian: Array) -> Array:
        return jacobian

    def carry(self, x: Array, y: Array, vectors: Array) -> Array:
        return vectors


@dataclasses.dataclass(frozen=True)
class HalfPlanes(Library):
    r"""Means and standard deviations of independent normals, :math:`ds^2 = (d\mu^2 + 2\,d\sigma^2) / \sigma^2` each."""

    has_distance = has_frames = True

    def squared_dist(self, x: Array, y: Array) -> Array:
        return half_plane_squared_dist(self.xp, *self.split(x, 2, -1), *self.split(y, 2, -1)).sum(-1)

    def pull(self, x: Array, jacobian: Array) -> Array:
        frame = self.frame(x, jacobian)
        return frame.mT @ frame

    def frame(self, x: Array, jacobian: Array) -> Array:
        loc, scale = self.split(jacobian, 2, -2)
        unit = self.split(x, 2, -1)[1][..., None]
        return self.xp.concatenate([loc / unit, 2**0.5 * scale / unit], -2)

    def carry(self, x: Array, y: Array, vectors: Array) -> Array:
        turn = half_plane_turn(self.xp, *self.split(x, 2, -1), *self.split(y, 2, -1))
        cos, sin = (part[..., None] for part in turn)
        loc, scale = self.split(vectors, 2, -2)
        return self.xp.concatenate([cos * loc - sin * scale, sin * loc + cos * scale], -2)


@dataclasses.dataclass(frozen=True)
class ZeroInflated(Library, Frameless):
    r"""Logs of means, logits of added zeros and logs of fixed dispersions of independent zero-inflated counts.

    These are 0 with probability pi, and else of a negative binomial of mean m and fixed dispersion r. Of its zeros, a
    probability :math:`q = (1 + m / r)^{-r}`, nobody knows where they came from: with :math:`p = \pi + (1 - \pi) q` and
    :math:`\rho = m / (m + r)` the information in (log m, logit pi) is

    .. math:: (1 - \pi) \begin{pmatrix} r\rho\,(1 - r\rho\,q\,\pi / p) & -r\rho\,q\,\pi / p \\
        -r\rho\,q\,\pi / p & \pi^2 (1 - q) / p \end{pmatrix} .

    It is not flat, and its distances have no closed form: between near points the information in the middle stands for
    the metric on the way, to third order.

    Source: Lambert (1992), *Zero-inflated Poisson regression, with an application to defects in manufacturing*, for the
    law; the information by its definition, the mean of products of scores.
    """

    has_distance = True

    def _information(self, x: Array) -> tuple[Array, Array, Array]:
        """Entries for (log mean, log mean), (log mean, gate) and (gate, gate); the gate is the logit of pi."""
        xp, (log_mean, gate, log_count) = self.xp, self.split(x, 3, -1)
        zero = xp.zeros_like(gate)
        odds = log_mean - log_count
        steep = xp.exp(log_count + odds - xp.logaddexp(zero, odds))  # r rho
        log_own = -xp.exp(log_count) * xp.logaddexp(zero, odds)  # log q
        keep = xp.exp(-xp.logaddexp(zero, gate))  # 1 - pi
        added = xp.exp(-xp.logaddexp(zero, log_own - gate))  # pi / p: how many zeros are added ones
        mixed = steep * xp.exp(log_own) * added
        pi = xp.exp(-xp.logaddexp(zero, -gate))
        return keep * steep * (1 - mixed), -keep * mixed, keep * pi * -xp.expm1(log_own) * added

    def squared_dist(self, x: Array, y: Array) -> Array:
        mean, mixed, gate = self._information((x + y) / 2)
        a, b, _ = self.split(x - y, 3, -1)
        return (mean * a * a + 2 * mixed * a * b + gate * b * b).sum(-1)

    def pull(self, x: Array, jacobian: Array) -> Array:
        mean, mixed, gate = (part[..., None] for part in self._information(x))
        a, b, _ = self.split(jacobian, 3, -2)
        cross = a.mT @ (mixed * b)
        return a.mT @ (mean * a) + cross + cross.mT + b.mT @ (gate * b)


class Of(Frameless):
    """The chart of a metric of one's own."""

    generic: ClassVar[type[MetricAlgebra[Array]]]  # the class whose distance is solved for

    def __init__(self, metric: MetricAlgebra[Array]) -> None:
        self.metric = metric

    @property
    def has_distance(self) -> bool:
        return type(self.metric).squared_dist is not self.generic.squared_dist

    def squared_dist(self, x: Array, y: Array) -> Array:
        return self.metric.squared_dist(x, y)

    def pull(self, x: Array, jacobian: Array) -> Array:
        return jacobian.mT @ self.metric.metric(x) @ jacobian


class Product(Library):
    """Spaces side by side; each part with its number of coordinates."""

    def __init__(self, parts: Sequence[tuple[Ambient[Array], int]]) -> None:
        self.spaces = [space for space, _ in parts]
        self.sizes = [size for _, size in parts]

    @property
    def has_distance(self) -> bool:
        return all(space.has_distance for space in self.spaces)

    @property
    def has_frames(self) -> bool:
        return all(space.has_frames for space in self.spaces)

    def _cut(self, x: Array, axis: int = -1) -> Sequence[Array]:
        return self.split(x, list(accumulate(self.sizes))[:-1], axis)

    def squared_dist(self, x: Array, y: Array) -> Array:
        cut = zip(self.spaces, self._cut(x), self._cut(y), strict=True)
        first, *others = (space.squared_dist(a, b) for space, a, b in cut)
        return sum(others, first)

    def pull(self, x: Array, jacobian: Array) -> Array:
        cut = zip(self.spaces, self._cut(x), self._cut(jacobian, -2), strict=True)
        first, *others = (space.pull(a, j) for space, a, j in cut)
        return sum(others, first)

    def frame(self, x: Array, jacobian: Array) -> Array:
        cut = zip(self.spaces, self._cut(x), self._cut(jacobian, -2), strict=True)
        return self.xp.concatenate([space.frame(a, j) for space, a, j in cut], -2)

    def carry(self, x: Array, y: Array, vectors: Array) -> Array:
        cut = zip(self.spaces, self._cut(x), self._cut(y), self._cut(vectors, -2), strict=True)
        return self.xp.concatenate([space.carry(a, b, v) for space, a, b, v in cut], -2)
