r"""Symmetric positive definite matrices with the affine-invariant metric, in the chart of their Cholesky factors.

A point is :math:`P = L L^\top`; its coordinates are the entries of L below the diagonal, row by row, and the logarithms
of those on it. A tangent vector is a lower triangular :math:`A = L^{-1} \dot L`, and its symmetric
:math:`S = A + A^\top`, for which :math:`\dot P = L S L^\top`, has the squared length :math:`\mathrm{tr}\,S^2`. The left
action of triangular matrices keeps both.
"""

from __future__ import annotations

import math
from functools import cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pyro_riemann._formulas import Array, densities, eye, places, smooth
from pyro_riemann._formulas.calculus import A
from pyro_riemann._formulas.exact_kernels import ExactKernels
from pyro_riemann._formulas.metric import MetricAlgebra
from pyro_riemann._formulas.radial import RadialLaw

_ORDERS = 3  # derivatives of the logarithm of a matrix that are right
_RESOLVED = 1e-3  # relative error of a log determinant beyond which singular values are not believed


@cache
def _places(size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the coordinates; and the coordinate of every entry, d for those above the diagonal."""
    low = np.tril_indices(size, -1)
    rows, columns = (np.concatenate([part, np.arange(size)]) for part in low)
    place = np.full((size, size), len(rows))
    place[rows, columns] = np.arange(len(rows))
    return rows, columns, place


class PositiveDefinite(MetricAlgebra[A]):
    """Matrices of ``size`` rows; L, A and S are ``(*batch, n, n)``."""

    kernels: ClassVar[ExactKernels]
    is_symmetric = True
    is_uniquely_geodesic: bool | None = True

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"`size` must be at least 1, got {size}.")
        self.size, self.dim = size, size * (size + 1) // 2

    def ambient_hint(self, shape: tuple[int, ...]) -> str:
        if tuple(shape[-2:]) != (self.size, self.size):
            return ""
        return " If these are matrices, `SPD.from_matrix` has their coordinates."

    def to_matrix(self, z: A) -> A:
        """The matrices ``(*batch, n, n)`` of points ``z``."""
        lower = self._lower(self._check("z", z))
        return lower @ lower.mT

    def from_matrix(self, matrix: A) -> A:
        """The points ``(*batch, d)`` of matrices ``(*batch, n, n)``.

        Raises:
            TypeError: if ``matrix`` is not a floating array.
            ValueError: if it does not have this shape, or is not symmetric and positive definite.
        """
        xp, matrix = self.face.xp, self.face.check_array("matrix", matrix)
        if tuple(matrix.shape[-2:]) != (self.size, self.size):
            raise ValueError(f"`matrix` must have shape (*batch, {self.size}, {self.size}), got {tuple(matrix.shape)}.")
        gap, level = xp.abs(matrix - matrix.mT), xp.amax(xp.abs(matrix), (-2, -1))[..., None, None]
        if not self.face.holds(gap <= 1e3 * xp.finfo(matrix.dtype).eps * level):
            raise ValueError("`matrix` must be symmetric; use (matrix + matrix.mT) / 2.")
        lower, definite = self.face.cholesky(matrix)
        if not self.face.holds(definite):
            count = math.prod(definite.shape)
            raise ValueError(f"`matrix` is not positive definite at {int((~definite).sum())} of {count} entries.")
        return self._coordinates(lower)

    def _check(self, name: str, z: A) -> A:
        return self.face.check_point(name, z, self.dim, self)

    # ---------------------------------------------------------------- points, vectors and matrices

    def _assembled(self, values: A) -> A:
        """Lower triangular matrices of their entries ``(*batch, d)``."""
        xp = self.face.xp
        padded = xp.concat([values, xp.zeros_like(values[..., :1])], axis=-1)
        return padded[..., places(xp, _places(self.size)[2], values)]

    def _entries(self, matrix: A) -> A:
        rows, columns = (places(self.face.xp, part, matrix) for part in _places(self.size)[:2])
        return matrix[..., rows, columns]

    def _split(self, values: A) -> tuple[A, A]:
        """Entries below the diagonal and on it."""
        return values[..., : -self.size], values[..., -self.size :]

    def _lower(self, z: A) -> A:
        """L; NaN on a diagonal whose reciprocal the dtype does not hold."""
        xp, (below, logs) = self.face.xp, self._split(z)
        held = xp.abs(logs) < -math.log(xp.finfo(z.dtype).tiny)
        diagonal = xp.where(held, xp.exp(xp.where(held, logs, xp.zeros_like(logs))), xp.full_like(logs, math.nan))
        return self._assembled(xp.concat([below, diagonal], axis=-1))

    def _coordinates(self, lower: A) -> A:
        """Coordinates ``(*batch, d)`` of factors L with a positive diagonal."""
        below, diagonal = self._split(self._entries(lower))
        return self.face.xp.concat([below, self.face.xp.log(diagonal)], axis=-1)

    def _frame(self, z: A, v: A) -> A:
        """A of vectors ``v``."""
        xp = self.face.xp
        z, v = self.face.broadcast(self._check("z", z), self.face.check_point("v", v, self.dim))
        below, logs = self._split(v)
        slope = self._assembled(xp.concat([below, xp.exp(self._split(z)[1]) * logs], axis=-1))
        return xp.linalg.inv(self._lower(z)) @ slope

    def _relative(self, z: A, y: A) -> A:
        """The factor M of ``y`` seen from ``z``: ``L_y = L_z M``."""
        z, y = self.face.broadcast(self._check("z", z), self._check("y", y))
        start = self._lower(z)  # and exactly the identity where the two meet
        step = self.face.xp.linalg.inv(start) @ (self._lower(y) - start)
        return eye(self.face.xp, self.size, start) + step

    def _diagonal(self, matrix: A) -> A:
        return self.face.xp.diagonal(matrix, 0, -2, -1)

    def _axes(self, like: A) -> Array:
        """Numbers of the rows, for every point."""
        return self.face.xp.cumsum(self.face.xp.ones_like(like[..., -self.size :]), -1) - 1

    def _lower_half(self, symmetric: A) -> A:
        """The lower triangular A with ``A + A^T = symmetric``."""
        return self.face.xp.tril(symmetric) - 0.5 * self.face.xp.tril(self.face.xp.triu(symmetric))

    def _whole(self, matrix: A) -> tuple[A, A]:
        """The matrices with the identity in place of what LAPACK refuses, all that are not finite; and which are."""
        whole = self.face.xp.isfinite(matrix).all((-2, -1))
        return self.face.xp.where(whole[..., None, None], matrix, eye(self.face.xp, self.size, matrix)), whole

    # ---------------------------------------------------------------- pointwise

    def metric(self, z: A) -> A:
        xp, z = self.face.xp, self._check("z", z)
        a = self._frame(z[..., None, :], eye(xp, self.dim, z))
        return self._inner(a[..., None, :, :], a[..., None, :, :, :])

    def logdet(self, z: A) -> A:
        # linear in the coordinates
        below = self.face.xp.sum(self._split(self._check("z", z))[1] * self._axes(z), -1)
        return (self.size * (self.size - 1) / 2 + 2 * self.size) * math.log(2) - 2 * below

    def inner(self, z: A, u: A, v: A) -> A:
        return self._inner(self._frame(z, u), self._frame(z, v))

    def _inner(self, a: A, b: A) -> A:
        xp = self.face.xp
        return 2 * (xp.sum(a * b, (-2, -1)) + xp.sum(self._diagonal(a) * self._diagonal(b), -1))

    def christoffel(self, z: A, v: A) -> A:
        # along a geodesic A' is the lower half of A^T A - A A^T
        a = self._frame(z, v)
        bend = self._lower_half(a.mT @ a - a @ a.mT)
        straight = self._entries(self._lower(z) @ (a @ a + bend))
        return -self.face.xp.concat([self._split(straight)[0], self._diagonal(bend)], axis=-1)

    def drift(self, z: A) -> A:
        # the acceleration in an orthonormal frame, summed
        axis = self._axes(self._check("z", z))
        straight = self._entries(self._lower(z) * (self.size - 2 * axis)[..., None, :] / 8)
        return self.face.xp.concat([self._split(straight)[0], (self.size - 1 - 2 * axis) / 8], axis=-1)

    def scalar_curvature(self, z: A) -> A:
        n = self.size
        return self.face.xp.full_like(self._check("z", z)[..., 0], -n * (n - 1) * (n + 2) / 8)

    def radial_law(self) -> RadialLaw | None:
        return RadialLaw(0.0) if self.size == 1 else None

    def injectivity_radius(self, z: A) -> A | None:
        return self.face.xp.full_like(self._check("z", z)[..., 0], math.inf)

    # ---------------------------------------------------------------- geodesics

    def expmap(self, z: A, v: A) -> A:
        xp, a = self.face.xp, self._frame(z, v)
        # the Cholesky factor of exp(S) by way of its root, whose condition is the root of that of exp(S)
        upper = xp.linalg.qr(self.face.expm(0.5 * (a + a.mT)))[1]
        lower = (xp.sign(self._diagonal(upper))[..., None] * upper).mT
        end = self._split(self._coordinates(lower))[1]
        straight = self._split(self._entries(self._lower(z) @ lower))[0]
        return xp.concat([straight, self._split(z)[1] + end], axis=-1)

    def expmap_log_van_vleck(self, z: A, v: A) -> tuple[A, A]:
        a = self._frame(z, v)
        return self.expmap(z, v), self._log_van_vleck(a + a.mT)

    def logmap(self, z: A, y: A) -> A:
        a = self._lower_half(self._log_gram(z, y))
        straight = self._split(self._entries(self._lower(z) @ a))[0]
        return self.face.xp.concat([straight, self._diagonal(a)], axis=-1)

    def squared_dist(self, z: A, y: A) -> A:
        return self.face.xp.square(self._log_gram(z, y)).sum((-2, -1))

    def log_van_vleck(self, z: A, y: A) -> A:
        return self._log_van_vleck(self._log_gram(z, y))

    def _log_gram(self, z: A, y: A) -> A:
        """The symmetric logarithm S of ``M M^T``.

        The value is that of a singular value decomposition, whose derivatives are infinite where singular values meet.
        The logarithm is smooth there: its derivatives are those of steps of Newton's method for ``exp(S) = M M^T``.
        NaN where singular values are so far apart that the small ones are rounding, as the determinant tells.
        """
        xp, freeze, lower = self.face.xp, self.face.freeze, self._relative(z, y)
        frozen, whole = self._whole(freeze(lower))
        vectors, values, _ = xp.linalg.svd(frozen)
        logs = 2 * xp.log(values)
        trace = 2 * xp.sum(xp.log(self._diagonal(frozen)), -1)
        resolved = whole & (xp.abs(xp.sum(logs, -1) - trace) < _RESOLVED * (1 + xp.abs(trace)))
        value = (vectors * logs[..., None, :]) @ vectors.mT
        value = xp.where(resolved[..., None, None], value, xp.full_like(value, math.nan))
        mean, half = (logs[..., :, None] + logs[..., None, :]) / 2, (logs[..., :, None] - logs[..., None, :]) / 2
        log_slope = mean + smooth.log_sinhc(xp, xp.square(half))  # of the divided differences of exp
        gram, step = lower @ lower.mT, value
        for _ in range(_ORDERS):
            change = vectors.mT @ (gram - self.face.expm(step)) @ vectors
            step = step + vectors @ (change * xp.exp(-log_slope)) @ vectors.mT
        return value + (step - freeze(step))

    def _log_van_vleck(self, symmetric: A) -> A:
        """From S: ``-sum over i < j of log sinhc((s_i - s_j) / 2)`` over its eigenvalues."""
        xp, (symmetric, whole) = self.face.xp, self._whole(symmetric)
        values = xp.linalg.eigvalsh(symmetric)
        gaps = (values[..., :, None] - values[..., None, :]) / 2
        value = -0.5 * xp.sum(smooth.log_sinhc(xp, xp.square(gaps)), (-2, -1))
        return xp.where(whole, value, xp.full_like(value, math.nan))

    # ---------------------------------------------------------------- densities

    def log_folded_density(self, z: A, y: A, time: A) -> A | None:
        xp, symmetric = self.face.xp, self._log_gram(z, y)
        squared, log_van_vleck = xp.square(symmetric).sum((-2, -1)), self._log_van_vleck(symmetric)
        return densities.single_geodesic(xp, self.dim, time, squared, log_van_vleck)

    def log_folded_normal(self, z: A, y: A, factor: A) -> A | None:
        return self._log_carried_normal(z, y, factor)

    def log_heat_kernel(self, z: A, y: A, time: float | A) -> A:
        """Log transition density of Brownian motion with respect to dM, exact for n <= 2; shape ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            NotImplementedError: for n > 2, where no closed form is known.
            ValueError: as ``Hyperbolic.log_heat_kernel``.
        """
        if self.size > 2:
            return super().log_heat_kernel(z, y, time)
        xp, points = self.face.xp, (self._check("z", z), self._check("y", y))
        wide, other = self.face.broadcast(*map(self.face.double, points))
        duration = self.kernels.as_time(time, wide)
        if self.size == 1:
            along, rest = 2 * (other - wide)[..., 0], xp.zeros_like(wide[..., 0])
        else:
            # R times the hyperbolic plane: the distance along R, and sinh(l/2)^2 at curvature -1
            lower = self._relative(wide, other)
            a, b, c = lower[..., 0, 0], lower[..., 1, 0], lower[..., 1, 1]
            along, s = math.sqrt(2) * xp.log(a * c), (xp.square(a - c) + xp.square(b)) / (4 * a * c)
            rest = self.kernels.hyperbolic(s, duration / 2, 2) - math.log(2)  # of curvature -1/2
        value = rest - 0.5 * (xp.square(along) / duration + xp.log(2 * math.pi * duration))
        return self.face.cast(value, z + y)
