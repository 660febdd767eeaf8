"""A tangent Gaussian carried to the manifold by the exponential map."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from pyro_riemann._formulas import densities
from pyro_riemann._formulas.tangent_rule import check_num_nodes
from pyro_riemann.numpyro._checks import check_key
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro.distributions._base import (
    Intermediates,
    RiemannianDistribution,
    Shape,
    broadcast_loc,
)
from pyro_riemann.numpyro.distributions._folded_mass import folded_mass, warn_if_folded
from pyro_riemann.numpyro.distributions._tangent import chart_moments, is_closed_form, tangent_vectors
from pyro_riemann.numpyro.metrics import RiemannianMetric


class RiemannianWrappedNormal(RiemannianDistribution):
    r"""Law of :math:`z = \exp_\mu(v)` with :math:`v \sim N(0, t\,G(\mu)^{-1})`.

    .. math::
        \log p(z) = -\tfrac d2 \log(2\pi t) - \frac{\ell^2(z, \mu)}{2t} + \log V(z, \mu) + \tfrac12 \log\det G(z)

    with respect to Lebesgue measure dz in the chart; V is the Van Vleck-Morette determinant, the
    inverse Jacobian determinant of the exponential map. Exactly normalised, with exact, reparametrised draws.

    *Where geodesics meet again* several tangent vectors lead to one point and the density is a sum over them. On flat
    tori and cylinders, spheres and hyperbolic space, in whatever coordinates, :meth:`log_prob` is that sum in closed
    form (:meth:`RiemannianMetric.log_folded_density
    <pyro_riemann.numpyro.metrics.RiemannianMetric.log_folded_density>`; on a torus of mass 1 over one period): its mass
    is 1 at every ``time``, and an evidence lower bound with it is one. On the sphere, d >= 2, it is infinite at ``loc``
    and at the antipode, and a large number there.

    On any other metric :meth:`log_prob` knows one geodesic: the shortest or, given the intermediates of a draw, the
    one that was drawn. :meth:`folded_mass` is the share of the draws past the cut locus, where this is too little, and
    warns where it exceeds 0.001: call it for the guide that you have fitted (compiled code cannot warn).

    *Own draws.* On a metric without closed forms :meth:`sample_with_intermediates`, which ``numpyro.sample`` calls,
    returns length and determinant along with the draw, and the evidence lower bounds of NumPyro hand them to
    :meth:`log_prob`, which then solves no boundary-value problem. The gradient is the total derivative along the
    draw's path. For the partial derivative at a fixed point call ``log_prob(jax.lax.stop_gradient(z))``.

    Args:
        loc: centre :math:`\mu`, ``(*batch, d)``.
        time: variance t of the tangent Gaussian, ``(*batch)``.
        metric: the Riemannian metric.
        validate_args: check the values of arguments; NumPyro's own setting if None.

    Raises:
        TypeError, ValueError: naming the argument at fault; also by methods, if ``key`` is no key, a value does not
            broadcast with ``loc``, or a geodesic leaves the reals.

    Source: Nagano et al. (2019), *A wrapped normal distribution on hyperbolic space for gradient-based learning*,
    section 3; here for any metric.

    Example:
        >>> from pyro_riemann.numpyro import EuclideanMetric, RiemannianWrappedNormal
        >>> q = RiemannianWrappedNormal(jnp.zeros(2), 0.5, EuclideanMetric(2))
        >>> z, along = q.sample_with_intermediates(jax.random.key(0))
        >>> bool(jnp.isclose(q.log_prob(z, along), q.log_prob(z)))
        True
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real_vector, "time": constraints.positive}
    reparametrized_params: ClassVar[list[str]] = ["loc", "time"]

    def __init__(
        self, loc: Array, time: Array | float, metric: RiemannianMetric, *, validate_args: bool | None = None
    ) -> None:
        self.loc, self.time = broadcast_loc(loc, "time", time, metric)
        super().__init__(metric, self.loc, validate_args)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        """Exact draws ``(*sample, *batch, d)``; pathwise gradients in loc, time and the metric's arrays.

        Args:
            key: one key of ``jax.random``.
            sample_shape: shape of the draws.
        """
        _, v = self._tangent_draw(key, sample_shape)
        return self.metric.expmap(jnp.broadcast_to(self.loc, v.shape), v)

    def sample_with_intermediates(self, key: Array, sample_shape: Shape = ()) -> tuple[Array, list[Any]]:
        """A draw, and what its density needs: squared length over time and ``log V``, ``(*sample, *batch)`` each.

        Nothing besides the draw where distances have a closed form.

        Args:
            key: one key of ``jax.random``.
            sample_shape: shape of the draws.
        """
        if is_closed_form(self.metric):
            return self.sample(key, sample_shape), []
        noise, v = self._tangent_draw(key, sample_shape)
        z, log_van_vleck = self.metric.expmap_log_van_vleck(jnp.broadcast_to(self.loc, v.shape), v)
        return z, [jnp.square(noise).sum(-1), log_van_vleck]

    def rsample_with_log_prob(self, key: Array, sample_shape: Shape = ()) -> tuple[Array, Array]:
        """Draws ``(*sample_shape, *batch, d)`` and their log density in dz, ``(*sample_shape, *batch)``.

        No boundary-value problem is solved.

        Args:
            key: one key of ``jax.random``.
            sample_shape: shape of the draws.
        """
        z, intermediates = self.sample_with_intermediates(key, sample_shape)
        return z, self.log_prob(z, intermediates)

    def _tangent_draw(self, key: Array, sample_shape: Shape) -> tuple[Array, Array]:
        noise = jax.random.normal(check_key(key), self.shape(tuple(sample_shape)), self.loc.dtype)
        return noise, tangent_vectors(self.metric, self.loc, self.time, noise)

    @property
    def mean(self) -> Array:
        """Euclidean mean in the chart, ``(*batch, d)``, by quadrature in the tangent space."""
        return chart_moments(self.metric, self.loc, self.time, check_num_nodes(None, self.metric.dim), power=0.0)[0]

    @property
    def variance(self) -> Array:
        """Euclidean variance of each coordinate of the chart, ``(*batch, d)``, like :attr:`mean`."""
        return chart_moments(self.metric, self.loc, self.time, check_num_nodes(None, self.metric.dim), power=0.0)[1]

    @validate_sample
    def log_prob(self, value: Array, intermediates: Intermediates | None = None) -> Array:
        """Log density with respect to Lebesgue measure dz, shape ``(*batch)``; NaN where ``value`` is not finite.

        Args:
            value: points, ``(*batch, d)``.
            intermediates: what :meth:`sample_with_intermediates` returned beside ``value``; spares the boundary-value
                problem.
        """
        z, loc, finite = self._at(value)
        log_density = self.metric.log_folded_density(loc, z, self.time)
        if log_density is None:
            if intermediates:
                squared, log_van_vleck = self.time * intermediates[0], intermediates[1]
            else:
                squared, log_van_vleck = self.metric.squared_dist(loc, z), self.metric.log_van_vleck(loc, z)
            log_density = densities.single_geodesic(jnp, self.metric.dim, self.time, squared, log_van_vleck)
        return jnp.where(finite, log_density + 0.5 * self.metric.logdet(z), jnp.nan)

    def folded_mass(self, num_directions: int = 32) -> Estimate:
        """Share of the draws past the cut locus, where :meth:`log_prob` knows one geodesic of several, ``(*batch)``.

        Along each direction from ``loc`` the radius from which on the geodesic is no longer the shortest, by bisection
        with distances. A lower bound as far as the solver misses shorter curves; what lies beyond the edge of a chart
        counts as error. 0, exactly, where :meth:`log_prob` counts all geodesics. Warns above 0.001, if it is known.

        Args:
            num_directions: directions from every ``loc``.

        Raises:
            ValueError: if ``num_directions`` is less than 2.
        """
        if num_directions < 2:
            raise ValueError(f"`num_directions` must be at least 2, got {num_directions}.")
        if self.metric.log_folded_density(self.loc, self.loc, self.time) is not None:
            return Estimate(jnp.zeros_like(self.time), jnp.zeros_like(self.time))
        mass = folded_mass(self.metric, self.loc, self.time, num_directions)
        warn_if_folded(mass, self.time)
        return mass
