"""The exponential map as a transform: any law of tangent vectors becomes a law of points."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform

from pyro_riemann.numpyro._box import check_metric
from pyro_riemann.numpyro._checks import check_finite, check_point
from pyro_riemann.numpyro.metrics import RiemannianMetric


class ExponentialMap(Transform):
    r"""Tangent vectors v at ``loc``, in the coordinates of the chart, to points :math:`z = \exp_\mu(v)`.

    .. math::
        \log \left|\det \frac{\partial z}{\partial v}\right|
        = -\log V(z, \mu) + \tfrac12 \log\det G(\mu) - \tfrac12 \log\det G(z)

    ``TransformedDistribution(base, ExponentialMap(metric, loc))`` is the law of a geodesic's end, with any law of its
    first velocity for ``base``; with :math:`N(0, t\,G(\mu)^{-1})` it is :class:`RiemannianWrappedNormal`.

    The determinant is that of the geodesic with the velocity v, by its Jacobi fields; no boundary-value problem is
    solved for it, and with NumPyro's intermediates (as SVI keeps them of a guide's draw) none at all. The inverse is
    the velocity of the shortest geodesic: where geodesics meet again, a density is that of one of several velocities
    that lead to z, as it is for :class:`RiemannianWrappedNormal` on most metrics.

    Args:
        metric: the Riemannian metric.
        loc: the point :math:`\mu`, ``(*batch, d)``.

    Raises:
        TypeError, ValueError: naming the argument at fault.

    Source: Falorsi et al. (2019), *Reparameterizing distributions on Lie groups*, section 3, on groups; here on any
    metric.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> from pyro_riemann.numpyro import Sphere
        >>> base = dist.StudentT(3.0, jnp.zeros(2), 0.2).to_event(1)
        >>> law = dist.TransformedDistribution(base, ExponentialMap(Sphere(2), jnp.zeros(2)))
        >>> law.log_prob(law.sample(jax.random.key(0), (5,))).shape
        (5,)
    """

    domain = constraints.real_vector

    def __init__(self, metric: RiemannianMetric, loc: Array) -> None:
        self.metric = check_metric(metric)
        self.loc = check_finite("loc", check_point("loc", loc, metric.dim))

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]  # a property in NumPyro
        """The chart: all of R^d unless the metric has a ``support`` of its own."""
        return self.metric.support

    def __call__(self, x: Array) -> Array:
        """Points ``(*batch, d)`` at the ends of geodesics.

        Args:
            x: their first velocities v, ``(*batch, d)``.

        Raises:
            TypeError, ValueError: if they are not arrays of vectors.
        """
        loc, v = jnp.broadcast_arrays(self.loc, check_point("x", x, self.metric.dim))
        return self.metric.expmap(loc, v)

    def _inverse(self, y: Array) -> Array:
        loc, z = jnp.broadcast_arrays(self.loc, check_point("y", y, self.metric.dim))
        return self.metric.logmap(loc, z)

    def call_with_intermediates(self, x: Array) -> tuple[Array, Array]:
        """Points ``(*batch, d)``, and ``log V`` of the geodesics to them, ``(*batch)``.

        Args:
            x: tangent vectors v, ``(*batch, d)``.

        Raises:
            TypeError, ValueError: if they are not arrays of vectors.
        """
        loc, v = jnp.broadcast_arrays(self.loc, check_point("x", x, self.metric.dim))
        return self.metric.expmap_log_van_vleck(loc, v)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Array | None = None) -> Array:
        """Log of the volume of the images of a unit cube, ``(*batch)``.

        Args:
            x: tangent vectors v, ``(*batch, d)``.
            y: the points z that they lead to, ``(*batch, d)``.
            intermediates: what :meth:`call_with_intermediates` gave beside y, ``(*batch)``.
        """
        log_van_vleck = self.call_with_intermediates(x)[1] if intermediates is None else intermediates
        return 0.5 * (self.metric.logdet(self.loc) - self.metric.logdet(y)) - log_van_vleck

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the points for vectors of ``shape``.

        Args:
            shape: ``(*batch, d)``.
        """
        return jnp.broadcast_shapes(shape, self.loc.shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the vectors for points of ``shape``.

        Args:
            shape: ``(*batch, d)``.
        """
        return jnp.broadcast_shapes(shape, self.loc.shape)

    def tree_flatten(self) -> Any:
        """Metric and point, both traced."""
        return (self.metric, self.loc), (("metric", "loc"), {})

    def eq(self, other: object, static: bool = False) -> Any:
        """Whether ``other`` is the same map: of the same metric at the same point.

        Args:
            other: anything.
            static: as NumPyro's other transforms have it; of no effect.
        """
        if not isinstance(other, ExponentialMap) or self.metric is not other.metric:
            return False
        return self.loc.shape == other.loc.shape and (self.loc == other.loc).all()
