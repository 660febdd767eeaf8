"""The law to be sampled: a metric on a box, as a function on the unit box."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_riemann._box import check_box, check_chart, check_metric
from pyro_riemann._formulas import table
from pyro_riemann._formulas.climbs import Vector
from pyro_riemann._formulas.peaks import in_units, variances
from pyro_riemann._formulas.unit_cells import MAX_ROUNDS, propose, tabulate
from pyro_riemann._formulas.unit_fit import Landscape, UnitFit, fit
from pyro_riemann._formulas.unit_groups import known_bumps
from pyro_riemann._formulas.unit_laws import (
    CellLaw,
    FlatLaw,
    MixtureLaw,
    TemperedLaw,
    flat_law,
    mixture_law,
    quasi_random,
    tempered_law,
)
from pyro_riemann._formulas.unit_mixture import UnitMixture
from pyro_riemann._formulas.unit_samplers import Weighed, resampled, spread
from pyro_riemann._formulas.unit_setup import MAX_POINTS, SetUp, set_up_cells, set_up_fit
from pyro_riemann._formulas.unit_tempering import TemperedState, temper
from pyro_riemann._memo import Probe, remember
from pyro_riemann.metrics import ConstantMetric, KernelMetric, RiemannianMetric
from pyro_riemann.sampling._runtime import RUNTIME, TorchRuntime

MARGIN = 4.0  # standard deviations of the bumps by which the default box exceeds the centroids
CHUNK = 16384  # points per metric evaluation: bounds memory, not results
_ENTRIES = 2**18  # points times centroids per evaluation of a kernel metric: its table stays in the cache


@dataclass(frozen=True, eq=False)
class Target:
    r"""The density :math:`\sqrt{\det G}` on a box, in coordinates of the unit box and in doubles.

    Attributes:
        metric: the metric.
        low: lower corner, ``(d)``.
        high: upper corner, ``(d)``.
        max_points: at which a tempered sequence that is a law of its own evaluates the metric at most.
    """

    metric: RiemannianMetric
    low: Tensor
    high: Tensor
    max_points: int = MAX_POINTS

    @cached_property
    def origin(self) -> Tensor:
        """A corner of the unit box, ``(d)``: all arrays are like it."""
        return torch.zeros_like(self.low, dtype=torch.float64)

    @property
    def runtime(self) -> TorchRuntime:
        """Of its arrays."""
        return RUNTIME

    def points(self, unit: Tensor) -> Tensor:
        """Points of the unit box in the chart."""
        return torch.clamp(self.low + (self.high - self.low) * unit.to(self.low), self.low, self.high)

    def unit(self, points: Tensor) -> Tensor:
        """Points of the chart in the unit box."""
        return ((points.to(self.low) - self.low) / (self.high - self.low)).double()

    def value(self, unit: Tensor) -> Tensor:
        """Log density ``(n)`` with respect to the unit box at ``(n, d)``.

        Raises:
            ValueError: if the metric is NaN or infinite at one of the points.
        """
        with torch.no_grad():
            points = self.points(unit)
            value = RUNTIME.in_pieces(self.metric.logdet, self._rows, points)
        if not bool((value < torch.inf).all()):
            raise ValueError(
                f"`metric` has no finite volume element at z = {points[~(value < torch.inf)][0].tolist()}, inside the "
                "box: choose `low` and `high` within the chart."
            )
        return 0.5 * value.double() + self._log_width

    def slopes(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Log density ``(n)`` and its gradient ``(n, d)`` in the unit box; NaN where there is none."""
        if not len(unit):
            return unit[:, 0], unit
        value, gradient = RUNTIME.in_pieces(self._slopes_of_piece, self._rows, self.points(unit.detach()))
        return 0.5 * value.double() + self._log_width, 0.5 * gradient.double() * (self.high - self.low).double()

    def _slopes_of_piece(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if type(self.metric) is KernelMetric and self.metric.is_diagonal:
            with torch.no_grad():
                return self.metric._logdet_with_gradient(z)
        return RUNTIME.slopes(self.metric.logdet)(z)

    @cached_property
    def _log_width(self) -> Tensor:
        return (self.high - self.low).double().log().sum()

    @property
    def _rows(self) -> int:
        metric = self.metric
        return max(64, _ENTRIES // len(metric.centroids)) if isinstance(metric, KernelMetric) else CHUNK

    # ---------------------------------------------------------------- the builder of its laws

    def host_slopes(self, unit: Vector) -> tuple[Vector, Vector]:
        """:meth:`slopes` of arrays of NumPy."""
        value, gradient = self.slopes(table(torch, unit, self.origin))
        return value.cpu().numpy(), gradient.cpu().numpy()

    def host_value(self, unit: Vector) -> Vector:
        """:meth:`value` of arrays of NumPy."""
        return np.asarray(self.value(table(torch, unit, self.origin)).cpu())

    @cached_property
    def land(self) -> Landscape:
        """The function as the host sees it."""
        metric, known = self.metric, self.metric.peaks()
        bumps, landmarks = None, metric.landmarks
        if known is not None:
            width = (self.high - self.low).double()
            covariance = in_units(known.covariance.detach().double().to(width.device), width)
            loc = self.unit(known.loc.detach())
            bumps = known_bumps(self.host_slopes, loc.cpu().numpy(), covariance.cpu().numpy())
        marks = np.zeros((0, metric.dim)) if landmarks is None else self.unit(landmarks.detach()).cpu().numpy()
        epsilon, points = torch.finfo(self.low.dtype).eps, 16384 if isinstance(metric, KernelMetric) else 4096
        return Landscape(self.host_slopes, metric.dim, epsilon, bumps, marks, points, self.host_value)

    def on_device(self, proposal: UnitMixture) -> UnitMixture:
        """A mixture of arrays of NumPy as tensors."""
        return UnitMixture(*(table(torch, part, self.origin) for part in proposal))

    def cells(self, count: int) -> CellLaw:
        """A table of so many cells an axis."""
        return tabulate(RUNTIME, self.value, count, self.origin)

    def mixture(self, proposal: UnitMixture, num_points: int) -> MixtureLaw:
        """The law of a proposal, from so many points in each replicate."""
        uniform = table(torch, quasi_random(self.metric.dim + 1, num_points), self.origin)
        return mixture_law(RUNTIME, self.value, self.slopes, self.on_device(proposal), uniform, self.generator(0))

    def tempered(self, proposal: UnitMixture) -> TemperedLaw:
        """The law of a population that starts from a proposal."""
        key = self.generator(0)
        return tempered_law(RUNTIME, self.slopes, self.on_device(proposal), key, self.max_points)

    def flat(self) -> FlatLaw:
        """The law of a constant metric."""
        return flat_law(torch, self.value(self.origin[None])[0], self.origin)

    def generator(self, seed: int) -> torch.Generator:
        """Random numbers on the device of the box."""
        return torch.Generator(self.low.device).manual_seed(seed)

    # ---------------------------------------------------------------- what its samplers need

    def resampled(self, shape: tuple[int, int, int], num_moves: int, key: torch.Generator) -> tuple[Weighed, Tensor]:
        """Populations of the proposal, resampled and moved on."""
        proposal = self.on_device(self.proposal().mixture)
        drawn = resampled(RUNTIME, self.value, proposal, shape, key)
        return spread(RUNTIME, self.slopes, drawn, proposal.scale(RUNTIME), num_moves, key)

    def population(self, islands: int, particles: int, num_moves: int, key: torch.Generator) -> TemperedState:
        """The end of a tempered sequence from the proposal."""
        proposal = self.on_device(self.proposal().mixture)
        return temper(RUNTIME, self.slopes, proposal, islands, particles, key, num_moves)

    def accepted(self, law: CellLaw, count: int, key: torch.Generator | None) -> Tensor:
        """Draws ``(count, d)`` by rejection from a table.

        Raises:
            RuntimeError: if it refuses a thousand times.
        """
        draws = self.origin.new_empty(count, len(self.low))
        missing = torch.arange(count, device=draws.device)
        for _ in range(MAX_ROUNDS):
            if len(missing) == 0:
                return draws
            unit, height = propose(RUNTIME, law, RUNTIME.uniform(key, (len(missing), draws.shape[1] + 3), draws))
            chosen = height < self.value(unit)
            draws[missing[chosen]] = unit[chosen]
            missing = missing[~chosen]
        raise RuntimeError(
            f"A table could not draw {len(missing)} of {count} points in {MAX_ROUNDS} rounds of rejection (acceptance "
            f"{float(law.efficiency):.1e}): `metric` varies too fast. Use a smaller box or a smoother metric."
        )

    # ---------------------------------------------------------------- what is kept while the metric stays as it is

    def table(self) -> SetUp | None:
        """A table of cells, where one resolves the metric."""
        return self._kept("table", lambda: set_up_cells(self)) if self.metric.dim <= 2 else None

    def proposal(self) -> UnitFit:
        """The fitted mixture."""
        return self._kept("proposal", lambda: fit(self.land))

    def law(self) -> SetUp:
        """The law that fits the metric best."""
        if isinstance(self.metric, ConstantMetric):
            setup = SetUp(self.flat(), "a constant metric")
        else:
            setup = self.table() or set_up_fit(self, self.proposal())
        if bool(torch.isnan(setup.law.rule.log_volume)):
            raise RuntimeError(
                "The tempered sequence did not come from the proposal to the uniform law in two hundred stages: "
                "`metric` varies too fast in the box. Use a smaller box or a smoother metric."
            )
        rule = setup.law.rule
        flat = self.on_floor(self.points(rule.nodes))
        share = None if flat is None else float(rule.log_weight.exp() @ flat.double())
        return setup._replace(on_floor=share)

    def on_floor(self, points: Tensor) -> Tensor | None:
        """Where the metric is only its floor, ``(n)``; None if it has none."""
        with torch.no_grad():
            flat = [self.metric.on_floor(piece) for piece in points.split(self._rows)]
        known = [piece for piece in flat if piece is not None]
        return torch.cat(known) if known else None

    def _kept(self, name: str, compute: Any) -> Any:
        with torch.no_grad():
            return remember(self.metric, name, (), (self.low, self.high), lambda: (compute(), self.nodes))

    @cached_property
    def nodes(self) -> Tensor:
        """Points by which the metric is told from another one, ``(n, d)``."""
        known = self.land.known
        seeds = torch.quasirandom.SobolEngine(self.metric.dim, scramble=True, seed=0).draw(16, dtype=torch.float64)
        tops = seeds[:0] if known is None else torch.from_numpy(known.unit[:16])
        return self.points(torch.cat([seeds, tops]).to(self.origin))

    def probe(self) -> Probe:
        """The metric as it is now."""
        with torch.no_grad():
            return Probe(self.nodes, self.metric.metric(self.nodes))


def default_box(metric: RiemannianMetric, margin: float = MARGIN) -> tuple[Tensor, Tensor]:
    r"""Bounding box of the bumps of a kernel metric: the centroids and ``margin`` standard deviations around each.

    A bump has the covariance :math:`\rho^2 P_i^{-1} / d`.

    Args:
        metric: a :class:`~pyro_riemann.metrics.KernelMetric`; no other metric knows where its data are.
        margin: number of standard deviations.

    Returns:
        Lower and upper corner, ``(d)`` each.

    Raises:
        ValueError: for another metric.

    Source: C22, eq. 7.

    Example:
        >>> low, high = default_box(KernelMetric(torch.zeros(1, 2), torch.ones(1, 2), bandwidth=1.0), margin=3.0)
        >>> high
        tensor([2.1213, 2.1213])
    """
    if not isinstance(metric, KernelMetric):
        raise ValueError(
            f"`low` and `high` are missing: a {type(metric).__name__} has no centroids to put a box around, and its "
            "uniform law on all of R^d is improper. Give both corners."
        )
    with torch.no_grad():
        loc, covariance = metric.peaks()
        reach = margin * variances(torch, covariance).sqrt()
        return (loc - reach).amin(0).detach(), (loc + reach).amax(0).detach()


def target_of(metric: RiemannianMetric, low: Any, high: Any, seed: int | None) -> tuple[Target, torch.Generator]:
    """Check the arguments that all samplers share.

    Raises:
        TypeError, ValueError: naming the argument at fault.
    """
    check_metric(metric)
    if low is None and high is None:
        low, high = default_box(metric)
    low, high = torch.broadcast_tensors(*check_box(metric, low, high))
    if low.dim() > 1:
        raise ValueError(
            f"`low` and `high` must be numbers or have shape ({metric.dim},), got a batch of boxes "
            f"{tuple(low.shape[:-1])}; sample them one by one, or with RiemannianUniform(...).sample()."
        )
    check_chart(metric, low, high)
    target = Target(metric, low.detach().contiguous(), high.detach().contiguous())
    return target, target.generator(int(torch.randint(2**62, (), device="cpu")) if seed is None else seed)
