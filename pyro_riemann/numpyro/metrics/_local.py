"""The metric that data make by their local covariance."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas import kernel
from pyro_riemann.numpyro._checks import check_array, check_finite, check_point
from pyro_riemann.numpyro.metrics._base import RiemannianMetric

_LANDMARKS = 512  # of the data, at most


class LocalMetric(RiemannianMetric):
    r"""Inverse of the local diagonal covariance of data: short where data are, long where there are none.

    .. math:: G_{jj}(z) = \Big(\sum_n w_n(z)\,(x_{nj} - z_j)^2 + \rho\Big)^{-1}, \qquad
        w_n(z) = e^{-|x_n - z|^2 / 2 \sigma^2} .

    Curves follow the data. Far from them G is :math:`I / \rho`, flat; :meth:`on_floor` tells where. With Riemannian or
    wrapped normals on it this is the locally adaptive normal distribution (LAND). Each evaluation takes all data:
    tabulate the metric where d <= 3.

    Args:
        data: ``(n, d)``.
        bandwidth: :math:`\sigma`, the distance over which data count as near.
        regularization: :math:`\rho`, in squared units of the data.

    Raises:
        TypeError: if ``data`` is not a floating array.
        ValueError: if ``data`` has another shape or is not finite, or a number is not positive and finite.

    Source: Arvanitidis, Hansen & Hauberg (2016), *A locally adaptive normal distribution*, section 3; Hauberg, Freifeld
    & Black (2012), *A geometric take on metric learning*.

    Example:
        >>> from pyro_riemann.numpyro.metrics import LocalMetric
        >>> ring = jnp.linspace(0, 6, 60)
        >>> metric = LocalMetric(jnp.stack([jnp.cos(ring), jnp.sin(ring)], -1), bandwidth=0.3)
        >>> bool(metric.logdet(jnp.zeros(2)) > metric.logdet(jnp.array([1.0, 0.0])))
        True
    """

    pytree_data_fields = ("data",)

    def __init__(self, data: Array, bandwidth: float, regularization: float = 1e-3) -> None:
        data = check_finite("data", check_array("data", data))
        if data.ndim != 2 or not data.size:
            raise ValueError(f"`data` must have shape (n, d), got {data.shape}.")
        for name, value in (("bandwidth", bandwidth), ("regularization", regularization)):
            if not 0 < value < math.inf:
                raise ValueError(f"`{name}` must be positive and finite, got {value}.")
        self.dim, self.bandwidth, self.regularization = data.shape[1], float(bandwidth), float(regularization)
        self.data = data

    def __repr__(self) -> str:
        return f"LocalMetric(dim={self.dim}, bandwidth={self.bandwidth:g}, regularization={self.regularization:g})"

    def footprint(self, order: int) -> int:
        """Numbers held at one point: tables over the data.

        Args:
            order: of the derivatives of G.
        """
        return self.data.size * (3 + self.dim * max(order, 0))

    def _variance(self, z: Array) -> Array:
        return kernel.local_variance(jnp, check_point("z", z, self.dim), self.data.astype(z.dtype), self.bandwidth)

    def metric(self, z: Array) -> Array:
        scale = 1 / (self._variance(z) + self.regularization)
        return scale[..., None] * jnp.eye(self.dim, dtype=scale.dtype)

    def cholesky(self, z: Array) -> Array:
        return jnp.sqrt(self.metric(z))

    def logdet(self, z: Array) -> Array:
        return -jnp.log(self._variance(z) + self.regularization).sum(-1)

    def inner(self, z: Array, u: Array, v: Array) -> Array:
        return (u * v / (self._variance(z) + self.regularization)).sum(-1)

    def metric_jacobian(self, z: Array) -> tuple[Array, Array]:
        scale = 1 / (self._variance(z) + self.regularization)
        eye = jnp.eye(self.dim, dtype=scale.dtype)
        slope = kernel.local_variance_jacobian(jnp, z, self.data.astype(z.dtype), self.bandwidth, eye)
        return scale[..., None] * eye, -(jnp.square(scale)[..., None] * slope)[..., :, None, :] * eye[..., None]

    def on_floor(self, z: Array) -> Array | None:
        """Where the data say less than the regularization in every coordinate, ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
        """
        return (self._variance(z) < self.regularization).all(-1)

    def coverage(self, codes: Array) -> Array | float | None:
        """Share of ``codes``, ``(..., d)``, that are not on the floor."""
        return 1 - (self._variance(codes) < self.regularization).all(-1).mean()

    @property
    def landmarks(self) -> Array | None:  # type: ignore[override]  # others hold it
        """Some of the data, ``(k, d)``: shortest curves run through them."""
        return self.data[:: -(-len(self.data) // _LANDMARKS)]
