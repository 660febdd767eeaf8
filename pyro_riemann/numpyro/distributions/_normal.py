"""The normal law that maximises entropy on a manifold."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from pyro_riemann._formulas import densities
from pyro_riemann._formulas.ray_rule import check_num_directions
from pyro_riemann.numpyro._checks import check_key
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro._memo import remember
from pyro_riemann.numpyro.distributions._base import (
    Intermediates,
    RiemannianDistribution,
    Shape,
    broadcast_loc,
)
from pyro_riemann.numpyro.distributions._judged_rays import Integrand
from pyro_riemann.numpyro.distributions._normal_sampler import SamplingReport, report_of, sample_normal
from pyro_riemann.numpyro.distributions._radial import log_radial_mass, radial_moments
from pyro_riemann.numpyro.metrics import RiemannianMetric


class RiemannianNormal(RiemannianDistribution):
    r"""Riemannian normal: density proportional to :math:`e^{-\ell^2(z, \mu) / 2 \sigma^2}` in the measure dM.

    .. math::
        \log p(z) = -\frac{\ell^2(z, \mu)}{2 \sigma^2} - \log C(\mu, \sigma) + \tfrac12 \log\det G(z)

    with respect to Lebesgue measure dz in the chart. In polar coordinates about :math:`\mu` the constant is
    :math:`C = \int \int_0^{c(u)} e^{-r^2 / 2 \sigma^2}\, r^{d-1} / V(r u)\, dr\, du` with the cut radius c(u) and the
    Van Vleck-Morette determinant V. It depends on both parameters and on the metric, and its gradient is part of
    that of :meth:`log_prob`. Where the metric knows its volume (its ``radial_law``: spheres, hyperbolic spaces and flat
    metrics, in any coordinates) it is one-dimensional; elsewhere geodesics are followed in many directions.

    Draws are exact where the metric knows its volume. Elsewhere the direction is drawn by rejection and the radius by
    its distribution on that ray; where few rays have the mass, draws are from the cells of a sum over the plane, or by
    rejection of points above two dimensions, as the constant is. Rejection leaves at most a hundredth of the mass, as
    far as proposals have shown it, above its bound. :attr:`sampling_report` says which, and how efficient
    that is. They are not reparametrised.

    Args:
        loc: centre :math:`\mu`, ``(*batch, d)``.
        scale: :math:`\sigma`, ``(*batch)``, in units of geodesic distance.
        metric: the Riemannian metric.
        num_directions: rays from ``loc`` behind C, a multiple of 16; None for as many as it takes.
        validate_args: check the values of arguments; NumPyro's own setting if None.

    Raises:
        TypeError, ValueError: naming the argument at fault; also by methods, if ``key`` is no key, or a value does not
            broadcast with ``loc``.

    Source: Pennec (2006), *Intrinsic statistics on Riemannian manifolds*; C22, eq. 6 and 16. Rejection: Caffo, Booth &
    Davis (2002), *Empirical supremum rejection sampling*.

    Example:
        >>> from pyro_riemann.numpyro import EuclideanMetric, RiemannianNormal
        >>> normal = RiemannianNormal(jnp.zeros(2), 0.5, EuclideanMetric(2))
        >>> round(jnp.exp(normal.log_normalizer().value).item(), 4)  # 2 pi scale^2
        1.5708
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real_vector, "scale": constraints.positive}
    reparametrized_params: ClassVar[list[str]] = []
    pytree_aux_fields: ClassVar[tuple[str, ...]] = ("num_directions",)

    def __init__(
        self,
        loc: Array,
        scale: Array | float,
        metric: RiemannianMetric,
        *,
        num_directions: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.scale = broadcast_loc(loc, "scale", scale, metric)
        self.num_directions = check_num_directions(num_directions, metric.dim)
        super().__init__(metric, self.loc, validate_args)

    @validate_sample
    def log_prob(self, value: Array, intermediates: Intermediates | None = None) -> Array:
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

        Deterministic. The error is 0 in closed form; it is the difference of two rules on space forms. On rays it is
        made of the spread over independent sets of directions (in the plane, the difference to half of them, and of
        each from the mean of its neighbours), the difference to longer steps, and what the cut radii leave open. First
        derivatives are those of the integral. A constant of the compiled program where loc, scale and metric are; else
        the number of directions is the default, whatever the error.

        Where rays in a number that is not given do not settle, as behind the walls of a decoder, the integral is one
        over the chart: in the plane a sum over cells, above two dimensions a mean of weighed draws, by two mixtures
        that are fitted to two sets of paths of Brownian motion (West 1993, *Approximating posterior distributions by
        mixtures*); its error is that of the weights, or the difference of the two. On a network in more than two
        dimensions, where rays would take minutes, draws come first. Where loc, scale or metric are traced there are
        rays alone.

        Warns:
            UserWarning: if the error is known and exceeds 0.1, or few directions have all the mass.
        """
        variance = remember(jnp.square, self.scale)
        compute = partial(log_radial_mass, integrand=Integrand(), num_directions=self.num_directions)
        value, error = remember(compute, self.metric, self.loc, variance)
        return Estimate(densities.log_flat_mass(jnp, self.metric.dim, variance) + value, error)

    @property
    def mean(self) -> Array:
        """Euclidean mean in the chart, ``(*batch, d)``, by the nodes of :meth:`log_normalizer`, without gradient."""
        return self._moments()[0]

    @property
    def variance(self) -> Array:
        """Euclidean variance of each coordinate of the chart, ``(*batch, d)``, like :attr:`mean`."""
        return self._moments()[1]

    def _moments(self) -> tuple[Array, Array]:
        variance = remember(jnp.square, self.scale)
        compute = partial(radial_moments, integrand=Integrand(), num_directions=self.num_directions)
        return remember(compute, self.metric, self.loc, variance)

    @property
    def sampling_report(self) -> SamplingReport:
        """Method and efficiency of :meth:`sample`."""
        return report_of(self.metric, self.loc, self.scale**2, self.num_directions)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        """Draws ``(*sample, *batch, d)``, without a gradient.

        Args:
            key: one key of ``jax.random``.
            sample_shape: shape of the draws.
        """
        shape = self.shape(tuple(sample_shape))
        variance = remember(jnp.square, self.scale)
        return sample_normal(self.metric, self.loc, variance, check_key(key), shape, self.num_directions)
