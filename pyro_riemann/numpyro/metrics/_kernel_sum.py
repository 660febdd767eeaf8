"""A sum of kernels as a metric: its values and derivatives, by products of tables."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas import kernel
from pyro_riemann._formulas.peaks import Peaks, kernel_peaks
from pyro_riemann.numpyro._checks import check_point
from pyro_riemann.numpyro.metrics._base import RiemannianMetric
from pyro_riemann.numpyro.metrics._mahalanobis import exact_products, squared_distances


class KernelSum(RiemannianMetric):
    """What :class:`KernelMetric` computes from its numbers, whatever they come from."""

    pytree_data_fields = ("centroids", "precisions", "bandwidth", "regularization")
    centroids: Array
    precisions: Array
    bandwidth: Array
    regularization: Array
    is_diagonal: bool

    @property
    def bump_scale(self) -> Array:
        r"""Width of an isolated bump of the volume in those of the posterior, :math:`\rho / \sqrt d`, shape ``()``."""
        return self.bandwidth / math.sqrt(self.dim)

    @property
    def landmarks(self) -> Array:  # type: ignore[override]  # others hold it
        """Points that every search for a path should know of: the centroids, ``(k, d)``."""
        return self.centroids

    def peaks(self) -> Peaks:
        return jax.lax.stop_gradient(kernel_peaks(jnp, self.centroids, self.precisions, self.bandwidth))

    def footprint(self, order: int) -> int:
        """Numbers held at one point: tables over the centroids.

        Args:
            order: of the derivatives of G.
        """
        return kernel.footprint(4, self.centroids.shape[-2], self.dim, self.is_diagonal, order)

    # ---------------------------------------------------------------- values

    def diagonal(self, z: Array) -> Array:
        """Diagonal of G(z), ``(*batch, d)``: all of G if the precisions are diagonal."""
        if not self.is_diagonal:
            return jnp.diagonal(self.metric(z), axis1=-2, axis2=-1)
        return _diagonal(self, check_point("z", z, self.dim))

    def metric(self, z: Array) -> Array:
        return _metric(self, check_point("z", z, self.dim))

    def cholesky(self, z: Array) -> Array:
        return _diag_embed(jnp.sqrt(self.diagonal(z))) if self.is_diagonal else super().cholesky(z)

    def logdet(self, z: Array) -> Array:
        return jnp.log(self.diagonal(z)).sum(-1) if self.is_diagonal else super().logdet(z)

    def inner(self, z: Array, u: Array, v: Array) -> Array:
        return (u * self.diagonal(z) * v).sum(-1) if self.is_diagonal else super().inner(z, u, v)

    def coverage(self, codes: Array) -> Array:
        r"""Share of ``codes``, ``(..., d)``, where G is not just its floor.

        That is, where the kernels outweigh it: :math:`\mathrm{tr}(G - \lambda I) > \lambda d`.

        Well below 1 the kernels are isolated bumps: use a larger bandwidth or more centroids.
        """
        return 1 - self.on_floor(codes).mean()

    def on_floor(self, z: Array) -> Array:
        r"""Where the kernels do not outweigh the floor at ``z``, :math:`\mathrm{tr}(G - \lambda I) \le \lambda d`.

        Shape ``(*batch)``.
        """
        diagonal = self.diagonal(z)
        floor = self.regularization.astype(diagonal.dtype)
        return (diagonal - floor).mean(-1) <= floor

    # ---------------------------------------------------------------- first derivatives

    def metric_jacobian(self, z: Array) -> tuple[Array, Array]:
        if not self.is_diagonal:
            return _full_jacobian(self, check_point("z", z, self.dim))
        diagonal, slope = _diagonal_jacobian(self, check_point("z", z, self.dim))
        return _diag_embed(diagonal), slope[..., :, None, :] * jnp.eye(self.dim, dtype=slope.dtype)[:, :, None]

    def metric_derivatives(self, z: Array, v: Array) -> tuple[Array, Array, Array]:
        if not self.is_diagonal:
            return super().metric_derivatives(z, v)
        diagonal, slope = _diagonal_jacobian(self, check_point("z", z, self.dim))
        along = (slope * v[..., None, :]).sum(-1)
        return _diag_embed(diagonal), slope * v[..., None], _diag_embed(along)

    def speed_hessian(self, z: Array, v: Array) -> Array:
        if not self.is_diagonal:
            return super().speed_hessian(z, v)
        return _speed_hessian(self, check_point("z", z, self.dim), v)

    def logdet_gradient(self, z: Array) -> Array:
        if not self.is_diagonal:
            return super().logdet_gradient(z)
        return _logdet_gradient(self, check_point("z", z, self.dim))

    def christoffel(self, z: Array, v: Array) -> Array:
        if not self.is_diagonal:
            return super().christoffel(z, v)
        return _christoffel(self, check_point("z", z, self.dim), v)

    def drift(self, z: Array) -> Array:
        if not self.is_diagonal:
            return super().drift(z)
        return _drift(self, check_point("z", z, self.dim))


# ---------------------------------------------------------------- compiled, the metric as an argument


def _parts(metric: KernelSum, z: Array) -> dict[str, Array]:
    """Points and centroids about the mean centroid, kernel weights ``(*batch, k)``, precisions and factor."""
    centroids, precisions = metric.centroids.astype(z.dtype), metric.precisions.astype(z.dtype)
    centre = jax.lax.stop_gradient(centroids.mean(0))
    z, centroids = z - centre, centroids - centre
    factor = -(metric.bandwidth.astype(z.dtype) ** -2)
    weights = jnp.exp(factor * squared_distances(z, centroids, precisions))
    return {"z": z, "weights": weights, "centroids": centroids, "precisions": precisions, "factor": factor}


def _floor(metric: KernelSum, z: Array) -> Array:
    return metric.regularization.astype(z.dtype)


def _diag_embed(diagonal: Array) -> Array:
    return diagonal[..., None] * jnp.eye(diagonal.shape[-1], dtype=diagonal.dtype)


@jax.jit
@exact_products
def _diagonal(metric: KernelSum, z: Array) -> Array:
    parts = _parts(metric, z)
    return parts["weights"] @ parts["precisions"] + _floor(metric, z)


@jax.jit
@exact_products
def _metric(metric: KernelSum, z: Array) -> Array:
    if metric.is_diagonal:
        return _diag_embed(_diagonal(metric, z))
    parts = _parts(metric, z)
    kernels = jnp.einsum("...k,kij->...ij", parts["weights"], parts["precisions"])
    return kernels + _floor(metric, z) * jnp.eye(metric.dim, dtype=z.dtype)


@jax.jit
@exact_products
def _diagonal_jacobian(metric: KernelSum, z: Array) -> tuple[Array, Array]:
    """Diagonal of G and ``d G_ii / d z_j``, ``(*batch, d, d)``."""
    parts = _parts(metric, z)
    return parts["weights"] @ parts["precisions"] + _floor(metric, z), _sum_of_blocks(**parts)


def _sum_of_blocks(z: Array, weights: Array, centroids: Array, precisions: Array, factor: Array) -> Array:
    """:func:`kernel.diagonal_jacobian`, of as many centroids at a time as it may be asked of."""
    (count, dim), rows = centroids.shape, kernel.block(centroids.shape[-1])
    if count <= rows:
        found: Array = kernel.diagonal_jacobian(jnp, z, weights, centroids, precisions, factor)
        return found
    missing = -count % rows  # kernels of weight 0
    weights = jnp.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, missing)])
    parts = (jnp.pad(part, [(0, missing), (0, 0)]).reshape(-1, rows, dim) for part in (centroids, precisions))
    blocks = jnp.moveaxis(weights.reshape(*weights.shape[:-1], -1, rows), -2, 0), *parts

    @jax.checkpoint
    def add(total: Array, block: tuple[Array, Array, Array]) -> tuple[Array, None]:
        return total + kernel.diagonal_jacobian(jnp, z, *block, factor), None

    return jax.lax.scan(add, jnp.zeros((*z.shape, dim), z.dtype), blocks)[0]


@jax.jit
@exact_products
def _speed_hessian(metric: KernelSum, z: Array, v: Array) -> Array:
    parts = _parts(metric, z)
    found: Array = kernel.speed_hessian(jnp, parts.pop("z"), v, **parts)
    return found


@jax.jit
@exact_products
def _full_jacobian(metric: KernelSum, z: Array) -> tuple[Array, Array]:
    parts = _parts(metric, z)
    precisions, weights = parts["precisions"], parts["weights"]
    pull = jnp.einsum("kij,...kj->...ki", precisions, parts["z"][..., None, :] - parts["centroids"])
    slope = jnp.einsum("...k,...kl,kij->...ijl", 2 * parts["factor"] * weights, pull, precisions)
    kernels = jnp.einsum("...k,kij->...ij", weights, precisions)
    return kernels + _floor(metric, z) * jnp.eye(metric.dim, dtype=z.dtype), slope


@jax.jit
@exact_products
def _logdet_gradient(metric: KernelSum, z: Array) -> Array:
    return kernel.logdet_gradient(**_parts(metric, z), floor=_floor(metric, z))


@jax.jit
@exact_products
def _christoffel(metric: KernelSum, z: Array, v: Array) -> Array:
    return kernel.christoffel(v=v, **_parts(metric, z), floor=_floor(metric, z))


@jax.jit
@exact_products
def _drift(metric: KernelSum, z: Array) -> Array:
    return kernel.drift(**_parts(metric, z), floor=_floor(metric, z))
