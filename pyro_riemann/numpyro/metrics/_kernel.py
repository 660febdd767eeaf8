"""The metric of a trained encoder: a mixture of its posterior precisions."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas.medoids import scale_fault, triangular_fault
from pyro_riemann.numpyro._checks import check_array, check_finite, check_positive, holds
from pyro_riemann.numpyro.metrics._kernel_rules import k_medoids, kernel_bandwidth
from pyro_riemann.numpyro.metrics._kernel_sum import KernelSum


class KernelMetric(KernelSum):
    r"""Kernel-smoothed precisions (Chadebec & Allassonniere 2022, eq. 7).

    .. math:: G(z) = \sum_{i=1}^k P_i \exp\bigl(-|z - c_i|^2_{P_i} / \rho^2\bigr) + \lambda I,
        \qquad |u|^2_{P} = u^\top P u.

    With diagonal precisions time is O(n k d) and memory O(n (k + d)) for :meth:`diagonal`, :meth:`logdet`, their
    gradients, :meth:`christoffel` and :meth:`drift`. No double precision is needed: in float32
    exponents are formed from differences, all else from coordinates about the mean centroid.

    The volume is infinite (lambda > 0 far away), and shortest curves run through the void
    between the centroids, where G is smallest; :meth:`conformal` has curves that follow the data.

    Args:
        centroids: :math:`c_i`, ``(k, d)``.
        precisions: :math:`P_i`; diagonals ``(k, d)`` or matrices ``(k, d, d)``.
        bandwidth: :math:`\rho > 0`, a number, in units of the norms :math:`|\cdot|_{P_i}`.
        regularization: :math:`\lambda > 0`, a number.

    All four are data of the pytree: differentiate with respect to the metric, or map over a batch of metrics.

    Raises:
        ValueError: for shapes that do not match, NaN, precisions that are not positive (definite
            and symmetric), a bandwidth or regularization that is not positive.
        TypeError: if ``centroids`` or ``precisions`` is not a floating array.

    Example:
        >>> metric = KernelMetric(jnp.array([[0.0, 0.0], [1.0, 0.0]]), jnp.full((2, 2), 4.0), 2.0, 0.1)
        >>> metric.metric(jnp.zeros(2)).round(4).tolist()
        [[5.571499824523926, 0.0], [0.0, 5.571499824523926]]
    """

    def __init__(
        self, centroids: Array, precisions: Array, bandwidth: float | Array, regularization: float | Array = 1e-3
    ) -> None:
        centroids, precisions = check_array("centroids", centroids), check_array("precisions", precisions)
        if centroids.ndim != 2 or 0 in centroids.shape:
            raise ValueError(f"`centroids` must have shape (k, d), got {centroids.shape}.")
        k, d = centroids.shape
        if precisions.shape not in ((k, d), (k, d, d)):
            raise ValueError(
                f"`precisions` must have shape ({k}, {d}) or ({k}, {d}, {d}) to match `centroids`, "
                f"got {precisions.shape}."
            )
        check_finite("centroids", centroids)
        check_finite("precisions", precisions)
        if precisions.ndim == 2:
            check_positive("precisions", precisions)
        else:
            if not holds(jnp.allclose(precisions, precisions.mT, rtol=1e-4)):
                raise ValueError("`precisions` must be symmetric; use (precisions + precisions.mT) / 2.")
            definite = jnp.isfinite(jnp.linalg.cholesky(precisions)).all((-2, -1))
            if not holds(definite):
                raise ValueError(f"`precisions` has {int((~definite).sum())} matrices that are not positive definite.")
        scalars = {}
        for name, value in (("bandwidth", bandwidth), ("regularization", regularization)):
            scalar = jnp.asarray(value, centroids.dtype)
            if scalar.ndim != 0:
                raise ValueError(f"`{name}` must be a number, got an array of shape {scalar.shape}.")
            scalars[name] = check_positive(name, scalar)
        self.centroids, self.precisions = centroids, precisions
        self.bandwidth, self.regularization = scalars["bandwidth"], scalars["regularization"]
        self.dim, self.is_diagonal = d, precisions.ndim == 2

    @classmethod
    def from_posterior(
        cls,
        loc: Array,
        scale: Array,
        num_centroids: int = 100,
        bandwidth: str | float = "posterior",
        regularization: float = 1e-3,
        seed: int = 0,
        max_codes: int = 10_000,
        *,
        factor: float = 1.0,
    ) -> KernelMetric:
        r"""Metric of a VAE from its encoded training data.

        Centroids are k-medoids of the posterior means, precisions the inverse posterior covariances there. An isolated
        bump of :math:`\sqrt{\det G}` is :math:`N(c_i, (\rho^2 / d) \Sigma_i)`: with :math:`\rho = \sqrt d` draws of the
        uniform law are draws of the posteriors at the centroids. Bumps that overlap lift each other by powers of
        d / 2, until all draws crowd on a few codes; the default narrows them until they do not. Runs
        on the host, not under ``jit``; the same codes and seed give the same centroids as the torch class.

        Args:
            loc: posterior means of the training data, ``(N, d)``.
            scale: posterior standard deviations, ``(N, d)``, or Cholesky factors of covariances, ``(N, d, d)``, of
                which the metric has full precisions. Of draws, of a flow say, :func:`posterior_moments` has both.
            num_centroids: k.
            bandwidth: a number, or a rule: ``"posterior"``, :math:`\sqrt d` times the largest factor from 0.05 to 1, in
                steps of 5 %, at which 95 % of the bumps are in effect, by the heights to which they are lifted;
                ``"mahalanobis"``,
                :math:`\max_i \min_{j \ne i} |c_i - c_j|_{P_i}`, so that neighbouring kernels overlap, for geodesics:
                draws may lie far from all codes; ``"euclidean"``, Chadebec & Allassonniere's
                :math:`\max_i \min_{j \ne i} |c_i - c_j|_2`, a Euclidean length against the kernel's Mahalanobis
                distance (see :meth:`coverage`).
            regularization: :math:`\lambda`.
            seed: of the k-medoids search.
            max_codes: with more codes than this, medoids are searched in several random subsets of
                this size, and the set that serves all codes best is kept.
            factor: multiplies the bandwidth. :attr:`bump_scale` shows the standard deviation of an isolated bump in
                those of the posterior.

        Raises:
            ValueError: if shapes differ, ``scale`` is not positive, or there are fewer codes than centroids.
            ImportError: if ``kmedoids`` is not installed, which the extra `kernel` brings.
            TypeError: if ``loc`` or ``scale`` is not a floating array.
        """
        loc, scale = check_array("loc", loc), check_array("scale", scale)
        if loc.ndim != 2 or scale.shape not in (loc.shape, (*loc.shape, loc.shape[-1])):
            raise ValueError(
                "`loc` and `scale` must have the same shape (N, d), or `scale` (N, d, d) for Cholesky factors of "
                f"covariances; got {loc.shape} and {scale.shape}."
            )
        check_finite("loc", loc)
        check_finite("scale", scale)
        if fault := (scale_fault if scale.ndim == 2 else triangular_fault)(np.asarray(scale)):
            raise ValueError(fault)
        chosen = k_medoids(loc, num_centroids, seed, max_codes)
        centroids, spread = loc[chosen], scale[chosen]
        if spread.ndim == 2:
            precisions = spread**-2
        else:
            root = jnp.linalg.inv(spread)
            precisions = root.mT @ root
        if isinstance(bandwidth, str):
            bandwidth = kernel_bandwidth(centroids, precisions, bandwidth)
        return cls(centroids, precisions, factor * bandwidth, regularization)

    def __repr__(self) -> str:
        k, d = self.centroids.shape[-2:]
        return f"KernelMetric(dim={d}, num_centroids={k}, diagonal={self.is_diagonal})"
