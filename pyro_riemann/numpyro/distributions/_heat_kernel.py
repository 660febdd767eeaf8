"""The law of Brownian motion."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from pyro_riemann._formulas import densities
from pyro_riemann._formulas.ray_rule import check_num_directions
from pyro_riemann._warn import warn
from pyro_riemann.numpyro._checks import check_key, check_one_of, holds
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro._memo import is_known, remember
from pyro_riemann.numpyro.brownian import brownian_motion
from pyro_riemann.numpyro.distributions._base import (
    Intermediates,
    RiemannianDistribution,
    Shape,
    broadcast_loc,
)
from pyro_riemann.numpyro.distributions._judged_rays import Integrand
from pyro_riemann.numpyro.distributions._radial import log_radial_mass, radial_laws, radial_moments
from pyro_riemann.numpyro.metrics import RiemannianMetric

_LONG_TIME = (
    "The curvature term |time R / 12| of a RiemannianHeatKernel exceeds 0.1: the short-time expansion no longer "
    'holds and the correction may hurt. Use correction="none" or "van_vleck", or a shorter time.'
)
_SMALL_MASS = 0.01  # log mass that is not worth a word
CORRECTIONS = ("none", "van_vleck", "van_vleck_curvature", "kalatzis2020")


class RiemannianHeatKernel(RiemannianDistribution):
    r"""Law of Brownian motion that starts at ``loc`` and runs for ``time``.

    :meth:`log_prob` is the short-time (parametrix) approximation of the transition density,
    with respect to Lebesgue measure dz in the chart,

    .. math::
        \log p(z) = -\tfrac d2 \log(2\pi t) + \tfrac12 \log\det G(z) - \frac{\ell^2(z, \mu)}{2t}
        + \tfrac12 \log V(z, \mu) + \tfrac{t}{12} \bar R,

    where the last two terms are included on request. The approximation has a mass near, not equal
    to, 1; :meth:`log_normalizer` gives it. :meth:`sample` draws from Brownian motion itself.

    As a guide: an evidence lower bound with a density q that is not normalised is no bound, and rewards a q of small
    mass. :meth:`log_prob` warns when it is asked for the density of a draw of its own, as an ELBO does with a guide,
    and the mass is not known to be 1 within 1 %. Set ``normalize``; what remains is the difference of the normalised
    density to the law of the draws. The density of :class:`RiemannianWrappedNormal` is that of its draws.

    Args:
        loc: start :math:`\mu`, ``(*batch, d)``.
        time: running time t, ``(*batch)``; the variance where the metric is the identity.
        metric: the Riemannian metric.
        correction: ``"none"`` stops after the distance; ``"van_vleck"`` adds the Van Vleck-Morette
            determinant V; ``"van_vleck_curvature"`` also the scalar curvature, averaged over the two ends
            (symmetric in z and loc, as the heat kernel is). ``"kalatzis2020"`` is eq. 3.3 of the
            paper, whose factor is :math:`(\det G(z) / \det G(\mu))^{1/2}`: neither a density in dz nor in
            dM, its KL divergence changes with the chart; for reproduction only.
        num_steps: steps of the Brownian motion that :meth:`sample` runs. Default: as many as keep the mean distance
            right within 1 %, 64 where values are not known (see :func:`brownian_motion`).
        normalize: subtract ``log_normalizer().value`` in :meth:`log_prob`, so that the density has mass 1 and
            an evidence lower bound is one; its gradient is included.
        num_directions: rays behind :meth:`log_normalizer`, a multiple of 16; None for as many as it takes.
        validate_args: check the values of arguments; NumPyro's own setting if None.

    Raises:
        TypeError, ValueError: naming the argument at fault; also by methods, if ``key`` is no key, a value does not
            broadcast with ``loc``, or a draw leaves the reals.

    Source: Kalatzis et al. 2020, eq. 3.3; Hsu, Stochastic Analysis on Manifolds, section 5.1.

    Example:
        >>> from pyro_riemann.numpyro import EuclideanMetric, RiemannianHeatKernel
        >>> kernel = RiemannianHeatKernel(jnp.zeros(2), 0.5, EuclideanMetric(2))
        >>> round(jnp.exp(kernel.log_prob(jnp.zeros(2))).item(), 4)  # 1 / (2 pi t)
        0.3183
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real_vector, "time": constraints.positive}
    reparametrized_params: ClassVar[list[str]] = ["loc", "time"]
    pytree_aux_fields: ClassVar[tuple[str, ...]] = ("correction", "num_steps", "normalize", "num_directions")

    def __init__(
        self,
        loc: Array,
        time: Array | float,
        metric: RiemannianMetric,
        correction: str = "none",
        *,
        num_steps: int | None = None,
        normalize: bool = False,
        num_directions: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.correction = check_one_of("correction", correction, CORRECTIONS)
        if num_steps is not None and num_steps < 1:
            raise ValueError(f"`num_steps` must be at least 1, got {num_steps}.")
        self.num_steps, self.normalize = num_steps, normalize
        self.loc, self.time = broadcast_loc(loc, "time", time, metric)
        self.num_directions = check_num_directions(num_directions, metric.dim)
        super().__init__(metric, self.loc, validate_args)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        """Draws ``(*sample_shape, *batch, d)`` by Brownian motion; gradients in loc, time and the metric's arrays.

        Args:
            key: one key of ``jax.random``.
            sample_shape: shape of the draws.
        """
        shape = self.shape(tuple(sample_shape))
        loc, time = jnp.broadcast_to(self.loc, shape), jnp.broadcast_to(self.time, shape[:-1])
        return brownian_motion(self.metric, loc, time, self.num_steps, key=check_key(key))

    def sample_with_intermediates(self, key: Array, sample_shape: Shape = ()) -> tuple[Array, Intermediates]:
        """A draw ``(*sample, *batch, d)`` as of :meth:`sample`, and a mark by which :meth:`log_prob` knows it.

        Args:
            key: one key of ``jax.random``.
            sample_shape: shape of the draws.
        """
        z = self.sample(key, sample_shape)
        return z, [jnp.broadcast_to(self.time, z.shape[:-1])]

    @validate_sample
    def log_prob(self, value: Array, intermediates: Intermediates | None = None) -> Array:
        """Short-time log density with respect to Lebesgue measure dz, ``(*batch)``; NaN where ``value`` is not finite.

        With ``correction="kalatzis2020"`` it is that of eq. 3.3, a density in neither dz nor dM.

        Args:
            value: points, ``(*batch, d)``.
            intermediates: what :meth:`sample_with_intermediates` returned beside ``value``.
        """
        if intermediates and not self.normalize:
            _warn_as_guide(self)
        z, loc, finite = self._at(value)
        squared = self.metric.squared_dist(loc, z)
        log_prob = densities.short_time(jnp, self.metric.dim, self.time, squared, self.metric.logdet(z))
        if self.correction == "kalatzis2020":
            log_prob = log_prob - 0.5 * self.metric.logdet(self.loc)
        if self.correction.startswith("van_vleck"):
            log_prob = log_prob + 0.5 * self.metric.log_van_vleck(loc, z)
        if self.correction == "van_vleck_curvature":
            term = _curvature_term(self.metric, self.loc, self.time, z)
            if not holds(jnp.abs(term) <= 0.1):
                warn(_LONG_TIME)
            log_prob = log_prob + term
        if self.normalize:
            log_prob = log_prob - self.log_normalizer().value
        return jnp.where(finite, log_prob, jnp.nan)

    def log_normalizer(self) -> Estimate:
        r"""Log of the mass of the short-time density (before ``normalize``) with respect to dz, ``(*batch)``.

        In polar coordinates about ``loc``, as the constant of :class:`RiemannianNormal`, with
        :math:`V^{1/2} e^{t \bar R / 12}` in the integrand where these corrections are in use. Points past the cut locus
        have no mass. Without a correction, where rays do not settle or are dear, over the chart: see there.
        Deterministic; gradients are the first derivatives of the integral; with a correction, off closed
        forms, those in loc and the metric are of a rule in the tangent space. A constant of the compiled program where
        loc, time and metric are.

        Warns:
            UserWarning: if the error is known and exceeds 0.1, or few directions have all the mass.
        """
        corrected = self.correction.startswith("van_vleck")
        integrand = Integrand(0.5 if corrected else 0.0, self.correction == "van_vleck_curvature")
        compute = partial(log_radial_mass, integrand=integrand, num_directions=self.num_directions)
        mass, error = remember(compute, self.metric, self.loc, self.time)
        if self.correction == "kalatzis2020":
            mass = mass - 0.5 * self.metric.logdet(self.loc)
        return Estimate(mass, error)

    @property
    def mean(self) -> Array:
        """Euclidean mean in the chart, ``(*batch, d)``, to second order in time and without gradient."""
        return radial_moments(self.metric, self.loc, self.time, Integrand(0.5), self.num_directions)[0]

    @property
    def variance(self) -> Array:
        """Euclidean variance of each coordinate of the chart, ``(*batch, d)``, like :attr:`mean`."""
        return radial_moments(self.metric, self.loc, self.time, Integrand(0.5), self.num_directions)[1]

    def log_mass(self) -> Estimate:
        """Log of the mass with respect to dz that :meth:`log_prob` integrates to.

        That is :meth:`log_normalizer`, or 0 if normalised.
        """
        mass, error = self.log_normalizer()
        return Estimate(jnp.zeros_like(mass), error) if self.normalize else Estimate(mass, error)


def _curvature_term(metric: RiemannianMetric, loc: Array, time: Array, z: Array) -> Array:
    """``time R / 12`` with R averaged over the ends."""
    return time * (metric.scalar_curvature(z) + metric.scalar_curvature(loc)) / 24


def _warn_as_guide(law: RiemannianHeatKernel) -> None:
    """Say that an ELBO with this density is no bound, unless its mass is known to be near 1; while it is compiled."""
    laws = radial_laws(law.metric)
    flat = [known is not None and known.is_flat(dim) and known.periods is None for known, dim in laws]
    if law.loc.size == 0 or all(flat):
        return
    number = "not known"
    if all(known is not None for known, _ in laws) and is_known(
        law.metric, law.loc, law.time
    ):  # else the mass takes many geodesics
        mass = law.log_normalizer().value.ravel()
        worst = float(mass[jnp.abs(mass).argmax()])
        if abs(worst) < _SMALL_MASS:
            return
        number = f"{worst:.3g}"
    warn(densities.NOT_NORMALIZED.format(number=number))
