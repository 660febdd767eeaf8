"""Flat tori and cylinders."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas.flat import Torus
from pyro_riemann.numpyro._checks import holds, is_traced
from pyro_riemann.numpyro.manifolds._heat_kernel import ExactKernels
from pyro_riemann.numpyro.metrics import EuclideanMetric

_TRACED = 5  # on either side, where the covariance cannot be read


class FlatTorus(Torus[Array], EuclideanMetric):
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
        >>> kernel = FlatTorus(1, periods=1.0).log_heat_kernel(jnp.zeros(1), jnp.full((1,), 0.5), time=10.0)
        >>> round(jnp.exp(kernel).item(), 4)  # uniform after a long time
        1.0
    """

    pytree_data_fields = ("periods",)
    kernels = ExactKernels()
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
        width = jnp.sqrt(jnp.square(factor).sum(-1))
        if is_traced(factor, self.periods):
            counts = [_TRACED] * self.dim
        else:
            known = np.asarray(width).reshape(-1, self.dim)
            widest = known.max(0).tolist() if len(known) else [0.0] * self.dim
            counts = self._num_images(widest, self.periods.tolist())
        enough = (width <= self._most(counts, width)).all(-1)
        return jnp.where(enough, jax.nn.logsumexp(self._log_images(z, y, factor, counts), 0), jnp.nan)
