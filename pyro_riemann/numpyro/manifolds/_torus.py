"""Flat tori and cylinders."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import densities, torus
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann.numpyro._checks import check_point, holds, is_traced
from pyro_riemann.numpyro.manifolds import _heat_kernel
from pyro_riemann.numpyro.metrics import EuclideanMetric

_IMAGES = 10_000  # at most, in the sum of a tangent Gaussian with a covariance
_TRACED = 5  # on either side, where the covariance cannot be read


class FlatTorus(EuclideanMetric):
    """The flat torus, R^d with ``z`` and ``z + period`` the same point.

    The chart is the covering space R^d with the identity metric, as for ``numpyro.distributions.VonMises``:
    any real ``z`` is accepted, distances and densities are periodic, and a density has mass 1 over one
    period (not over R^d). ``expmap`` and ``geodesic`` move continuously and do not wrap: a geodesic
    from ``z`` to ``y`` ends at the image of ``y`` nearest to ``z``. :meth:`wrap` brings points back to
    ``[-period / 2, period / 2)``.

    An infinite period leaves its axis a line: ``FlatTorus(2, [2 * jnp.pi, jnp.inf])`` is the
    flat cylinder. Half a period away (the cut locus) two images are equally near; the tie is
    broken one way or the other, and gradients there are one-sided.

    Args:
        dim: dimension d.
        periods: period of each axis, one number for all or d of them; positive, may be infinite.

    Raises:
        ValueError: if ``periods`` has the wrong length or is not positive.

    Source: Mardia & Jupp (2000), *Directional Statistics*, section 3.5, for the wrapped normal law.

    Example:
        >>> torus = FlatTorus(2)  # two angles
        >>> round(torus.dist(jnp.array([3.0, 0.0]), jnp.array([-3.0, 0.0])).item(), 4)  # 2 pi - 6
        0.2832
    """

    pytree_data_fields = ("periods",)
    periods: Array

    def __init__(self, dim: int, periods: Any = 2 * np.pi) -> None:
        super().__init__(dim)
        # a traced period is kept, a known one is a NumPy array: float64, whatever the precision JAX works in now
        value: Any = periods if isinstance(periods, Array) else np.asarray(periods, np.float64)
        if value.ndim > 1 or (value.ndim == 1 and len(value) != dim):
            raise ValueError(f"`periods` must be one number or {dim} of them, got shape {value.shape}.")
        if not holds(value > 0):
            raise ValueError(f"`periods` must be positive (or infinite), got {np.asarray(value).tolist()}.")
        self.periods = value + np.zeros(dim)

    def __repr__(self) -> str:
        return f"FlatTorus(dim={self.dim}, periods={self.periods})"

    @property
    def is_uniquely_geodesic(self) -> bool | None:  # type: ignore[override]  # others hold it
        """Whether no axis has a finite period."""
        return not is_traced(self.periods) and bool(np.isinf(np.asarray(self.periods)).all())

    def wrap(self, z: Array) -> Array:
        """The image ``(*batch, d)`` of ``z`` in ``[-period / 2, period / 2)``, axis by axis; derivative 1."""
        z = check_point("z", z, self.dim)
        return torus.wrap(jnp, z, jnp.asarray(self.periods, z.dtype))

    def radial_law(self) -> RadialLaw | None:
        return RadialLaw(0.0, self.periods)

    def injectivity_radius(self, z: Array) -> Array | None:
        return jnp.broadcast_to(jnp.asarray(self.periods, z.dtype).min() / 2, z.shape[:-1])

    def logmap(self, z: Array, y: Array) -> Array:
        return self.wrap(y - z)

    def squared_dist(self, z: Array, y: Array) -> Array:
        return jnp.square(self.wrap(y - z)).sum(-1)

    def log_folded_density(self, z: Array, y: Array, time: Array) -> Array | None:
        return self.log_heat_kernel(z, y, time)  # on flat manifolds the same law

    def log_folded_normal(self, z: Array, y: Array, factor: Array) -> Array | None:
        """Log density of a tangent Gaussian, summed over the images of ``y``, ``(*batch)``.

        Under a transformation of JAX, where the covariance cannot be read, over five images on either side: NaN where
        more count, which is from a marginal deviation of 0.46 periods on.

        Args:
            z: start, ``(*batch, d)``.
            y: end, ``(*batch, d)``.
            factor: matrices whose squares are the covariances of the tangent vectors, ``(*batch, d, d)``.

        Raises:
            NotImplementedError: where more than 10,000 images count.
        """
        width, periods = jnp.sqrt(jnp.square(factor).sum(-1)), jnp.asarray(self.periods, z.dtype)
        if is_traced(factor, self.periods):
            counts = [_TRACED] * self.dim
        else:
            known = np.asarray(width).reshape(-1, self.dim)
            counts = torus.num_images(known.max(0).tolist() if len(known) else [0.0] * self.dim, periods.tolist())
        if (size := math.prod(2 * count + 1 for count in counts)) > _IMAGES:
            raise NotImplementedError(
                f"A tangent Gaussian so wide on a torus of periods {self.periods} is a sum over {size} images: give a "
                "smaller covariance, or `time`, whose sum is one an axis."
            )
        enough = (width <= torus.widest(jnp, jnp.array(counts), periods)).all(-1)
        shifts, exist = torus.shifts(jnp, jnp.array(torus.images(counts)), periods)
        step = self.wrap(y - z)
        around = (-1, *(1,) * (step.ndim - 1))
        step = step + shifts.reshape(*around, self.dim)
        noise = jnp.square(jnp.linalg.solve(factor, step[..., None])[..., 0]).sum(-1)
        log_factor = jnp.linalg.slogdet(factor).logabsdet
        zero = jnp.zeros_like(log_factor)
        terms = densities.tangent_normal(jnp, self.dim, noise, log_factor, zero, zero)
        terms = jnp.where(exist.reshape(around), terms, -jnp.inf)
        return jnp.where(enough, jax.nn.logsumexp(terms, 0), jnp.nan)

    def log_heat_kernel(self, z: Array, y: Array, time: float | Array) -> Array:
        """Log transition density of Brownian motion at variance ``time``, exact: a wrapped normal per axis.

        With respect to dM = dz over one period; shape ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance, positive, a number or ``(*batch)``.

        Raises:
            ValueError: if ``time`` is not finite and positive.

        Example:
            >>> torus = FlatTorus(1, periods=1.0)
            >>> kernel = torus.log_heat_kernel(jnp.zeros(1), jnp.full((1,), 0.5), time=10.0)
            >>> round(jnp.exp(kernel).item(), 4)  # uniform after a long time
            1.0
        """
        step = self.wrap(y - z)
        return _heat_kernel.circle(step, _heat_kernel.as_time(time, step)[..., None], self.periods).sum(-1)
