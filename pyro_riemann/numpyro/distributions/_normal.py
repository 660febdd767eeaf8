"""The normal law that maximises entropy on a manifold."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from pyro_riemann._formulas import densities
from pyro_riemann._formulas.tangent_rule import check_num_nodes
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro.distributions._base import RiemannianDistribution, Shape, broadcast_loc, check_key
from pyro_riemann.numpyro.distributions._memo import remember
from pyro_riemann.numpyro.distributions._normal_sampler import SamplingReport, pilot, sample_normal
from pyro_riemann.numpyro.distributions._tangent import chart_moments, log_radial_integral
from pyro_riemann.numpyro.metrics import RiemannianMetric


class RiemannianNormal(RiemannianDistribution):
    r"""Riemannian normal: density proportional to :math:`e^{-\ell^2(z, \mu) / 2 \sigma^2}` in the measure dM.

    .. math::
        \log p(z) = -\frac{\ell^2(z, \mu)}{2 \sigma^2} - \log C(\mu, \sigma) + \tfrac12 \log\det G(z)

    with respect to Lebesgue measure dz in the chart. The constant
    :math:`C = (2 \pi \sigma^2)^{d/2}\, E[1/V(\mu, \exp_\mu v)]`, :math:`v \sim N(0, \sigma^2 G(\mu)^{-1})` within the
    cut locus, depends on both parameters and on the metric, and its gradient is part of that of :meth:`log_prob`.

    Draws: by independence Metropolis from a wrapped normal, of inflated variance where that is better, with as many
    proposals for each draw as keep the error of the law below 1e-4 in total variation;
    :attr:`sampling_report` says how efficient that is. They are not reparametrised.

    Args:
        loc: centre :math:`\mu`, ``(*batch, d)``.
        scale: :math:`\sigma`, ``(*batch)``, in units of geodesic distance.
        metric: the Riemannian metric.
        num_nodes: Gauss-Hermite nodes an axis (d <= 3, default 9) or points in each of eight quasi-random
            replicates (above, default 128) that estimate C.
        validate_args: check the values of arguments; NumPyro's own setting if None.

    Raises:
        TypeError, ValueError: naming the argument at fault; also by methods, if ``key`` is no key, or a value does not
            broadcast with ``loc``.

    Source: Pennec (2006), *Intrinsic statistics on Riemannian manifolds*; C22, eq. 6 and 16.

    Example:
        >>> from pyro_riemann.numpyro import EuclideanMetric, RiemannianNormal
        >>> normal = RiemannianNormal(jnp.zeros(2), 0.5, EuclideanMetric(2))
        >>> round(jnp.exp(normal.log_normalizer().value).item(), 4)  # 2 pi scale^2
        1.5708
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real_vector, "scale": constraints.positive}
    reparametrized_params: ClassVar[list[str]] = []
    pytree_aux_fields: ClassVar[tuple[str, ...]] = ("num_nodes",)

    def __init__(
        self,
        loc: Array,
        scale: Array | float,
        metric: RiemannianMetric,
        *,
        num_nodes: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.scale = broadcast_loc(loc, "scale", scale, metric)
        self.num_nodes = check_num_nodes(num_nodes, metric.dim)
        super().__init__(metric, self.loc, validate_args)

    @validate_sample
    def log_prob(self, value: Array, intermediates: Any = None) -> Array:
        """Log density with respect to Lebesgue measure dz, shape ``(*batch)``; NaN where ``value`` is not finite.

        Args:
            value: points, ``(*batch, d)``.
            intermediates: ignored.
        """
        z, loc, finite = self._at(value)
        squared = self.metric.squared_dist(loc, z)
        log_prob = densities.riemannian_normal(self.scale, squared, self.metric.logdet(z), self.log_normalizer().value)
        return jnp.where(finite, log_prob, jnp.nan)

    def log_normalizer(self) -> Estimate:
        r"""log C, ``(*batch)``: the integral of :math:`e^{-\ell^2 / 2 \sigma^2}` with respect to dM.

        Deterministic. The error is the difference to a rule with two nodes fewer (d <= 3) or the standard
        error over eight quasi-random replicates (above). A constant of the compiled program where loc, scale and metric
        are.
        """
        variance = remember(jnp.square, self.scale)
        value, error = remember(partial(log_radial_integral, num_nodes=self.num_nodes), self.metric, self.loc, variance)
        return Estimate(densities.log_flat_mass(jnp, self.metric.dim, variance) + value, error)

    @property
    def mean(self) -> Array:
        """Euclidean mean in the chart, ``(*batch, d)``, by quadrature in the tangent space."""
        return chart_moments(self.metric, self.loc, self.scale**2, self.num_nodes, power=1.0)[0]

    @property
    def variance(self) -> Array:
        """Euclidean variance of each coordinate of the chart, ``(*batch, d)``, like :attr:`mean`."""
        return chart_moments(self.metric, self.loc, self.scale**2, self.num_nodes, power=1.0)[1]

    @property
    def sampling_report(self) -> SamplingReport:
        """Inflation of the variance, efficiency and length of the chains of :meth:`sample`, from a fixed pilot run."""
        return remember(pilot, self.metric, self.loc, remember(jnp.square, self.scale))

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        """Draws ``(*sample, *batch, d)``, without a gradient.

        Args:
            key: one key of ``jax.random``.
            sample_shape: shape of the draws.
        """
        shape = self.shape(tuple(sample_shape))
        return sample_normal(self.metric, self.loc, self.scale**2, self.sampling_report, check_key(key), shape)
