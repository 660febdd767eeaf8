"""The normal law that maximises entropy on a manifold."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from torch import Tensor

from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas import densities
from pyro_riemann._formulas.tangent_rule import check_num_nodes
from pyro_riemann.distributions._base import RiemannianDistribution, Shape, broadcast_loc
from pyro_riemann.distributions._memo import remember
from pyro_riemann.distributions._normal_sampler import SamplingReport, pilot, sample_normal
from pyro_riemann.distributions._tangent import chart_moments, log_radial_integral, probes
from pyro_riemann.metrics import RiemannianMetric


class RiemannianNormal(RiemannianDistribution):
    r"""Riemannian normal: density proportional to :math:`e^{-\ell^2(z, \mu) / 2 \sigma^2}` in the measure dM.

    .. math::
        \log p(z) = -\frac{\ell^2(z, \mu)}{2 \sigma^2} - \log C(\mu, \sigma) + \tfrac12 \log\det G(z)

    with respect to Lebesgue measure dz in the chart. The constant
    :math:`C = (2 \pi \sigma^2)^{d/2}\, E[1/V(\mu, \exp_\mu v)]`, :math:`v \sim N(0, \sigma^2 G(\mu)^{-1})` within the
    cut locus, depends on both parameters and on the metric, and its gradient is part of that of :meth:`log_prob`.

    Draws: by rejection from the wrapped normal where V >= 1 (positive curvature), else by
    independence Metropolis from a wrapped normal of inflated variance; :attr:`sampling_report` says which,
    and how efficient it is. They are not reparametrised.

    Args:
        loc: centre :math:`\mu`, ``(*batch, d)``.
        scale: :math:`\sigma`, ``(*batch)``, in units of geodesic distance.
        metric: the Riemannian metric.
        num_nodes: Gauss-Hermite nodes an axis (d <= 3, default 9) or points in each of eight quasi-random
            replicates (above, default 128) that estimate C.
        validate_args: check arguments and values; Pyro's own setting if None.

    Raises:
        TypeError, ValueError: naming the argument at fault; also by methods, if a value is not a finite tensor like
            ``loc``.

    Source: Pennec (2006), *Intrinsic statistics on Riemannian manifolds*; C22, eq. 6 and 16.

    Example:
        >>> from pyro_riemann import EuclideanMetric, RiemannianNormal
        >>> normal = RiemannianNormal(torch.zeros(2), torch.tensor(0.5), EuclideanMetric(2))
        >>> round(normal.log_normalizer().value.exp().item(), 4)  # 2 pi scale^2
        1.5708
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real_vector, "scale": constraints.positive}
    has_rsample = False
    _settings: ClassVar[tuple[str, ...]] = ("num_nodes",)

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor | float,
        metric: RiemannianMetric,
        *,
        num_nodes: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.scale = broadcast_loc(loc, "scale", scale, metric)
        self.num_nodes = check_num_nodes(num_nodes, metric.dim)
        super().__init__(metric, self.loc, validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density with respect to Lebesgue measure dz at ``value``, ``(*batch, d)``; shape ``(*batch)``."""
        if self._validate_args:
            self._validate_sample(value)
        z, loc = torch.broadcast_tensors(value, self.loc)
        squared = self.metric.squared_dist(loc, z)
        log_prob: Tensor = densities.riemannian_normal(
            self.scale, squared, self.metric.logdet(value), self.log_normalizer().value
        )
        return log_prob

    def log_normalizer(self) -> Estimate:
        r"""log C, ``(*batch)``: the integral of :math:`e^{-\ell^2 / 2 \sigma^2}` with respect to dM.

        Deterministic. The error is the difference to a rule with two nodes fewer (d <= 3) or the standard
        error over eight quasi-random replicates (above). Where the rule does not settle in one or two dimensions
        (a decoder with walls) the chart is summed over instead, the error being the difference to half the
        resolution. Kept for as long as the metric is unchanged where no
        gradient is asked for, also when a model builds the distribution anew at every call.
        """
        return remember(
            self.metric, "RiemannianNormal", (self.num_nodes,), (self.loc, self.scale), self._log_normalizer
        )

    def _log_normalizer(self) -> tuple[Estimate, Tensor]:
        flat = densities.log_flat_mass(torch, self.metric.dim, self.scale**2)
        value, error = log_radial_integral(self.metric, self.loc, self.scale**2, self.num_nodes)
        return Estimate(flat + value, error), probes(self.metric, self.loc, self.scale**2)

    @property
    def mean(self) -> Tensor:
        """Euclidean mean in the chart, ``(*batch, d)``, by quadrature in the tangent space."""
        return chart_moments(self.metric, self.loc, self.scale**2, self.num_nodes, power=1.0)[0]

    @property
    def variance(self) -> Tensor:
        """Euclidean variance of each coordinate of the chart, ``(*batch, d)``, like :attr:`mean`."""
        return chart_moments(self.metric, self.loc, self.scale**2, self.num_nodes, power=1.0)[1]

    @property
    def sampling_report(self) -> SamplingReport:
        """Method, inflation of the variance, and efficiency of :meth:`sample`, from a fixed pilot run."""
        with torch.no_grad():
            variance = self.scale**2
            return remember(
                self.metric,
                "pilot",
                (),
                (self.loc, self.scale),
                lambda: (pilot(self.metric, self.loc, variance), probes(self.metric, self.loc, variance)),
            )

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draws ``(*sample_shape, *batch, d)``, without gradient, by the method of :attr:`sampling_report`."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            loc, scale = self.loc.expand(shape), self.scale.expand(shape[:-1])
            return sample_normal(self.metric, loc, scale**2, self.sampling_report)
