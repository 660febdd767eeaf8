"""The precision network of the Riemannian VAE (Kalatzis et al. 2020, section 4 and appendix C)."""

from __future__ import annotations

from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import likelihoods as formulas
from pyro_riemann.numpyro._checks import check_finite, check_key
from pyro_riemann.numpyro._pytree import Pytree, replaced


class RBFPrecision(Pytree):
    r"""Precision of the decoder by radial basis functions, small away from the data.

    .. math:: \beta(z) = W \exp\bigl(-|z - c_k|^2 / (2 h_k^2)\bigr) + \zeta, \qquad W > 0,

    so that the standard deviation :math:`\sigma = \beta^{-1/2}` rises to :math:`\zeta^{-1/2}` where
    there are no codes: the walls of the metric (K20, section 4 and figure 3; the form of the
    network is that of Que & Belkin, 2016, and Arvanitidis et al., 2018).

    Args:
        centers: :math:`c_k`, ``(K, d)``.
        bandwidth: :math:`h_k`, ``(K,)``.
        log_weight: logarithm of W, ``(D, K)``.
        floor: the :math:`\zeta` above. The default lets the standard deviation rise to 10.
        min_scale: least standard deviation, added in quadrature. Without it the likelihood of a
            constant pixel is unbounded.

    Raises:
        ValueError: if the shapes do not match, ``floor`` is not positive, or ``min_scale`` is out of range.

    Example:
        >>> precision = RBFPrecision(jnp.zeros((4, 2)), jnp.ones(4), jnp.zeros((3, 4)))
        >>> precision.scale(jnp.full(2, 1e3)).round(2).tolist()
        [10.0, 10.0, 10.0]
    """

    pytree_data_fields = ("bandwidth", "centers", "log_weight")
    pytree_fixed_fields = ("bandwidth", "centers")  # `fit` places them
    has_jets: ClassVar[bool] = True

    def __init__(
        self, centers: Array, bandwidth: Array, log_weight: Array, floor: float = 1e-2, min_scale: float = 1e-2
    ) -> None:
        num_centers = centers.shape[0]
        if centers.ndim != 2 or bandwidth.shape != (num_centers,) or log_weight.shape[1:] != (num_centers,):
            raise ValueError(
                "`centers`, `bandwidth` and `log_weight` must have shapes (K, d), (K,) and (D, K), got "
                f"{centers.shape}, {bandwidth.shape} and {log_weight.shape}."
            )
        if not floor > 0:
            raise ValueError(f"`floor` must be positive (a zero precision has no standard deviation), got {floor}.")
        if not 0 <= min_scale < floor**-0.5:
            raise ValueError(f"`min_scale` must lie in [0, floor ** -0.5 = {floor**-0.5:.3g}), got {min_scale}.")
        self.centers, self.bandwidth, self.log_weight = centers, bandwidth, log_weight
        self.floor, self.min_scale = float(floor), float(min_scale)

    def precision(self, z: Array) -> Array:
        """Precision beta(z) before the least standard deviation: ``(*batch, d) -> (*batch, D)``."""
        rate = 0.5 / self.bandwidth**2
        # from differences, which XLA fuses, axis by axis: the expanded square cancels digits of float32
        exponent = sum(
            (rate * (z[..., axis, None] - self.centers[:, axis]) ** 2 for axis in range(z.shape[-1])), jnp.zeros(())
        )
        # below -80 single precision has subnormal numbers, which slow matrix products tenfold
        basis = jnp.exp(-jnp.minimum(exponent, 80.0))
        return basis @ jnp.exp(self.log_weight).mT + self.floor

    def scale(self, z: Array) -> Array:
        """Standard deviation ``(*batch, D)`` at ``z`` ``(*batch, d)``, between ``min_scale`` and ``floor ** -0.5``."""
        return jnp.sqrt(1 / self.precision(z) + self.min_scale**2)

    def __call__(self, z: Array) -> Array:
        """The same as :meth:`scale`, ``(*batch, D)`` at ``z``."""
        return self.scale(z)

    def fit(
        self,
        codes: Array,
        residuals: Array | None = None,
        bandwidth: float | None = None,
        bandwidth_factor: float = 1.5,
        max_codes: int = 20_000,
        *,
        key: Array,
    ) -> Self:
        """The network with centres by k-means on encoded training data, and bandwidths and weights to them.

        Args:
            codes: encoded training data, ``(n, d)``.
            residuals: squared residuals of the decoder mean at the codes, ``(n, D)``. Given these, the
                weights start at the inverse mean residual of each cluster; else they stay.
            bandwidth: one length for all centres, instead of ``bandwidth_factor`` times their clusters' mean radius.
            bandwidth_factor: multiple of the clusters' mean radius.
            max_codes: k-means sees at most this many codes (evenly spaced rows).
            key: one key of ``jax.random``, of k-means.

        Raises:
            ValueError: if there are fewer distinct codes than centres, or codes or residuals of the wrong shape.
            TypeError: if ``key`` is no key.
        """
        num_centers, dim = self.centers.shape
        points = formulas.check_codes(np.asarray(check_finite("codes", codes), np.float64), dim, bandwidth)
        seed = int(jax.random.randint(check_key(key), (), 0, 2**31 - 1))
        centers = formulas.cluster_centers(points[:: max(1, len(points) // max_codes)], num_centers, seed)
        nearest, distance = formulas.nearest_centers(points, centers)
        counts = np.bincount(nearest, minlength=num_centers)
        radius = np.bincount(nearest, distance, minlength=num_centers) / np.maximum(counts, 1)
        widths = formulas.bandwidths(np, radius, float(np.median(radius[radius > 0])), bandwidth, bandwidth_factor)
        fitted = {"centers": centers, "bandwidth": widths}
        if residuals is not None:
            formulas.check_residuals(residuals, len(points), len(self.log_weight))
            total = np.asarray(jax.ops.segment_sum(residuals, nearest, num_centers))
            overall = np.asarray(residuals.mean(0))
            apart = np.sqrt(((centers[:, None] - centers) ** 2).sum(-1))
            fitted["log_weight"] = formulas.log_weights(
                np, total, counts[:, None], overall, self.min_scale, apart / widths
            )
        dtype = self.log_weight.dtype
        return replaced(self, **{name: jnp.asarray(value, dtype) for name, value in fitted.items()})
