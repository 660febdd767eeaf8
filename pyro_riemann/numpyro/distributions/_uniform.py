"""The uniform law of a Riemannian manifold on a box of the chart."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample
from scipy.stats import qmc

from pyro_riemann._formulas import unit_fit
from pyro_riemann.numpyro._checks import check_array, check_finite, check_point, holds
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro.distributions._base import (
    Intermediates,
    RiemannianDistribution,
    Shape,
    check_key,
    check_metric,
)
from pyro_riemann.numpyro.distributions._box import (
    SamplerReport,
    check_element,
    keep,
    log_element,
    log_volume,
    moments,
    rows_at_once,
    share_of_mass,
)
from pyro_riemann.numpyro.distributions._box_flat import FlatLaw, build_flat, draw_flat
from pyro_riemann.numpyro.distributions._box_law import MixtureLaw, build_mixture, draw_from_mixture
from pyro_riemann.numpyro.distributions._box_mixture import fitted_proposal, known_proposal, uniform_proposal
from pyro_riemann.numpyro.distributions._box_peaks import known_bumps, landscape
from pyro_riemann.numpyro.distributions._box_table import CellTable, build_table, draw_from_table
from pyro_riemann.numpyro.distributions._box_tempered import TemperedLaw, build_tempered, draw_from_particles
from pyro_riemann.numpyro.distributions._memo import is_known, remember
from pyro_riemann.numpyro.metrics import ConstantMetric, RiemannianMetric

BoxLaw: TypeAlias = FlatLaw | CellTable | MixtureLaw | TemperedLaw

_TABLE_ERROR = 1e-3  # a table that is worse than this gives way to a mixture
_WARN_EFFICIENCY, _WARN_ERROR = 0.02, 0.2
_BUDGET = 2**19
_WARN_FLOOR = 0.5  # share of draws in the void above which a warning says so
_MOST_DRAWS = 16384  # at once: bounds memory


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
        self.low, self.high = _corners(check_metric(metric), low, high)
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
        inside = ((value >= self.low) & (value <= self.high)).all(-1)
        # outside the box the metric need not be defined; the masked point keeps NaN out of gradients
        point = jnp.where(inside[..., None], value, (self.low + self.high) / 2)
        log_density = 0.5 * self.metric.logdet(point) - self.log_volume().value
        return jnp.where(inside, log_density, -jnp.inf)

    def log_volume(self) -> Estimate:
        """Log of the Riemannian volume of the box and its error, each ``(*batch)``.

        Differentiable in the metric's arrays and the bounds: the gradient is that of a fixed quadrature or
        importance rule.
        """
        laws, boxes, index = self._laws()
        values = [self._log_volume(law, *box) for law, box in zip(laws, boxes, strict=True)]
        return Estimate(jnp.stack(values)[index], jnp.stack([law.rule.standard_error for law in laws])[index])

    def _log_volume(self, law: BoxLaw, low: Array, high: Array) -> Array:
        if is_known(self.metric, low, high):
            return law.log_volume
        return log_volume(self.metric, low, high, law.rule)

    @property
    def mean(self) -> Array:
        """Euclidean mean in the chart, ``(*batch, d)``, by the rule that gives the volume."""
        return self._moments()[0]

    @property
    def variance(self) -> Array:
        """Euclidean variance of each coordinate of the chart, ``(*batch, d)``."""
        return self._moments()[1]

    def _moments(self) -> tuple[Array, Array]:
        laws, boxes, index = self._laws()
        pairs = [moments(self.metric, *box, law.rule) for law, box in zip(laws, boxes, strict=True)]
        mean, variance = (jnp.stack(values)[index] for values in zip(*pairs, strict=True))
        return mean, variance

    # ---------------------------------------------------------------- draws

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        """Draws ``(*sample, *batch, d)``, without a gradient.

        Args:
            key: one key of ``jax.random``.
            sample_shape: shape of the draws.
        """
        laws, boxes, index = self._laws()
        metric, boxes = jax.lax.stop_gradient((self.metric, boxes))
        shape = self.shape(tuple(sample_shape))
        index = np.broadcast_to(index, shape[:-1]).ravel()
        draws = jnp.zeros((len(index), shape[-1]), self.low.dtype)
        for k, key_k in enumerate(jax.random.split(check_key(key), len(laws))):
            chosen = np.flatnonzero(index == k)
            draws = draws.at[chosen].set(_draw(laws[k], metric, *boxes[k], key_k, len(chosen)))
        return draws.reshape(shape)

    @property
    def efficiency(self) -> Array:
        """Efficiency of the sampler in (0, 1], ``(*batch)``; see :attr:`reports`."""
        laws, _, index = self._laws()
        return jnp.stack([law.efficiency for law in laws])[index]

    @property
    def reports(self) -> tuple[SamplerReport, ...]:
        """What the sampler is and how well it works, for each different box of the batch."""
        return tuple(
            kept.law.report._replace(reason=kept.reason, on_floor=kept.on_floor) for kept in self._set_ups()[0]
        )

    # ---------------------------------------------------------------- set-up

    def _laws(self) -> tuple[list[BoxLaw], list[tuple[Array, Array]], np.ndarray[Any, Any]]:
        kept, boxes, index = self._set_ups()
        return [one.law for one in kept], boxes, index

    def _set_ups(self) -> tuple[list[SetUp], list[tuple[Array, Array]], np.ndarray[Any, Any]]:
        """Laws of the different boxes of the batch, these boxes, and which of them each batch element has."""
        dim, corners = self.metric.dim, (self.low, self.high)
        lows, highs = (remember(lambda corner: corner.reshape(-1, dim), corner) for corner in corners)
        if is_known(lows, highs):  # the same box for every element is one box
            both = np.concatenate([lows, highs], axis=-1)
            _, first, index = np.unique(both, axis=0, return_index=True, return_inverse=True)
        else:
            first = index = np.arange(len(lows))
        boxes = [tuple(remember(lambda corner, k=k: corner[k], corner) for corner in (lows, highs)) for k in first]
        kept = [keep(_build, (self.max_points,), self.metric, *box) for box in boxes]
        return kept, boxes, index.reshape(self.batch_shape)

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


@dataclass(frozen=True)
class SetUp:
    """A law and what to say of it."""

    law: BoxLaw
    reason: str = ""
    on_floor: float | None = None


def _build(metric: RiemannianMetric, low: Array, high: Array, max_points: int) -> SetUp:
    metric, low, high = jax.lax.stop_gradient((metric, low, high))
    if isinstance(metric, ConstantMetric):
        return SetUp(build_flat(metric, low, high), "a constant metric")
    if not is_known(metric, low, high):
        return SetUp(_traced(metric, low, high, max_points))
    _check_box(metric, low, high)
    slopes, epsilon = landscape(metric, low, high), float(jnp.finfo(low.dtype).eps)
    known, log_width = known_bumps(metric, low, high), float(jnp.log(high - low).sum())
    if metric.dim <= 2:
        # half and full resolution share their blindness for what is narrower than either: climbs do not
        finest, value, its_error = unit_fit.narrowest(slopes, metric.dim, epsilon, known)
        table, cells, change = build_table(metric, low, high, finest)
        error = float(table.rule.standard_error)
        stated, doubt = unit_fit.reconciled(float(table.log_volume) - log_width, error, value, its_error)
        if finest * cells >= 1 and max(change, stated) < _TABLE_ERROR and not doubt:
            return _checked(metric, low, high, table, stated, f"{cells} cells an axis", "")
    landmarks = _landmarks(metric, low, high) if known is None else np.zeros((0, metric.dim))
    fitted = unit_fit.fit(slopes, metric.dim, epsilon, known, landmarks)
    proposal = fitted_proposal(fitted.mixture, low, high)
    weighed = fitted.efficiency >= unit_fit.LOWEST_EFFICIENCY
    law: BoxLaw
    if weighed:
        law = build_mixture(metric, proposal, 512 if known is None else 1024)
    else:
        law = build_tempered(metric, proposal, max_points)
    own = float(law.log_volume) - log_width, float(law.rule.standard_error)
    return _checked(metric, low, high, law, *_second(fitted, own, weighed))


def _second(fitted: unit_fit.UnitFit, own: tuple[float, float], weighed: bool) -> tuple[float, str, str]:
    stated, doubt = fitted.checked(*own, weighed) if math.isfinite(own[0]) else (math.inf, "")
    return stated, fitted.reason, doubt


def _traced(metric: RiemannianMetric, low: Array, high: Array, max_points: int) -> BoxLaw:
    """A law of fixed size: no climbs, and no second route to its volume."""
    if metric.dim <= 2:
        return build_table(metric, low, high)[0]
    proposal = known_proposal(metric, low, high)
    if proposal is None:
        return build_tempered(metric, uniform_proposal(low, high), max_points)
    return build_mixture(metric, proposal, num_points=1024)


def _check_box(metric: RiemannianMetric, low: Array, high: Array) -> None:
    """Raise if the metric has no finite volume element at some point of the box."""
    nodes = jnp.asarray(qmc.Sobol(metric.dim, scramble=True, seed=np.random.default_rng(3)).random(256), low.dtype)
    check_element(metric, low, high, nodes, log_element(metric, low, high, nodes))


def _landmarks(metric: RiemannianMetric, low: Array, high: Array) -> np.ndarray[Any, Any]:
    """Landmarks of the metric in the box, in coordinates of the unit box."""
    landmarks = metric.landmarks
    if landmarks is None:
        return np.zeros((0, metric.dim))
    unit = np.asarray((landmarks - low) / (high - low), float)[:256]
    return unit[((unit >= 0) & (unit <= 1)).all(-1)]


def _checked(
    metric: RiemannianMetric, low: Array, high: Array, law: BoxLaw, error: float, reason: str, doubt: str
) -> SetUp:
    """The law; raise if there is no such law, and say so if this is the best that could be done and it is not good."""
    value, efficiency = law.log_volume, float(law.efficiency)
    if not bool(jnp.isfinite(value)):
        raise ValueError(
            f"RiemannianUniform: the {law.report.method} set-up found no finite volume of the box ({float(value)}): "
            "`metric` is not finite there, or varies too fast. Choose `low` and `high` within the chart, or a smaller "
            "box."
        )
    error = max(error, 4 * float(jnp.finfo(value.dtype).eps) * max(1.0, abs(float(value))))
    if efficiency < _WARN_EFFICIENCY or error > _WARN_ERROR or doubt:
        why = "; ".join(filter(None, (reason, doubt)))
        warnings.warn(
            f"RiemannianUniform: the {law.report.method} sampler has an efficiency of {efficiency:.1e} and "
            f"the log volume an error of {error:.1e} ({why}): `metric` varies too fast in the box. Check the draws, or "
            "choose a smaller box.",
            UserWarning,
            stacklevel=2,
        )
    law = law._replace(rule=law.rule._replace(standard_error=jnp.asarray(error, value.dtype)))
    on_floor = share_of_mass(metric, low, high, law.rule)
    if on_floor is not None and on_floor > _WARN_FLOOR:
        warnings.warn(
            f"RiemannianUniform: {on_floor:.0%} of the draws lie where `metric` is only the constant that keeps it "
            "from being singular (the floor of a KernelMetric; the jitter of a PullbackMetric), "
            "away from all data: choose a smaller box, or a smaller `regularization` or `jitter`.",
            UserWarning,
            stacklevel=2,
        )
    return SetUp(law, reason, on_floor)


@partial(jax.jit, static_argnames="count")
def _draw(law: BoxLaw, metric: RiemannianMetric, low: Array, high: Array, key: Array, count: int) -> Array:
    """``(count, d)`` draws of one law, in pieces that bound memory."""
    rows = max(1, min(count, _MOST_DRAWS, rows_at_once(metric)))

    def piece(key: Array) -> Array:
        if isinstance(law, FlatLaw):
            return draw_flat(low, high, key, count=rows)
        if isinstance(law, CellTable):
            return draw_from_table(law, metric, low, high, key, count=rows)
        if isinstance(law, MixtureLaw):
            return draw_from_mixture(law, metric, key, count=rows)
        return draw_from_particles(law, metric, key, count=rows)

    if count <= rows:
        return piece(key)[:count]
    draws = jax.lax.map(piece, jax.random.split(key, -(-count // rows)))
    return draws.reshape(-1, metric.dim)[:count]


def _corners(metric: RiemannianMetric, low: Any, high: Any) -> tuple[Array, Array]:
    """Both bounds as arrays ``(*batch, d)`` of one shape and dtype, checked."""
    given = (low, high, *jax.tree.leaves(metric))
    dtypes = [x.dtype for x in given if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)]
    dtype = dtypes[0] if dtypes else jnp.result_type(float)
    corners = [_corner(name, bound, dtype, metric.dim) for name, bound in (("low", low), ("high", high))]
    below, above = corners
    try:
        shape = jnp.broadcast_shapes(below.shape, above.shape)
    except ValueError:
        raise ValueError(f"`low` and `high` of shapes {below.shape} and {above.shape} do not broadcast.") from None
    dtype = jnp.promote_types(below.dtype, above.dtype)
    below, above = (remember(lambda corner: jnp.broadcast_to(corner, shape).astype(dtype), c) for c in (below, above))
    if not remember(lambda a, b: holds(a < b), below, above):
        raise ValueError("`low` must be strictly below `high` in every coordinate.")
    return below, above


def _corner(name: str, bound: Any, dtype: Any, dim: int) -> Array:
    if bound is None:
        raise ValueError(
            f"`{name}` is missing: the uniform law of a metric on all of R^d is improper, so both bounds of a box "
            "are required."
        )
    if isinstance(bound, int | float) and not isinstance(bound, bool):
        bound = np.full(dim, bound, dtype)
    bound = remember(lambda corner: check_array(name, corner), bound)
    if bound.ndim == 0:
        bound = remember(lambda corner: jnp.broadcast_to(corner, (dim,)), bound)
    if bound.shape[-1] != dim:
        raise ValueError(
            f"`{name}` must be a number or have shape (*batch, {dim}) for a metric of dimension {dim}, "
            f"got {bound.shape}."
        )
    if not remember(lambda corner: holds(~jnp.isinf(corner)), bound):
        raise ValueError(
            f"`{name}` is infinite: the uniform law of a metric on an unbounded set is improper; give a finite box."
        )
    return remember(lambda corner: check_finite(name, corner), bound)
