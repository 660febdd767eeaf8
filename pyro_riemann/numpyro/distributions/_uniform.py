"""The uniform law of a Riemannian manifold on a box of the chart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from pyro_riemann.numpyro._box import check_box, check_metric
from pyro_riemann.numpyro._checks import check_key, check_point
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro._memo import is_known, remember
from pyro_riemann.numpyro.distributions._base import Intermediates, RiemannianDistribution, Shape
from pyro_riemann.numpyro.metrics import RiemannianMetric
from pyro_riemann.numpyro.sampling import BoxLaw, SamplerReport

_BUDGET = 2**19


class RiemannianUniform(RiemannianDistribution):
    r"""Uniform distribution of a Riemannian manifold on the box ``low <= z <= high`` of the chart.

    Its density with respect to Lebesgue measure dz is

    .. math:: p(z) = \sqrt{\det G(z)} / \mathrm{Vol}, \qquad \mathrm{Vol} = \int_{low}^{high} \sqrt{\det G}\, dz,

    constant with respect to the Riemannian measure dM. On all of :math:`\mathbb{R}^d` the volume of most
    latent metrics is infinite and the law improper, so that a box is required; NUTS and HMC
    are mapped into it.

    The volume and the sampler are set up at the first use, by fixed random numbers. Where metric and bounds are known
    (not traced) that happens once for each metric, outside of all compiled programs, also when a model builds the
    distribution anew on every call, and the set-up refines itself until it is accurate. Where they are traced it is
    part of the program, of a fixed size, and differentiable.

    ============================== =============================================== =================================
    metric                         volume                                          draws
    ============================== =============================================== =================================
    constant                       closed form                                     uniform
    d <= 2, resolved by a table    Gauss-Legendre quadrature on a grid of cells    rejection from a step function
    others                         importance sampling from a Gaussian mixture     independence Metropolis, then HMC
    where no mixture fits          a tempered sequence of particle populations     a particle, moved by HMC
    ============================== =============================================== =================================

    The mixture has a Gaussian for each of the bumps of the volume that the metric knows of (``metric.peaks()``) and
    for those that climbs of :math:`\log\det G` from two thousand points of the box find. Where the metric knows of none
    and d > 2, volume that no climb found is not counted; ``reports`` says so. The volume is computed by two routes:
    where they differ by more than their own errors explain, that difference is the error, and a warning
    says so. Where metric or bounds are traced there are no climbs and no second route.

    Args:
        metric: the metric; gradients flow to its arrays.
        low: lower corner ``(*batch, d)`` or a number, finite.
        high: upper corner ``(*batch, d)`` or a number, finite and above ``low``.
        max_points: points at which the sequence evaluates the metric at most, where no mixture fits.
        validate_args: check the values of arguments; NumPyro's own setting if None.

    Raises:
        ValueError: if a bound is missing, infinite, NaN, of the wrong shape, or ``low >= high``.
        TypeError: if ``metric`` is no metric.
        TypeError, ValueError: by methods, if ``key`` is no key, a value has the wrong shape, or the metric has no
            finite volume in the box.

    Source: Chadebec & Allassonniere (2022), section 4.4, where the set is bounded but not named.

    Example:
        >>> from pyro_riemann.numpyro import EuclideanMetric, RiemannianUniform
        >>> prior = RiemannianUniform(EuclideanMetric(2), low=-1.0, high=1.0)
        >>> round(jnp.exp(prior.log_prob(jnp.zeros(2))).item(), 4)
        0.25
        >>> prior.sample(jax.random.key(0), (5,)).shape
        (5, 2)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"low": constraints.real_vector, "high": constraints.real_vector}
    reparametrized_params: ClassVar[list[str]] = []

    pytree_aux_fields: ClassVar[tuple[str, ...]] = ("max_points",)

    def __init__(
        self,
        metric: RiemannianMetric,
        low: Any,
        high: Any,
        *,
        max_points: int = _BUDGET,
        validate_args: bool | None = None,
    ) -> None:
        self.max_points = max_points
        self.low, self.high = check_box(check_metric(metric), low, high)
        super().__init__(metric, self.low, validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """The box, which ``biject_to`` maps to all of R^d."""
        return constraints.independent(constraints.interval(self.low, self.high), 1)

    # ---------------------------------------------------------------- density

    @validate_sample
    def log_prob(self, value: Array, intermediates: Intermediates | None = None) -> Array:
        """Log density with respect to Lebesgue measure dz, ``(*batch)``; ``-inf`` outside the box.

        Args:
            value: points, ``(*batch, d)``.
            intermediates: ignored.
        """
        value = check_point("value", value, self.metric.dim)
        return _log_prob(self.metric, self.low, self.high, self.log_volume().value, value)

    def log_volume(self) -> Estimate:
        """Log of the Riemannian volume of the box and its error, each ``(*batch)``.

        Differentiable in the metric's arrays and the bounds: the gradient is that of a fixed quadrature or
        importance rule.
        """
        laws, index = self._laws()
        values, errors = (_gathered(part, index) for part in zip(*(law.log_volume for law in laws), strict=True))
        return Estimate(values, errors)

    @property
    def mean(self) -> Array:
        """Euclidean mean in the chart, ``(*batch, d)``, by the rule that gives the volume."""
        return self._moments()[0]

    @property
    def variance(self) -> Array:
        """Euclidean variance of each coordinate of the chart, ``(*batch, d)``."""
        return self._moments()[1]

    def _moments(self) -> tuple[Array, Array]:
        laws, index = self._laws()
        mean, variance = (_gathered(part, index) for part in zip(*(law.moments() for law in laws), strict=True))
        return mean, variance

    # ---------------------------------------------------------------- draws

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        """Draws ``(*sample, *batch, d)``, without a gradient.

        Args:
            key: one key of ``jax.random``.
            sample_shape: shape of the draws.
        """
        laws, index = self._laws()
        shape = self.shape(tuple(sample_shape))
        index, key = np.broadcast_to(index, shape[:-1]).ravel(), check_key(key)
        if len(laws) == 1:
            return laws[0].draw(key, len(index)).reshape(shape)
        draws = jnp.zeros((len(index), shape[-1]), self.low.dtype)
        for k, key_k in enumerate(jax.random.split(key, len(laws))):
            chosen = np.flatnonzero(index == k)
            draws = draws.at[chosen].set(laws[k].draw(key_k, len(chosen)))
        return draws.reshape(shape)

    @property
    def efficiency(self) -> Array:
        """Efficiency of the sampler in (0, 1], ``(*batch)``; see :attr:`reports`."""
        laws, index = self._laws()
        return _gathered([law.efficiency for law in laws], index)

    @property
    def reports(self) -> tuple[SamplerReport, ...]:
        """What the sampler is and how well it works, for each different box of the batch."""
        return tuple(law.report for law in self._laws()[0])

    # ---------------------------------------------------------------- set-up

    def _laws(self) -> tuple[list[BoxLaw], np.ndarray[Any, Any]]:
        """Laws of the different boxes of the batch, and which of them each batch element has."""
        dim, corners = self.metric.dim, (self.low, self.high)
        if is_known(corners):  # the same box for every element is one box; by NumPy: no program to compile
            both = np.concatenate([np.asarray(corner).reshape(-1, dim) for corner in corners], axis=-1)
            boxes, index = np.unique(both, axis=0, return_inverse=True)
            ends = [(remember(jnp.asarray, box[:dim]), remember(jnp.asarray, box[dim:])) for box in boxes]
        else:
            lows, highs = (corner.reshape(-1, dim) for corner in corners)
            index, ends = np.arange(len(lows)), list(zip(lows, highs, strict=True))
        laws = [BoxLaw(self.metric, low, high, self.max_points) for low, high in ends]
        return laws, index.reshape(self.batch_shape)

    def share_on_floor(self, draws: Array) -> Array:
        r"""Share of ``draws`` ``(..., d)`` where the metric is only what keeps it from being singular: in the void.

        That is the floor :math:`\lambda I` of a ``KernelMetric``, the jitter of a ``PullbackMetric``.

        Raises:
            TypeError: if the metric has no floor.
        """
        flat = self.metric.on_floor(draws)
        if flat is None:
            raise TypeError(
                "`share_on_floor` needs a metric with a floor, such as a KernelMetric or a PullbackMetric with jitter, "
                f"not a {type(self.metric).__name__}."
            )
        return flat.astype(draws.dtype).mean()


@jax.jit
def _log_prob(metric: RiemannianMetric, low: Array, high: Array, log_volume: Array, value: Array) -> Array:
    inside = ((value >= low) & (value <= high)).all(-1)
    # outside the box the metric need not be defined; the masked point keeps NaN out of gradients
    point = jnp.where(inside[..., None], value, (low + high) / 2)
    return jnp.where(inside, 0.5 * metric.logdet(point) - log_volume, -jnp.inf)


def _gathered(parts: Sequence[Array], index: np.ndarray[Any, Any]) -> Array:
    """``parts[index]``, ``(*batch, ...)``."""
    if is_known(parts):
        return remember(jnp.asarray, np.stack([np.asarray(part) for part in parts])[index])
    return jnp.stack(parts)[index]
