"""Products of metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import densities
from pyro_riemann.numpyro._checks import check_point
from pyro_riemann.numpyro._interface import Settings
from pyro_riemann.numpyro._pytree import Pytree
from pyro_riemann.numpyro.geodesics import Geodesic, GeodesicSolver
from pyro_riemann.numpyro.metrics import RiemannianMetric


class ProductMetric(RiemannianMetric):
    r"""The product of Riemannian manifolds: :math:`G(z) = \mathrm{diag}(G_1(z_1), \dots, G_m(z_m))`.

    The chart is the factors' charts side by side, :math:`z = (z_1, \dots, z_m)`. Squared distances, curvatures and
    log densities are sums over the factors, and geodesics run in each of them at constant speed, so that what is a
    closed form in all factors is one here. Normalising constants and draws come from those of the factors.

    Args:
        metrics: the factors, at least one. The same metric may come twice.

    Raises:
        TypeError: if one of them is no metric.
        ValueError: if there is none.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 2; Gu, Sala, Gunel & Re (2019), *Learning
    mixed-curvature representations in product spaces*.

    Example:
        >>> metric = ProductMetric([Sphere(2), EuclideanMetric(1)])
        >>> z, y = jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 1.0, 2.0])
        >>> round(metric.squared_dist(z, y).item(), 4)  # (pi / 2)^2 + 4
        6.4674
        >>> [part.shape[-1] for part in metric.split(z)]
        [2, 1]
    """

    pytree_data_fields = ("factors",)
    factors: tuple[RiemannianMetric, ...] = ()

    def __init__(self, metrics: Sequence[RiemannianMetric]) -> None:
        metrics = list(metrics)
        for metric in metrics:
            if not isinstance(metric, RiemannianMetric):
                raise TypeError(f"`metrics` must be RiemannianMetrics, got {type(metric).__name__}.")
        if not metrics:
            raise ValueError("`metrics` must hold at least one metric.")
        self.factors = tuple(metrics)
        self.dim = sum(metric.dim for metric in metrics)

    def __repr__(self) -> str:
        return f"ProductMetric({list(self.factors)})"

    def split(self, z: Array) -> tuple[Array, ...]:
        """Points or vectors as those of the factors: of dimension k, ``(*batch, k)``.

        Args:
            z: points or vectors, ``(*batch, d)``.
        """
        ends = np.cumsum([metric.dim for metric in self.factors])[:-1]
        return tuple(jnp.split(check_point("z", z, self.dim, self), ends, axis=-1))

    def ambient_hint(self, shape: tuple[int, ...]) -> str:
        parts = ", ".join(f"{type(metric).__name__}({metric.dim})" for metric in self.factors)
        return f" The chart of this product is those of {parts} side by side."

    @property
    def solver(self) -> GeodesicSolver:
        """Settings of the boundary-value solver: those of the first factor; what is assigned goes to all of them."""
        return self.factors[0].solver

    @solver.setter
    def solver(self, value: GeodesicSolver) -> None:
        for metric in self.factors:
            metric.solver = value

    def _sum(self, function: Callable[..., Array], *arguments: Array) -> Array:
        """Sum over the factors of ``function(metric, *parts)``."""
        parts = zip(self.factors, *map(self.split, arguments), strict=True)
        total = jnp.zeros_like(arguments[0][..., 0])
        for metric, *args in parts:
            total = total + function(metric, *args)
        return total

    def _join(self, function: Callable[..., Array], *arguments: Array) -> Array:
        """The factors' ``function(metric, *parts)`` side by side."""
        parts = zip(self.factors, *map(self.split, arguments), strict=True)
        return jnp.concat([function(metric, *args) for metric, *args in parts], axis=-1)

    def _blocks(self, blocks: list[Array]) -> Array:
        """Matrices ``(*batch, d_i, d_i)`` along the diagonal of one."""
        before, rows = 0, []
        for block in blocks:
            size = block.shape[-1]
            after = self.dim - before - size
            rows.append(jnp.pad(block, [(0, 0)] * (block.ndim - 1) + [(before, after)]))
            before += size
        return jnp.concat(rows, axis=-2)

    # ---------------------------------------------------------------- pointwise

    def metric(self, z: Array) -> Array:
        return self._blocks([metric.metric(part) for metric, part in zip(self.factors, self.split(z), strict=True)])

    def cholesky(self, z: Array) -> Array:
        return self._blocks([metric.cholesky(part) for metric, part in zip(self.factors, self.split(z), strict=True)])

    def logdet(self, z: Array) -> Array:
        return self._sum(lambda metric, x: metric.logdet(x), z)

    def logdet_gradient(self, z: Array) -> Array:
        return self._join(lambda metric, x: metric.logdet_gradient(x), z)

    def inner(self, z: Array, u: Array, v: Array) -> Array:
        return self._sum(lambda metric, x, a, b: metric.inner(x, a, b), *jnp.broadcast_arrays(z, u, v))

    def metric_derivatives(self, z: Array, v: Array) -> tuple[Array, Array, Array]:
        z, v = jnp.broadcast_arrays(z, v)
        parts = zip(self.factors, self.split(z), self.split(v), strict=True)
        found = [metric.metric_derivatives(x, a) for metric, x, a in parts]
        first, second, third = (self._blocks(list(blocks)) for blocks in zip(*found, strict=True))
        return first, second, third

    def speed_hessian(self, z: Array, v: Array) -> Array:
        z, v = jnp.broadcast_arrays(z, v)
        parts = zip(self.factors, self.split(z), self.split(v), strict=True)
        return self._blocks([metric.speed_hessian(x, a) for metric, x, a in parts])

    def christoffel(self, z: Array, v: Array) -> Array:
        return self._join(lambda metric, x, a: metric.christoffel(x, a), *jnp.broadcast_arrays(z, v))

    def drift(self, z: Array) -> Array:
        return self._join(lambda metric, x: metric.drift(x), z)

    def scalar_curvature(self, z: Array) -> Array:
        return self._sum(lambda metric, x: metric.scalar_curvature(x), z)

    @property
    def is_symmetric(self) -> bool:  # type: ignore[override]  # others hold it
        """Whether all factors are symmetric."""
        return all(metric.is_symmetric for metric in self.factors)

    @property
    def is_uniquely_geodesic(self) -> bool | None:  # type: ignore[override]  # others hold it
        """Whether all factors are; None where that is not known of one."""
        known = [metric.is_uniquely_geodesic for metric in self.factors]
        return False if False in known else None if None in known else True

    def injectivity_radius(self, z: Array) -> Array | None:
        parts = zip(self.factors, self.split(z), strict=True)
        radii = [radius for metric, x in parts if (radius := metric.injectivity_radius(x)) is not None]
        return jnp.stack(radii).min(0) if len(radii) == len(self.factors) else None

    def on_floor(self, z: Array) -> Array | None:
        """Where one of the factors is on its floor, ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
        """
        return _any([metric.on_floor(x) for metric, x in zip(self.factors, self.split(z), strict=True)])

    def covers(self, z: Array) -> Array | None:
        """Where all factors are known, ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
        """
        known = [metric.covers(x) for metric, x in zip(self.factors, self.split(z), strict=True)]
        unknown = _any([None if part is None else ~part for part in known])
        return None if unknown is None else ~unknown

    # ---------------------------------------------------------------- geodesics

    def expmap(self, z: Array, v: Array) -> Array:
        return self._join(lambda metric, x, a: metric.expmap(x, a), *jnp.broadcast_arrays(z, v))

    def expmap_log_van_vleck(self, z: Array, v: Array) -> tuple[Array, Array]:
        z, v = jnp.broadcast_arrays(z, v)
        parts = zip(self.factors, self.split(z), self.split(v), strict=True)
        points, logs = zip(*(metric.expmap_log_van_vleck(x, a) for metric, x, a in parts), strict=True)
        return jnp.concat(points, axis=-1), jnp.stack(logs).sum(0)

    def logmap(self, z: Array, y: Array) -> Array:
        return self._join(lambda metric, x, a: metric.logmap(x, a), *jnp.broadcast_arrays(z, y))

    def squared_dist(self, z: Array, y: Array) -> Array:
        return self._sum(lambda metric, x, a: metric.squared_dist(x, a), *jnp.broadcast_arrays(z, y))

    def log_van_vleck(self, z: Array, y: Array) -> Array:
        return self._sum(lambda metric, x, a: metric.log_van_vleck(x, a), *jnp.broadcast_arrays(z, y))

    def geodesic(self, z: Array, y: Array, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        z, y = jnp.broadcast_arrays(z, y)
        parts = zip(self.factors, self.split(z), self.split(y), strict=True)
        curves = [metric.geodesic(x, a, init=init, **settings) for metric, x, a in parts]
        curve = _Curves(curves)
        energy = jnp.stack([part.energy for part in curves]).sum(0)
        length = jnp.linalg.norm(jnp.stack([part.length for part in curves]), axis=0)
        converged = jnp.stack([part.converged for part in curves]).all(0)
        count = max(len(part.points) for part in curves)
        return Geodesic(curve(jnp.linspace(0, 1, count, dtype=z.dtype)), length, energy, converged, curve)

    def log_folded_density(self, z: Array, y: Array, time: Array) -> Array | None:
        z, y = jnp.broadcast_arrays(z, y)
        parts = zip(self.factors, self.split(z), self.split(y), strict=True)
        total = None
        for metric, x, a in parts:
            value = metric.log_folded_density(x, a, time)
            if value is None:
                return None
            total = value if total is None else total + value
        return total

    def log_folded_normal(self, z: Array, y: Array, factor: Array) -> Array | None:
        """Log density of a tangent Gaussian carried to ``y``, ``(*batch)``, where one geodesic leads there.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            factor: matrices whose squares are the covariances of the tangent vectors, ``(*batch, d, d)``.

        Raises:
            NotImplementedError: on a product with a sphere or a torus, where geodesics meet again; a product of laws,
                one a factor, is known there.
        """
        unique = [metric.is_uniquely_geodesic for metric in self.factors]
        if any(one is None for one in unique):
            return None
        if not all(unique):
            folding = ", ".join(type(m).__name__ for m, one in zip(self.factors, unique, strict=True) if not one)
            raise NotImplementedError(
                f"A tangent Gaussian with a covariance of its own on a product with {folding}, where geodesics meet "
                "again, has no density in closed form. Give `time`, or a law for every factor."
            )
        noise = jnp.square(jnp.linalg.solve(factor, self.logmap(z, y)[..., None])[..., 0]).sum(-1)
        log_van_vleck = self.log_van_vleck(z, y)
        return densities.tangent_normal(
            jnp, self.dim, noise, jnp.linalg.slogdet(factor).logabsdet, self.logdet(z), log_van_vleck
        )

    def log_heat_kernel(self, z: Array, y: Array, time: float | Array) -> Array:
        """Log heat kernel, ``(*batch)``, with respect to dM: the sum of those of the factors, which move independently.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            NotImplementedError: if that of a factor has no closed form.
        """
        z, y = jnp.broadcast_arrays(z, y)
        return self._sum(lambda metric, x, a: metric.log_heat_kernel(x, a, time), z, y)


class _Curves(Pytree):
    """Curves in the factors as one in the product, at a list of times."""

    pytree_data_fields = ("parts",)

    def __init__(self, parts: list[Geodesic]) -> None:
        self.parts = parts

    def __call__(self, times: Array) -> Array:
        return jnp.concat([part(times) for part in self.parts], axis=-1)


def _any(masks: list[Array | None]) -> Array | None:
    known = [mask for mask in masks if mask is not None]
    return jnp.stack(known).any(0) if known else None
