"""The exponential map as a transform: any law of tangent vectors becomes a law of points."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import Transform

from pyro_riemann._box import check_metric
from pyro_riemann._checks import check_finite, check_point
from pyro_riemann.metrics import RiemannianMetric


class ExponentialMap(Transform):
    r"""Tangent vectors v at ``loc``, in the coordinates of the chart, to points :math:`z = \exp_\mu(v)`.

    .. math::
        \log \left|\det \frac{\partial z}{\partial v}\right|
        = -\log V(z, \mu) + \tfrac12 \log\det G(\mu) - \tfrac12 \log\det G(z)

    ``TransformedDistribution(base, ExponentialMap(metric, loc))`` is the law of a geodesic's end, with any law of its
    first velocity for ``base``; with :math:`N(0, t\,G(\mu)^{-1})` it is :class:`RiemannianWrappedNormal`.

    The determinant is that of the geodesic with the velocity v, by its Jacobi fields; no boundary-value problem is
    solved for it. The inverse is the velocity of the shortest geodesic: where geodesics meet again, a density is that
    of one of several velocities that lead to z, as it is for :class:`RiemannianWrappedNormal` on most metrics.

    Args:
        metric: the Riemannian metric.
        loc: the point :math:`\mu`, ``(*batch, d)``.
        cache_size: 1 keeps the last pair (v, z), by torch's own cache: the log density of a draw then needs no inverse.
            It holds while loc and the metric are what they were at the draw.

    Raises:
        TypeError, ValueError: naming the argument at fault; also where a velocity or point is not one.

    Source: Falorsi et al. (2019), *Reparameterizing distributions on Lie groups*, section 3, on groups; here on any
    metric.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_riemann import Sphere
        >>> base = dist.StudentT(3.0, torch.zeros(2), 0.2).to_event(1)
        >>> law = dist.TransformedDistribution(base, ExponentialMap(Sphere(2), torch.zeros(2), cache_size=1))
        >>> law.log_prob(law.rsample((5,))).shape
        torch.Size([5])
    """

    bijective = True
    domain = constraints.real_vector

    def __init__(self, metric: RiemannianMetric, loc: Tensor, cache_size: int = 0) -> None:
        self.metric = check_metric(metric)
        self.loc = check_finite("loc", check_point("loc", loc, metric.dim))
        super().__init__(cache_size)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def codomain(self) -> constraints.Constraint:
        """The chart: all of R^d unless the metric has a ``support`` of its own."""
        return self.metric.support

    def with_cache(self, cache_size: int = 1) -> ExponentialMap:
        """The same with another cache.

        Args:
            cache_size: 0 or 1.
        """
        return self if cache_size == self._cache_size else ExponentialMap(self.metric, self.loc, cache_size)

    def _call(self, v: Tensor) -> Tensor:
        loc, v = torch.broadcast_tensors(self.loc, check_point("v", v, self.metric.dim))
        return self.metric.expmap(loc, v)

    def _inverse(self, z: Tensor) -> Tensor:
        loc, z = torch.broadcast_tensors(self.loc, check_point("z", z, self.metric.dim))
        return self.metric.logmap(loc, z)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Log of the volume of the images of a unit cube, ``(*batch)``.

        Args:
            x: tangent vectors v, ``(*batch, d)``.
            y: the points z that they lead to, ``(*batch, d)``.
        """
        loc, v = torch.broadcast_tensors(self.loc, x)
        log_van_vleck = self.metric.expmap_log_van_vleck(loc, v)[1]
        return 0.5 * (self.metric.logdet(self.loc) - self.metric.logdet(y)) - log_van_vleck

    def forward_shape(self, shape: Any) -> torch.Size:
        """Shape of the points for vectors of ``shape``.

        Args:
            shape: ``(*batch, d)``.
        """
        return torch.broadcast_shapes(shape, self.loc.shape)

    def inverse_shape(self, shape: Any) -> torch.Size:
        """Shape of the vectors for points of ``shape``.

        Args:
            shape: ``(*batch, d)``.
        """
        return torch.broadcast_shapes(shape, self.loc.shape)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExponentialMap):
            return False
        return self.metric is other.metric and torch.equal(self.loc, other.loc)

    __hash__ = None  # type: ignore[assignment]  # equal by value, as torch's own transforms
