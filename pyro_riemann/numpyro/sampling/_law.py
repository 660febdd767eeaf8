"""The uniform law of a metric on one box, set up: its volume, a rule for means, and draws."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas.unit_laws import (
    LAST_MOVES,
    CellLaw,
    FlatLaw,
    Law,
    MixtureLaw,
    SamplerReport,
    TemperedLaw,
    picked,
)
from pyro_riemann._formulas.unit_mixture import weigh
from pyro_riemann._formulas.unit_moves import moved
from pyro_riemann._formulas.unit_setup import MAX_POINTS, SetUp, complaints
from pyro_riemann._formulas.unit_tempering import NUM_MOVES
from pyro_riemann._warn import warn
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro._memo import is_known, keep
from pyro_riemann.numpyro.metrics import RiemannianMetric
from pyro_riemann.numpyro.sampling._density import accepted, log_density, log_volume, moments, rows_at_once, slopes
from pyro_riemann.numpyro.sampling._runtime import RUNTIME
from pyro_riemann.numpyro.sampling._target import Target

_MOST_DRAWS = 16384  # at once: bounds memory


class BoxLaw:
    r"""The law with density :math:`\sqrt{\det G} / \mathrm{Vol}` with respect to dz on one box, set up.

    :class:`~pyro_riemann.numpyro.RiemannianUniform` draws from it. Where metric and box are known it is set up once
    for each metric, outside of all compiled programs; where they are traced it is part of the program, of a fixed size.

    Args:
        metric: the metric.
        low: lower corner of the box, ``(d)``.
        high: upper corner, ``(d)``.
        max_points: points at which a tempered sequence evaluates the metric at most, where no mixture fits.

    Raises:
        ValueError: if the metric has no finite volume in the box.

    Source: C22, section 4.4.

    Example:
        >>> law = BoxLaw(EuclideanMetric(1), jnp.zeros(1), jnp.full(1, 2.0))
        >>> round(float(jnp.exp(law.log_volume.value)), 4), law.draw(jax.random.key(0), 3).shape
        (2.0, (3, 1))
    """

    def __init__(self, metric: RiemannianMetric, low: Array, high: Array, max_points: int = MAX_POINTS) -> None:
        self.metric, self.low, self.high = metric, low, high
        self._setup = keep(_set_up, (max_points,), metric, low, high)

    @property
    def log_volume(self) -> Estimate:
        """Log of the Riemannian volume of the box and its error, scalars; differentiable where arrays are traced."""
        rule = self._setup.law.rule
        value = rule.log_volume
        if not is_known(self.metric, self.low, self.high):
            value = log_volume(self.metric, self.low, self.high, rule)
        return Estimate(value, rule.standard_error)

    @property
    def report(self) -> SamplerReport:
        """What draws, and how well."""
        return self._setup.report(plain=is_known(self._setup.law.efficiency))

    @property
    def efficiency(self) -> Array:
        """Efficiency of the sampler in (0, 1], a scalar."""
        return jnp.asarray(self._setup.law.efficiency)

    def moments(self) -> tuple[Array, Array]:
        """Mean and variance of each coordinate, ``(d)``, by the rule that gives the volume."""
        mean, variance = moments(self.metric, self.low, self.high, self._setup.law.rule)
        return mean, variance

    def draw(self, key: Array, count: int) -> Array:
        """Draws ``(count, d)``, without a gradient; NaN where a table refuses a thousand times.

        Args:
            key: of the random numbers.
            count: how many.
        """
        return jax.lax.stop_gradient(_draw(self._setup.law, self.metric, self.low, self.high, key, count))


def _set_up(metric: RiemannianMetric, low: Array, high: Array, max_points: int) -> SetUp:
    metric, low, high = jax.lax.stop_gradient((metric, low, high))
    setup = Target(metric, low, high, max_points).law()
    if is_known(setup.law):
        for complaint in complaints(setup):
            warn(complaint)
    return setup


@partial(jax.jit, static_argnames="count")
def _draw(law: Law, metric: RiemannianMetric, low: Array, high: Array, key: Array, count: int) -> Array:
    """``(count, d)`` draws of one law, in pieces that bound memory."""
    rows = max(1, min(count, _MOST_DRAWS, rows_at_once(metric)))

    def piece(key: Array) -> Array:
        return draw_unit(law, metric, low, high, key, rows)

    if count <= rows:
        unit = piece(key)[:count]
    else:
        unit = jax.lax.map(piece, jax.random.split(key, -(-count // rows))).reshape(-1, metric.dim)[:count]
    return jnp.clip(low + (high - low) * unit, low, high)


def draw_unit(law: Law, metric: RiemannianMetric, low: Array, high: Array, key: Array, count: int) -> Array:
    """``(count, d)`` draws in the unit box."""
    shape, climb = (count, metric.dim), partial(slopes, metric, low, high)
    if isinstance(law, FlatLaw):
        return RUNTIME.uniform(key, shape, low)
    if isinstance(law, CellLaw):
        return accepted(law, partial(log_density, metric, low, high), key, shape)
    for_choice, for_moves = RUNTIME.fold(key, 0), RUNTIME.fold(key, 1)
    if isinstance(law, TemperedLaw):
        draws, times = law.rule.nodes[jax.random.randint(for_choice, (count,), 0, len(law.rule.nodes))], 2 * NUM_MOVES
    else:
        draws, times = _chained(law, partial(log_density, metric, low, high), for_choice, count), LAST_MOVES
    return moved(RUNTIME, climb, law.moves, for_moves, draws, times)[0]


def _chained(law: MixtureLaw, value: partial[Array], key: Array, count: int) -> Array:
    """Ends of independence chains, each from a start of its own."""
    nodes, dim, dtype = law.rule.nodes, law.rule.nodes.shape[1], law.rule.nodes.dtype

    def step(index: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        z, current, _ = state
        luck = RUNTIME.uniform(RUNTIME.fold(key, index), (count, dim + 2), nodes)
        fresh = law.proposal.place(RUNTIME, luck[:, 1:])
        log_weight = weigh(RUNTIME, value, law.proposal, fresh)
        # a chain that has met no point of the box yet takes what comes
        accept = (jnp.log(luck[:, 0]) < log_weight - current) | jnp.isneginf(current)
        return jnp.where(accept[:, None], fresh, z), jnp.where(accept, log_weight, current), luck[:, 0]

    nowhere = jnp.full((count,), -jnp.inf, dtype)
    start = jnp.zeros((count, dim), dtype), nowhere, jnp.zeros((count,), dtype)
    draws, log_weight, luck = jax.lax.fori_loop(0, law.steps.astype(int), step, start)
    # too rare to matter: a chain that never met one, so that its last number decided nothing, starts from the kept rule
    return jnp.where(jnp.isneginf(log_weight)[:, None], picked(jnp, law.rule, luck), draws)
