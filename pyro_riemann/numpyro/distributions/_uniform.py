"""The uniform law of a Riemannian manifold on a box of the chart."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from pyro_riemann.numpyro._checks import check_array, check_finite, check_point, holds
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro.distributions._base import RiemannianDistribution, Shape, check_key, check_metric
from pyro_riemann.numpyro.distributions._box import SamplerReport, keep, log_volume, moments, rows_at_once
from pyro_riemann.numpyro.distributions._box_law import MixtureLaw, build_mixture, draw_from_mixture
from pyro_riemann.numpyro.distributions._box_mixture import kernel_proposal, uniform_proposal
from pyro_riemann.numpyro.distributions._box_table import CellTable, build_table, draw_from_table
from pyro_riemann.numpyro.distributions._box_tempered import TemperedLaw, build_tempered, draw_from_particles
from pyro_riemann.numpyro.distributions._memo import is_known, remember
from pyro_riemann.numpyro.metrics import KernelMetric, RiemannianMetric

BoxLaw: TypeAlias = CellTable | MixtureLaw | TemperedLaw

_TABLE_ERROR = 1e-3  # a table that is worse than this gives way to a mixture
_LOWEST_MIXTURE = 0.05  # efficiency below which a mixture gives way to a tempered sequence
_LOWEST_UNIFORM = 0.3  # the same for a metric without a mixture of its own
_WARN_EFFICIENCY, _WARN_ERROR = 0.02, 0.2
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

    ========================== =============================================== =================================
    metric and dimension       volume                                          draws
    ========================== =============================================== =================================
    any metric, d <= 2         Gauss-Legendre quadrature on a grid of cells    rejection from a step function
    ``KernelMetric``, d >= 3   importance sampling from a Gaussian mixture     independence Metropolis, then HMC
    other metrics, d >= 3      a tempered sequence of particle populations     a particle, moved by HMC
    ========================== =============================================== =================================

    Args:
        metric: the metric; gradients flow to its arrays.
        low: lower corner ``(*batch, d)`` or a number, finite.
        high: upper corner ``(*batch, d)`` or a number, finite and above ``low``.
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

    def __init__(self, metric: RiemannianMetric, low: Any, high: Any, *, validate_args: bool | None = None) -> None:
        self.low, self.high = _corners(check_metric(metric), low, high)
        super().__init__(metric, self.low, validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Any:
        """The box, which ``biject_to`` maps to all of R^d."""
        return constraints.independent(constraints.interval(self.low, self.high), 1)

    # ---------------------------------------------------------------- density

    @validate_sample
    def log_prob(self, value: Array, intermediates: Any = None) -> Array:
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
        return tuple(law.report for law in self._laws()[0])

    # ---------------------------------------------------------------- set-up

    def _laws(self) -> tuple[list[BoxLaw], list[tuple[Array, Array]], np.ndarray[Any, Any]]:
        """Laws of the different boxes of the batch, these boxes, and which of them each batch element has."""
        dim, corners = self.metric.dim, (self.low, self.high)
        lows, highs = (remember(lambda corner: corner.reshape(-1, dim), corner) for corner in corners)
        if is_known(lows, highs):  # the same box for every element is one box
            both = np.concatenate([lows, highs], axis=-1)
            _, first, index = np.unique(both, axis=0, return_index=True, return_inverse=True)
        else:
            first = index = np.arange(len(lows))
        boxes = [tuple(remember(lambda corner, k=k: corner[k], corner) for corner in (lows, highs)) for k in first]
        laws = [keep(_build, self.metric, *box) for box in boxes]
        return laws, boxes, index.reshape(self.batch_shape)

    def share_on_floor(self, draws: Array) -> Array:
        r"""Share of ``draws`` ``(..., d)`` where a ``KernelMetric`` is its floor :math:`\lambda I`: in the void.

        Raises:
            TypeError: if the metric has no floor.
        """
        if not isinstance(self.metric, KernelMetric):
            raise TypeError(
                f"`share_on_floor` needs a KernelMetric, which has a floor, not a {type(self.metric).__name__}."
            )
        return 1 - self.metric.coverage(draws)


def _build(metric: RiemannianMetric, low: Array, high: Array) -> BoxLaw:
    metric, low, high = jax.lax.stop_gradient((metric, low, high))
    known, is_kernel = is_known(metric, low, high), isinstance(metric, KernelMetric)
    if metric.dim <= 2:
        table = build_table(metric, low, high, _finest_scale(metric) if known else None)
        if not known or not is_kernel or float(table.rule.standard_error) < _TABLE_ERROR:
            return _checked(table)
    proposal = kernel_proposal(metric, low, high) if isinstance(metric, KernelMetric) else uniform_proposal(low, high)
    if known or is_kernel:
        law = build_mixture(metric, proposal, num_points=2048 if is_kernel else 512)
        if not known or float(law.efficiency) >= (_LOWEST_MIXTURE if is_kernel else _LOWEST_UNIFORM):
            return _checked(law)
    return _checked(build_tempered(metric, proposal))


def _checked(law: BoxLaw) -> BoxLaw:
    """The law; raise if there is no such law, and say so if this is the best that could be done and it is not good."""
    value, error, efficiency = law.log_volume, law.rule.standard_error, law.efficiency
    if not is_known(value):
        return law
    if not bool(jnp.isfinite(value)):
        raise ValueError(
            f"RiemannianUniform: the {law.report.method} set-up found no finite volume of the box ({float(value)}): "
            "`metric` is not finite there, or varies too fast. Choose `low` and `high` within the chart, or a smaller "
            "box."
        )
    if float(efficiency) < _WARN_EFFICIENCY or float(error) > _WARN_ERROR:
        warnings.warn(
            f"RiemannianUniform: the {law.report.method} sampler has an efficiency of {float(efficiency):.1e} and "
            f"the log volume an error of {float(error):.1e}: `metric` varies too fast in the box. "
            "Check the draws, or choose a smaller box.",
            UserWarning,
            stacklevel=2,
        )
    return law


@partial(jax.jit, static_argnames="count")
def _draw(law: BoxLaw, metric: RiemannianMetric, low: Array, high: Array, key: Array, count: int) -> Array:
    """``(count, d)`` draws of one law, in pieces that bound memory."""
    rows = max(1, min(count, _MOST_DRAWS, rows_at_once(metric)))

    def piece(key: Array) -> Array:
        if isinstance(law, CellTable):
            return draw_from_table(law, metric, low, high, key, count=rows)
        if isinstance(law, MixtureLaw):
            return draw_from_mixture(law, metric, key, count=rows)
        return draw_from_particles(law, metric, key, count=rows)

    if count <= rows:
        return piece(key)[:count]
    draws = jax.lax.map(piece, jax.random.split(key, -(-count // rows)))
    return draws.reshape(-1, metric.dim)[:count]


def _finest_scale(metric: RiemannianMetric) -> float | None:
    """Half the standard deviation of the narrowest bump of a kernel metric."""
    if not isinstance(metric, KernelMetric):
        return None
    largest = metric.precisions.max() if metric.is_diagonal else jnp.linalg.eigvalsh(metric.precisions).max()
    return float(0.5 * metric.bandwidth / jnp.sqrt(largest * metric.dim))


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
