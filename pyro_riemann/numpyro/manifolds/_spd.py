"""Symmetric positive definite matrices with the affine-invariant metric."""

from __future__ import annotations

import math
from typing import Unpack

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas import densities
from pyro_riemann._formulas import positive_definite as formulas
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann.numpyro._checks import check_array, check_point, holds
from pyro_riemann.numpyro._interface import Settings
from pyro_riemann.numpyro.geodesics import Geodesic
from pyro_riemann.numpyro.manifolds import _heat_kernel
from pyro_riemann.numpyro.metrics import RiemannianMetric


class SPD(RiemannianMetric):
    r"""Symmetric positive definite n x n matrices, :math:`|\dot P|^2 = \mathrm{tr}(P^{-1} \dot P P^{-1} \dot P)`.

    The affine-invariant metric, which is also the Fisher-Rao metric of normal laws with covariance P, times 2. It is
    that of a symmetric space without positive curvature: two points have one geodesic, and congruence
    :math:`P \mapsto C P C^\top` and inversion are isometries. The scalar curvature is ``-n (n - 1) (n + 2) / 8``.

    The chart is all of :math:`\mathbb{R}^d`, d = n (n + 1) / 2: with :math:`P = L L^\top`, the entries of the Cholesky
    factor L below the diagonal, row by row, followed by the logarithms of those on it. 0 is the identity matrix.

    The heat kernel is known for n = 1, a line, and n = 2, the product of a line and the hyperbolic plane of
    curvature -1/2.

    Args:
        size: number n of rows.

    Raises:
        ValueError: if ``size`` is less than 1.

    Source: Pennec, Fillard & Ayache (2006), *A Riemannian framework for tensor computing*; Moakher (2005), *A
    differential geometric approach to the geometric mean of symmetric positive-definite matrices*; Lin (2019),
    *Riemannian geometry of symmetric positive definite matrices via Cholesky decomposition*, for the chart.

    Example:
        >>> spd = SPD(2)
        >>> z = spd.from_matrix(jnp.eye(2))
        >>> y = spd.from_matrix(jnp.array([[2.0, 0.0], [0.0, 0.5]]))
        >>> round(spd.dist(z, y).item(), 4)  # sqrt 2 log 2
        0.9803
        >>> spd.to_matrix(spd.expmap(z, 0.5 * spd.logmap(z, y))).round(3).tolist()  # half-way
        [[1.4140000343322754, 0.0], [0.0, 0.7070000171661377]]
    """

    is_symmetric = True
    is_uniquely_geodesic: bool | None = True

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"`size` must be at least 1, got {size}.")
        self.size, self.dim = size, size * (size + 1) // 2

    def __repr__(self) -> str:
        return f"SPD(size={self.size})"

    def ambient_hint(self, shape: tuple[int, ...]) -> str:
        if tuple(shape[-2:]) != (self.size, self.size):
            return ""
        return " If these are matrices, `SPD.from_matrix` has their coordinates."

    def to_matrix(self, z: Array) -> Array:
        """The matrices ``(*batch, n, n)`` of points ``z``."""
        lower = formulas.factor(jnp, self._check("z", z), self.size)
        return lower @ lower.mT

    def from_matrix(self, matrix: Array) -> Array:
        """The points ``(*batch, d)`` of matrices ``(*batch, n, n)``.

        Raises:
            TypeError: if ``matrix`` is not a floating array.
            ValueError: if it does not have this shape, or is not symmetric and positive definite.
        """
        matrix = check_array("matrix", matrix)
        if tuple(matrix.shape[-2:]) != (self.size, self.size):
            raise ValueError(f"`matrix` must have shape (*batch, {self.size}, {self.size}), got {matrix.shape}.")
        gap, level = jnp.abs(matrix - matrix.mT), jnp.abs(matrix).max((-2, -1), keepdims=True)
        if not holds(gap <= 1e3 * jnp.finfo(matrix.dtype).eps * level):
            raise ValueError("`matrix` must be symmetric; use (matrix + matrix.mT) / 2.")
        lower = jnp.linalg.cholesky(matrix)
        definite = jnp.isfinite(lower).all((-2, -1))
        if not holds(definite):
            raise ValueError(
                f"`matrix` is not positive definite at {int((~definite).sum())} of {definite.size} entries."
            )
        return formulas.coordinates(jnp, lower, self.size)

    def _check(self, name: str, z: Array) -> Array:
        return check_point(name, z, self.dim, self)

    def _pair(self, z: Array, v: Array) -> tuple[Array, Array]:
        first, second = jnp.broadcast_arrays(self._check("z", z), check_point("v", v, self.dim))
        return first, second

    def _log_gram(self, z: Array, y: Array) -> Array:
        z, y = jnp.broadcast_arrays(self._check("z", z), self._check("y", y))
        lower = formulas.relative(jnp, z, y, self.size)
        return formulas.log_gram(jnp, jax.scipy.linalg.expm, jax.lax.stop_gradient, lower)

    # ---------------------------------------------------------------- pointwise

    @jax.jit
    def metric(self, z: Array) -> Array:
        z = self._check("z", z)
        where = jnp.broadcast_to(z[..., None, :], (*z.shape[:-1], self.dim, self.dim))
        basis = jnp.broadcast_to(jnp.eye(self.dim, dtype=z.dtype), where.shape)
        a = formulas.frame(jnp, where, basis, self.size)
        return formulas.inner(jnp, a[..., None, :, :], a[..., None, :, :, :])

    def logdet(self, z: Array) -> Array:
        return formulas.logdet(jnp, self._check("z", z), self.size)

    def inner(self, z: Array, u: Array, v: Array) -> Array:
        first, second = (formulas.frame(jnp, *self._pair(z, x), self.size) for x in (u, v))
        return formulas.inner(jnp, first, second)

    @jax.jit
    def christoffel(self, z: Array, v: Array) -> Array:
        return formulas.christoffel(jnp, *self._pair(z, v), self.size)

    def drift(self, z: Array) -> Array:
        return formulas.drift(jnp, self._check("z", z), self.size)

    def scalar_curvature(self, z: Array) -> Array:
        n = self.size
        return jnp.full_like(self._check("z", z)[..., 0], -n * (n - 1) * (n + 2) / 8)

    def radial_law(self) -> RadialLaw | None:
        return RadialLaw(0.0) if self.size == 1 else None

    def injectivity_radius(self, z: Array) -> Array | None:
        return jnp.full_like(self._check("z", z)[..., 0], jnp.inf)

    # ---------------------------------------------------------------- geodesics

    @jax.jit
    def expmap(self, z: Array, v: Array) -> Array:
        return formulas.expmap(jnp, jax.scipy.linalg.expm, *self._pair(z, v), self.size)

    @jax.jit
    def expmap_log_van_vleck(self, z: Array, v: Array) -> tuple[Array, Array]:
        a = formulas.frame(jnp, *self._pair(z, v), self.size)
        return self.expmap(z, v), formulas.log_van_vleck(jnp, a + a.mT)

    @jax.jit
    def logmap(self, z: Array, y: Array) -> Array:
        half = formulas.lower_half(jnp, self._log_gram(z, y))
        return formulas.vector(jnp, z, half, self.size)

    @jax.jit
    def squared_dist(self, z: Array, y: Array) -> Array:
        return jnp.square(self._log_gram(z, y)).sum((-2, -1))

    @jax.jit
    def log_van_vleck(self, z: Array, y: Array) -> Array:
        return formulas.log_van_vleck(jnp, self._log_gram(z, y))

    def log_folded_density(self, z: Array, y: Array, time: Array) -> Array | None:
        symmetric = self._log_gram(z, y)
        squared, log_van_vleck = jnp.square(symmetric).sum((-2, -1)), formulas.log_van_vleck(jnp, symmetric)
        return densities.single_geodesic(jnp, self.dim, time, squared, log_van_vleck)

    def log_folded_normal(self, z: Array, y: Array, factor: Array) -> Array | None:
        return self._log_carried_normal(z, y, factor)

    def geodesic(self, z: Array, y: Array, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        return Geodesic.closed_form(self, z, y, self.solver.replace(init=init, **settings).num_segments)

    def log_heat_kernel(self, z: Array, y: Array, time: float | Array) -> Array:
        """Log transition density of Brownian motion with respect to dM, exact for n <= 2; shape ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            NotImplementedError: for n > 2, where no closed form is known.
            ValueError: as :meth:`pyro_riemann.numpyro.Hyperbolic.log_heat_kernel`.
        """
        if self.size > 2:
            return super().log_heat_kernel(z, y, time)
        z, y = self._check("z", z), self._check("y", y)
        wide = jnp.broadcast_arrays(_heat_kernel.widest(z), _heat_kernel.widest(y))
        duration = _heat_kernel.as_time(time, wide[0])
        if self.size == 1:
            along, rest = 2 * (wide[1] - wide[0])[..., 0], jnp.zeros_like(wide[0][..., 0])
        else:
            along, s = formulas.split_of_two(jnp, formulas.relative(jnp, wide[0], wide[1], self.size))
            rest = _heat_kernel.hyperbolic(s, duration / 2, 2) - math.log(2)  # curvature -1/2
        value = rest - 0.5 * (jnp.square(along) / duration + jnp.log(2 * math.pi * duration))
        return value.astype(jnp.result_type(z, y))
