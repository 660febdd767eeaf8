"""A tangent Gaussian carried to the manifold by the exponential map."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from pyro_riemann._formulas import densities
from pyro_riemann._formulas.tangent_rule import check_num_nodes, joined_rule
from pyro_riemann.numpyro._checks import check_array, check_key, holds
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro.distributions._base import (
    Intermediates,
    RiemannianDistribution,
    Shape,
    broadcast_loc,
)
from pyro_riemann.numpyro.distributions._folded_mass import folded_mass, warn_if_folded, widest
from pyro_riemann.numpyro.distributions._tangent import chart_moments, is_closed_form, tangent_vectors
from pyro_riemann.numpyro.metrics import ConstantMetric, RiemannianMetric


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

    *With a covariance.* ``scale_tril`` gives :math:`v \sim N(0, L L^\top)`, in the coordinates of the chart at
    :math:`\mu`; the isotropic law is :math:`L L^\top = t\,G(\mu)^{-1}`. The sum over geodesics is exact on flat,
    spherical and hyperbolic space and on products without spheres and tori; on other products of these, and on tori so
    short that 10,000 images count, :meth:`log_prob` raises ``NotImplementedError``. Under ``jit`` on a torus it is NaN
    from a marginal deviation of 0.46 periods on.

    Args:
        loc: centre :math:`\mu`, ``(*batch, d)``.
        time: variance t of the tangent Gaussian, ``(*batch)``; None where ``scale_tril`` is given.
        metric: the Riemannian metric.
        scale_tril: lower triangular L with a positive diagonal, ``(*batch, d, d)``, in place of ``time``:
            :math:`v \sim N(0, L L^\top)` in the coordinates of the chart.
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

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.real_vector,
        "time": constraints.positive,
        "scale_tril": constraints.lower_cholesky,
    }
    reparametrized_params: ClassVar[list[str]] = ["loc", "time", "scale_tril"]
    time: Any = None  # one of the two is an array
    scale_tril: Any = None

    def __init__(
        self,
        loc: Array,
        time: Array | float | None,
        metric: RiemannianMetric,
        *,
        scale_tril: Array | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if time is not None and scale_tril is None:
            self.loc, self.time = broadcast_loc(loc, "time", time, metric)
        elif time is None and scale_tril is not None:
            self.loc, self.scale_tril = _broadcast_covariance(loc, scale_tril, metric)
        else:
            raise ValueError("Give one of `time` and `scale_tril`, and None for the other.")
        super().__init__(metric, self.loc, validate_args)

    @property
    def has_covariance(self) -> bool:
        """Whether the law was given a ``scale_tril``."""
        return self.scale_tril is not None

    def _tangent_vectors(self, noise: Array) -> Array:
        """Vectors at ``loc`` of standard normal ``noise (*sample, *batch, d)``."""
        if self.has_covariance:
            return (self.scale_tril @ noise[..., None])[..., 0]
        return tangent_vectors(self.metric, self.loc, self.time, noise)

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
        return noise, self._tangent_vectors(noise)

    @property
    def mean(self) -> Array:
        """Euclidean mean in the chart, ``(*batch, d)``, by quadrature in the tangent space."""
        return self._moments()[0]

    @property
    def variance(self) -> Array:
        """Euclidean variance of each coordinate of the chart, ``(*batch, d)``, like :attr:`mean`."""
        return self._moments()[1]

    def _moments(self) -> tuple[Array, Array]:
        count = check_num_nodes(None, self.metric.dim)
        if not self.has_covariance:
            return chart_moments(self.metric, self.loc, self.time, count, power=0.0)
        rule, logs = joined_rule(self.metric.dim, count)
        shape = (-1, *(1,) * (self.loc.ndim - 1))
        nodes = jnp.asarray(rule, self.loc.dtype).reshape(*shape, self.metric.dim)
        v = self._tangent_vectors(jnp.broadcast_to(nodes, (len(nodes), *self.loc.shape)))
        z = self.metric.expmap(jnp.broadcast_to(self.loc, v.shape), v)
        weights = jax.nn.softmax(jnp.asarray(logs, self.loc.dtype)).reshape(*shape, 1)
        mean = (weights * z).sum(0)
        return mean, (weights * jnp.square(z - mean)).sum(0)

    def entropy(self) -> Array:
        """Entropy with respect to Lebesgue measure dz, ``(*batch)``, where the metric is constant: the Gaussian's.

        Raises:
            NotImplementedError: on any other metric; ``-law.log_prob(law.sample(key, (1000,))).mean(0)`` estimates it.
        """
        if not isinstance(self.metric, ConstantMetric) or not self.metric.is_uniquely_geodesic:
            raise NotImplementedError(
                f"The entropy on {type(self.metric).__name__} has no closed form; "
                "`-law.log_prob(law.sample(key, (1000,))).mean(0)` estimates it."
            )
        if self.has_covariance:
            half = _log_factor(self.scale_tril)
        else:
            half = 0.5 * (self.metric.dim * jnp.log(self.time) - self.metric.logdet(self.loc))
        return half + 0.5 * self.metric.dim * (1 + math.log(2 * math.pi))

    @validate_sample
    def log_prob(self, value: Array, intermediates: Intermediates | None = None) -> Array:
        """Log density with respect to Lebesgue measure dz, shape ``(*batch)``; NaN where ``value`` is not finite.

        Args:
            value: points, ``(*batch, d)``.
            intermediates: what :meth:`sample_with_intermediates` returned beside ``value``; spares the boundary-value
                problem.
        """
        z, loc, finite = self._at(value)
        log_density = self._folded(loc, z)
        if log_density is None:
            noise, log_van_vleck = intermediates or (self._squared_noise(loc, z), self.metric.log_van_vleck(loc, z))
            log_density = self._density_of(noise, log_van_vleck)
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
        if self._folded(self.loc, self.loc) is not None:
            zero = jnp.zeros_like(self.loc[..., 0])
            return Estimate(zero, zero)
        mass = folded_mass(self.metric, self.loc, self._spread(), num_directions)
        warn_if_folded(mass, widest(self.metric, self.loc, self._spread()))
        return mass

    def _spread(self) -> Array:
        """What the law is made of besides ``loc``: ``time``, or ``scale_tril``."""
        spread: Array = self.scale_tril if self.has_covariance else self.time
        return spread

    def _folded(self, loc: Array, z: Array) -> Array | None:
        """Log density with respect to dM by all geodesics, where they are known."""
        if self.has_covariance:
            return self.metric.log_folded_normal(loc, z, self.scale_tril)
        return self.metric.log_folded_density(loc, z, self.time)

    def _squared_noise(self, loc: Array, z: Array) -> Array:
        """Squared length of the standard normal whose shortest geodesic leads to ``z``."""
        if not self.has_covariance:
            return self.metric.squared_dist(loc, z) / self.time
        v = self.metric.logmap(loc, z)[..., None]
        factor = jnp.broadcast_to(self.scale_tril, (*v.shape[:-1], self.metric.dim))
        return jnp.square(solve_triangular(factor, v, lower=True)[..., 0]).sum(-1)

    def _density_of(self, squared_noise: Array, log_van_vleck: Array) -> Array:
        """Log density with respect to dM by the geodesic that this noise makes."""
        dim = self.metric.dim
        if not self.has_covariance:
            return densities.single_geodesic(jnp, dim, self.time, self.time * squared_noise, log_van_vleck)
        logdet = self.metric.logdet(self.loc)
        return densities.tangent_normal(jnp, dim, squared_noise, _log_factor(self.scale_tril), logdet, log_van_vleck)


def _log_factor(scale_tril: Array) -> Array:
    return jnp.log(jnp.diagonal(scale_tril, axis1=-2, axis2=-1)).sum(-1)


def _broadcast_covariance(loc: Array, scale_tril: Array, metric: RiemannianMetric) -> tuple[Array, Array]:
    """Check both and broadcast them."""
    dim, scale_tril = metric.dim, check_array("scale_tril", scale_tril)
    loc, _ = broadcast_loc(loc, "scale_tril", 1.0, metric)
    if scale_tril.shape[-2:] != (dim, dim):
        raise ValueError(f"`scale_tril` must have shape (*batch, {dim}, {dim}), got {scale_tril.shape}.")
    diagonal = jnp.diagonal(scale_tril, axis1=-2, axis2=-1)
    if not holds(jnp.triu(scale_tril, 1) == 0) or not holds(diagonal > 0):
        raise ValueError("`scale_tril` must be lower triangular with a positive diagonal, a Cholesky factor.")
    try:
        batch = jnp.broadcast_shapes(loc.shape[:-1], scale_tril.shape[:-2])
    except ValueError:
        raise ValueError(
            f"`scale_tril` of shape {scale_tril.shape} does not broadcast with the batch shape {loc.shape[:-1]} of "
            "`loc`."
        ) from None
    return jnp.broadcast_to(loc, (*batch, dim)), jnp.broadcast_to(scale_tril, (*batch, dim, dim))
