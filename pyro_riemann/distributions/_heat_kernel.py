"""The law of Brownian motion."""

from __future__ import annotations

import weakref
from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from torch import Tensor

from pyro_riemann._checks import check_one_of
from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas import densities
from pyro_riemann._formulas.ray_rule import check_num_directions
from pyro_riemann._warn import warn
from pyro_riemann.brownian import brownian_motion, choose_steps, default_method
from pyro_riemann.distributions._base import RiemannianDistribution, Shape, broadcast_loc
from pyro_riemann.distributions._judged_rays import Integrand
from pyro_riemann.distributions._radial import log_radial_mass, radial_laws, radial_moments
from pyro_riemann.metrics import RiemannianMetric

_LONG_TIME = (
    "The curvature term |time R / 12| of a RiemannianHeatKernel exceeds 0.1: the short-time expansion no longer "
    'holds and the correction may hurt. Use correction="none" or "van_vleck", or a shorter time.'
)
_SMALL_MASS = 0.01  # log mass that is not worth a word
_warned: weakref.WeakKeyDictionary[RiemannianMetric, float] = weakref.WeakKeyDictionary()
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
            right within 1 % (see :func:`brownian_motion`).
        normalize: subtract ``log_normalizer().value`` in :meth:`log_prob`, so that the density has mass 1 and
            an evidence lower bound is one; its gradient is included.
        num_directions: rays behind :meth:`log_normalizer`, a multiple of 16; None for as many as it takes.
        validate_args: check arguments and values; Pyro's own setting if None.

    Raises:
        TypeError, ValueError: naming the argument at fault; also by methods, if a value is not a finite tensor like
            ``loc``, or a draw leaves the reals.

    Source: Kalatzis et al. 2020, eq. 3.3; Hsu, Stochastic Analysis on Manifolds, section 5.1.

    Example:
        >>> from pyro_riemann import EuclideanMetric, RiemannianHeatKernel
        >>> kernel = RiemannianHeatKernel(torch.zeros(2), torch.tensor(0.5), EuclideanMetric(2))
        >>> round(kernel.log_prob(torch.zeros(2)).exp().item(), 4)  # 1 / (2 pi t)
        0.3183
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real_vector, "time": constraints.positive}
    has_rsample = True
    _settings: ClassVar[tuple[str, ...]] = ("correction", "num_steps", "normalize", "num_directions")
    _answers_for_its_mass: ClassVar[bool] = False  # of a class whose user accounts for it
    _own: Any = None  # weak reference to the last draw

    def __init__(
        self,
        loc: Tensor,
        time: Tensor | float,
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

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Draws ``(*sample_shape, *batch, d)`` by Brownian motion.

        Pathwise gradients in loc, time and the metric's parameters.
        """
        shape, num_steps = self._extended_shape(sample_shape), self.num_steps
        if num_steps is None and not torch.jit.is_tracing():  # as many for every sample shape
            method = default_method(self.metric)
            num_steps = choose_steps(self.metric, self.loc, self.time.unsqueeze(-1), method)
        z = brownian_motion(self.metric, self.loc.expand(shape), self.time.expand(shape[:-1]), num_steps)
        self._own = weakref.ref(z)
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        """Short-time log density with respect to Lebesgue measure dz at ``value``, ``(*batch, d)``; shape ``(*batch)``.

        With ``correction="kalatzis2020"`` it is that of eq. 3.3, a density in neither dz nor dM.
        """
        if self._validate_args:
            self._validate_sample(value)
        if self._own is not None and self._own() is value and not (self.normalize or self._answers_for_its_mass):
            _warn_as_guide(self)
        z, loc = torch.broadcast_tensors(value, self.loc)
        squared = self.metric.squared_dist(loc, z)
        log_prob = densities.short_time(torch, self.metric.dim, self.time, squared, self.metric.logdet(value))
        if self.correction == "kalatzis2020":
            log_prob = log_prob - 0.5 * self.metric.logdet(self.loc)
        if self.correction.startswith("van_vleck"):
            log_prob = log_prob + 0.5 * self.metric.log_van_vleck(loc, z)
        if self.correction == "van_vleck_curvature":
            log_prob = log_prob + self._curvature_term(value)
        return log_prob - self.log_normalizer().value if self.normalize else log_prob

    def log_normalizer(self) -> Estimate:
        r"""Log of the mass of the short-time density (before ``normalize``) with respect to dz, ``(*batch)``.

        In polar coordinates about ``loc``, as the constant of :class:`RiemannianNormal`, with
        :math:`V^{1/2} e^{t \bar R / 12}` in the integrand where these corrections are in use. Points past the cut locus
        have no mass. Without a correction, where rays do not settle or are dear, over the chart: see there.
        Deterministic, and the same with and without gradients, which are the first derivatives of the
        integral; with a correction, off closed forms, those in loc and the metric are of a rule in the tangent space.

        Warns:
            UserWarning: if the error exceeds 0.1, or few directions have all the mass.
        """
        corrected = self.correction.startswith("van_vleck")
        integrand = Integrand(0.5 if corrected else 0.0, self.correction == "van_vleck_curvature")
        mass, error = log_radial_mass(self.metric, self.loc, self.time, integrand, self.num_directions)
        if self.correction == "kalatzis2020":
            mass = mass - 0.5 * self.metric.logdet(self.loc)
        return Estimate(mass, error)

    @property
    def mean(self) -> Tensor:
        """Euclidean mean in the chart, ``(*batch, d)``, to second order in time and without gradient."""
        return radial_moments(self.metric, self.loc, self.time, Integrand(0.5), self.num_directions)[0]

    @property
    def variance(self) -> Tensor:
        """Euclidean variance of each coordinate of the chart, ``(*batch, d)``, like :attr:`mean`."""
        return radial_moments(self.metric, self.loc, self.time, Integrand(0.5), self.num_directions)[1]

    def log_mass(self) -> Estimate:
        """Log of the mass with respect to dz that :meth:`log_prob` integrates to.

        That is :meth:`log_normalizer`, or 0 if normalised.
        """
        mass, error = self.log_normalizer()
        return Estimate(torch.zeros_like(mass), error) if self.normalize else Estimate(mass, error)

    def __getstate__(self) -> dict[str, Any]:
        return {name: entry for name, entry in self.__dict__.items() if name != "_own"}

    def _curvature_term(self, z: Tensor) -> Tensor:
        """``time R / 12`` with R averaged over the ends."""
        curvature = 0.5 * (self.metric.scalar_curvature(z) + self.metric.scalar_curvature(self.loc))
        term = self.time * curvature / 12
        if not torch.jit.is_tracing() and bool((term.detach().abs() > 0.1).any()):
            warn(_LONG_TIME)
        return term


@torch.no_grad()
def _warn_as_guide(law: RiemannianHeatKernel) -> None:
    """Say that an ELBO with this density is no bound: once a metric, and again when a known log mass has doubled."""
    if torch.jit.is_tracing() or not law.loc.numel():
        return
    if any(known is None for known, _ in radial_laws(law.metric)):  # the mass takes many geodesics
        size, number = _SMALL_MASS, "not known"
    else:
        mass = law.log_normalizer().value.flatten()
        worst = mass[mass.abs().argmax()].item()
        size, number = abs(worst), f"{worst:.3g}"
    if size < _SMALL_MASS or size < 2 * _warned.get(law.metric, 0.0):
        return
    _warned[law.metric] = size
    warn(densities.NOT_NORMALIZED.format(number=number))
