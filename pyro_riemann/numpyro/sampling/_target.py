"""The law to be sampled: a metric on a box, as a function on the unit box."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array

from pyro_riemann._formulas.climbs import Vector
from pyro_riemann._formulas.peaks import in_units
from pyro_riemann._formulas.runtime import HOST
from pyro_riemann._formulas.unit_cells import tabulate
from pyro_riemann._formulas.unit_fit import Landscape, UnitFit, fit
from pyro_riemann._formulas.unit_groups import known_bumps
from pyro_riemann._formulas.unit_laws import (
    CellLaw,
    FlatLaw,
    Law,
    MixtureLaw,
    TemperedLaw,
    flat_law,
    mixture_law,
    quasi_random,
)
from pyro_riemann._formulas.unit_mixture import UnitMixture
from pyro_riemann._formulas.unit_samplers import Weighed
from pyro_riemann._formulas.unit_setup import MAX_POINTS, SetUp, set_up_cells, set_up_fit
from pyro_riemann._formulas.unit_tempering import TemperedState
from pyro_riemann.numpyro._memo import is_known, keep
from pyro_riemann.numpyro.metrics import ConstantMetric, KernelMetric, RiemannianMetric
from pyro_riemann.numpyro.sampling import _programs
from pyro_riemann.numpyro.sampling._density import (
    accepted,
    compiled_density,
    compiled_slopes,
    log_density,
    on_floor,
    peaks,
    rows_at_once,
)
from pyro_riemann.numpyro.sampling._runtime import RUNTIME, JaxRuntime

_HOST_ROWS, _CELL_ROWS = 256, 4096  # points at once for the host: one size, so that one program serves all calls
_CELLS_WHILE_TRACING = {1: 1024, 2: 64}


@dataclass(frozen=True, eq=False)
class Target:
    r"""The density :math:`\sqrt{\det G}` on a box, in coordinates of the unit box.

    Attributes:
        metric: the metric.
        low: lower corner, ``(d)``.
        high: upper corner, ``(d)``.
        max_points: at which a tempered sequence that is a law of its own evaluates the metric at most.
    """

    metric: RiemannianMetric
    low: Array
    high: Array
    max_points: int = MAX_POINTS

    @property
    def runtime(self) -> JaxRuntime:
        """Of its arrays."""
        return RUNTIME

    def points(self, unit: Array) -> Array:
        """Points of the unit box in the chart."""
        return jnp.clip(self.low + (self.high - self.low) * unit, self.low, self.high)

    def host_slopes(self, unit: Vector) -> tuple[Vector, Vector]:
        """:func:`slopes` of arrays of NumPy; NaN where the metric has no volume element."""
        values, gradients = [np.zeros(0)], [np.zeros((0, unit.shape[1]))]
        for piece in _padded(unit, _HOST_ROWS, self.low.dtype):
            found = compiled_slopes(self.metric, self.low, self.high, piece)
            values.append(np.asarray(found[0], float))
            gradients.append(np.asarray(found[1], float))
        return np.concatenate(values)[: len(unit)], np.concatenate(gradients)[: len(unit)]

    def host_value(self, unit: Vector) -> Vector:
        """:func:`log_density` of arrays of NumPy, for many points."""
        pieces = _padded(unit, min(_CELL_ROWS, rows_at_once(self.metric)), self.low.dtype)
        values = [np.asarray(compiled_density(self.metric, self.low, self.high, piece), float) for piece in pieces]
        return np.concatenate(values)[: len(unit)]

    # ---------------------------------------------------------------- the builder of its laws

    @cached_property
    def land(self) -> Landscape:
        """The function as the host sees it."""
        metric, known, landmarks = self.metric, peaks(self.metric), self.metric.landmarks
        low, width = np.asarray(self.low, float), np.asarray(self.high, float) - np.asarray(self.low, float)
        bumps = None
        if known is not None:
            covariance = in_units(np.asarray(known.covariance, float), width)
            bumps = known_bumps(self.host_slopes, (np.asarray(known.loc, float) - low) / width, covariance)
        marks = np.zeros((0, metric.dim)) if landmarks is None else (np.asarray(landmarks, float) - low) / width
        epsilon, points = float(jnp.finfo(self.low.dtype).eps), 16384 if isinstance(metric, KernelMetric) else 4096
        return Landscape(self.host_slopes, metric.dim, epsilon, bumps, marks, points)

    def on_device(self, proposal: UnitMixture) -> UnitMixture:
        """A mixture of arrays of NumPy as arrays of JAX."""
        return UnitMixture(*(jnp.asarray(part, self.low.dtype) for part in proposal))

    def cells(self, count: int) -> CellLaw:
        """A table of so many cells an axis; of arrays of NumPy where metric and box are known."""
        if is_known(self.metric, self.low, self.high):
            return tabulate(HOST, self.host_value, count, np.zeros(self.metric.dim))
        return _programs.cells(self.metric, self.low, self.high, count)

    def mixture(self, proposal: UnitMixture, num_points: int) -> MixtureLaw:
        """The law of a proposal, from so many points in each replicate; of arrays of NumPy like a table."""
        uniform, dtype = quasi_random(self.metric.dim + 1, num_points), self.low.dtype
        if is_known(self.metric, self.low, self.high):  # by the program that the host has already: none to compile
            luck, slopes = np.random.default_rng(0), self.host_slopes
            return mixture_law(HOST, lambda unit: slopes(unit)[0], slopes, proposal, uniform, luck)
        return _programs.mixture(self.metric, self.low, self.high, proposal, jnp.asarray(uniform, dtype))

    def tempered(self, proposal: UnitMixture) -> TemperedLaw:
        """The law of a population that starts from a proposal."""
        return _programs.tempered(self.metric, self.low, self.high, self.on_device(proposal), self.max_points)

    def flat(self) -> FlatLaw:
        """The law of a constant metric."""
        return flat_law(jnp, log_density(self.metric, self.low, self.high, 0 * self.low[None])[0], self.low)

    def while_tracing(self) -> Law:
        """A law of fixed size: no climbs, and no second route to its volume."""
        dim = self.metric.dim
        if dim <= 2:
            coarse, law = (self.cells(_CELLS_WHILE_TRACING[dim] // share) for share in (2, 1))
            error = jnp.abs(law.rule.log_volume - coarse.rule.log_volume)
            return law._replace(rule=law.rule._replace(standard_error=error))
        proposal = _programs.known_mixture(self.metric, self.low, self.high)
        if len(proposal.loc):
            return self.mixture(proposal, 1024)
        return _programs.tempered(self.metric, self.low, self.high, proposal, self.max_points)

    # ---------------------------------------------------------------- what its samplers need

    def resampled(self, shape: tuple[int, int, int], num_moves: int, key: Array) -> tuple[Weighed, Array]:
        """Populations of the proposal, resampled and moved on."""
        proposal = self.on_device(self.proposal().mixture)
        return _programs.resampled(self.metric, self.low, self.high, proposal, key, shape, num_moves)

    def population(self, islands: int, particles: int, num_moves: int, key: Array) -> TemperedState:
        """The end of a tempered sequence from the proposal."""
        proposal = self.on_device(self.proposal().mixture)
        return _programs.population(self.metric, self.low, self.high, proposal, key, islands, particles, num_moves)

    def accepted(self, law: CellLaw, count: int, key: Array) -> Array:
        """Draws ``(count, d)`` by rejection from a table."""
        return accepted(law, partial(log_density, self.metric, self.low, self.high), key, (count, len(self.low)))

    def on_floor(self, points: Array) -> Array | None:
        """Where the metric is only its floor, ``(n)``; None if it has none."""
        return self.metric.on_floor(points)

    # ---------------------------------------------------------------- what is kept while the metric stays as it is

    def table(self) -> SetUp | None:
        """A table of cells, where one resolves the metric."""
        return keep(_table, (), self.metric, self.low, self.high) if self.metric.dim <= 2 else None

    def proposal(self) -> UnitFit:
        """The fitted mixture."""
        return keep(_fit, (), self.metric, self.low, self.high)

    def law(self) -> SetUp:
        """The law that fits the metric best.

        Raises:
            ValueError: if the metric has no finite volume in the box.
        """
        if isinstance(self.metric, ConstantMetric):
            return SetUp(self.flat(), "a constant metric")
        if not is_known(self.metric, self.low, self.high):
            return SetUp(self.while_tracing())
        self.check()
        setup = self.table() or _on_device(set_up_fit(self, self.proposal()), self.low)
        rule = setup.law.rule
        if not math.isfinite(float(rule.log_volume)):
            raise ValueError(
                f"RiemannianUniform: the {setup.report().method} set-up found no finite volume of the box "
                f"({float(rule.log_volume)}): `metric` is not finite there, or varies too fast. Choose `low` and "
                "`high` within the chart, or a smaller box."
            )
        flat = on_floor(self.metric, self.low, self.high, rule.nodes)
        share = None if flat is None else float(np.exp(np.asarray(rule.log_weight)) @ np.asarray(flat, float))
        return setup._replace(on_floor=share)

    def check(self) -> None:
        """Raise if the metric has no finite volume element at some point of the box."""
        nodes = scipy.stats.qmc.Sobol(self.metric.dim, scramble=True, seed=np.random.default_rng(3)).random(256)
        value = self.host_slopes(nodes)[0]
        if not (value < np.inf).all():
            where = np.asarray(self.points(jnp.asarray(nodes[~(value < np.inf)][0], self.low.dtype))).tolist()
            raise ValueError(
                f"`metric` ({type(self.metric).__name__}) has no finite volume element at z = {where}, inside the box: "
                "choose `low` and `high` within the chart."
            )


def _table(metric: RiemannianMetric, low: Array, high: Array) -> SetUp | None:
    setup = set_up_cells(Target(metric, low, high))
    return None if setup is None else _on_device(setup, low)


def _padded(unit: Vector, rows: int, dtype: Any) -> Iterator[Vector]:
    """Pieces of so many rows each, the last one filled up."""
    count, dim = unit.shape
    filled = np.full((-(-count // rows) * rows, dim), 0.5, dtype)
    filled[:count] = unit
    yield from filled.reshape(-1, rows, dim)


def _on_device(setup: SetUp, like: Array) -> SetUp:
    """With arrays of JAX."""

    def moved(part: Any) -> Array:
        part = np.asarray(part)
        return jnp.asarray(part.astype(like.dtype) if np.issubdtype(part.dtype, np.floating) else part)

    law: Law = jax.tree.map(moved, setup.law)
    return setup._replace(law=law)


def _fit(metric: RiemannianMetric, low: Array, high: Array) -> UnitFit:
    return fit(Target(metric, low, high).land)
