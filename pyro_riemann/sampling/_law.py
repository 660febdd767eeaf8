"""The uniform law of a metric on one box, set up: its volume, a rule for means, and draws."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from pyro_riemann._box import check_chart
from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas.unit_laws import (
    LAST_MOVES,
    CellLaw,
    FlatLaw,
    MixtureLaw,
    SamplerReport,
    TemperedLaw,
    picked,
)
from pyro_riemann._formulas.unit_mixture import weigh
from pyro_riemann._formulas.unit_moves import moved
from pyro_riemann._formulas.unit_setup import MAX_POINTS, SetUp, complaints
from pyro_riemann._formulas.unit_tempering import NUM_MOVES
from pyro_riemann._memo import remember, untraced
from pyro_riemann._warn import warn
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.sampling._runtime import RUNTIME
from pyro_riemann.sampling._target import Target

_AT_ONCE = 131072  # proposals of independence chains, or of a table


class BoxLaw:
    r"""The law with density :math:`\sqrt{\det G} / \mathrm{Vol}` with respect to dz on one box, set up.

    :class:`~pyro_riemann.RiemannianUniform` draws from it. It is kept for as long as the metric is unchanged; its
    set-up is deterministic and leaves the global random state alone.

    Args:
        metric: the metric.
        low: lower corner of the box, ``(d)``.
        high: upper corner, ``(d)``.
        max_points: points at which a tempered sequence evaluates the metric at most, where no mixture fits.

    Raises:
        ValueError: if the box leaves the chart, or the metric has no finite volume element in it.
        RuntimeError: if two hundred temperatures are not enough for a tempered sequence.

    Source: C22, section 4.4.

    Example:
        >>> law = BoxLaw(EuclideanMetric(1), torch.zeros(1), torch.full((1,), 2.0))
        >>> round(float(law.log_volume.value.exp()), 4), law.draw(3).shape
        (2.0, torch.Size([3, 1]))
    """

    def __init__(self, metric: RiemannianMetric, low: Tensor, high: Tensor, max_points: int = MAX_POINTS) -> None:
        (self._setup,) = _set_up(metric, torch.cat([low, high])[None], max_points)
        self._target, self.low, self.high = Target(metric, low, high, max_points), low, high

    @classmethod
    def of_boxes(cls, metric: RiemannianMetric, boxes: Tensor, max_points: int = MAX_POINTS) -> list[BoxLaw]:
        """One law for each of several boxes, with one look at whether the metric has changed.

        Args:
            metric: the metric.
            boxes: lower and upper corners side by side, ``(n, 2 * d)``.
            max_points: as for one.

        Raises:
            ValueError, RuntimeError: as for one.
        """
        laws = []
        for box, setup in zip(boxes, _set_up(metric, boxes, max_points), strict=True):
            law = cls.__new__(cls)
            law.low, law.high = box.split(metric.dim)
            law._setup, law._target = setup, Target(metric, law.low, law.high, max_points)
            laws.append(law)
        return laws

    @property
    def log_volume(self) -> Estimate:
        """Log of the Riemannian volume of the box and its error, scalars."""
        rule, low = self._setup.law.rule, self._target.low
        return Estimate(rule.log_volume.to(low), rule.standard_error.to(low))

    @property
    def report(self) -> SamplerReport:
        """What draws, and how well."""
        return self._setup.report()

    @cached_property
    def nodes(self) -> Tensor:
        """Points of the rule that gives the volume, ``(N, d)``."""
        return self._target.points(self._setup.law.rule.nodes)

    @cached_property
    def weights(self) -> Tensor:
        """Weights of the nodes, which sum to 1: a mean under the law is a weighted sum; ``(N)``."""
        weights: Tensor = self._setup.law.rule.log_weight.exp().to(self._target.low)
        return weights

    @torch.no_grad()
    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws ``(count, d)``.

        Args:
            count: how many.
            generator: of the random numbers; the global one if None.

        Raises:
            RuntimeError: if a table refuses a thousand times.
        """
        law = self._setup.law
        rows = max(1, _AT_ONCE // int(law.steps)) if isinstance(law, MixtureLaw) else _AT_ONCE
        pieces = [self._draw(min(rows, count - done), generator) for done in range(0, count, rows)]
        return (
            self._target.points(torch.cat(pieces)) if pieces else self._target.low.new_empty(0, len(self._target.low))
        )

    def _draw(self, count: int, key: torch.Generator | None) -> Tensor:
        law, target = self._setup.law, self._target
        like, dim = target.origin, len(target.low)
        if isinstance(law, FlatLaw):
            return RUNTIME.uniform(key, (count, dim), like)
        if isinstance(law, CellLaw):
            return target.accepted(law, count, key)
        if isinstance(law, TemperedLaw):
            draws, times = law.rule.nodes[(len(law.rule.nodes) * RUNTIME.uniform(key, (count,), like)).long()], 2
            return moved(RUNTIME, target.slopes, law.moves, key, draws, times * NUM_MOVES)[0]
        steps = int(law.steps)
        z = law.proposal.place(RUNTIME, RUNTIME.uniform(key, (count * steps, dim + 1), like))
        log_weight = weigh(RUNTIME, target.value, law.proposal, z).view(count, steps)
        chosen = independence_chain(log_weight, key)[:, -1] + steps * torch.arange(count, device=like.device)
        # a chain that has met no point of the box yet, too rare to matter, starts from the rule
        spare = picked(torch, law.rule, RUNTIME.uniform(key, (count,), like))
        draws = torch.where((log_weight.flatten()[chosen] > -torch.inf).unsqueeze(-1), z[chosen], spare)
        return moved(RUNTIME, target.slopes, law.moves, key, draws, LAST_MOVES)[0]


def _set_up(metric: RiemannianMetric, boxes: Tensor, max_points: int) -> list[SetUp]:
    """The laws of boxes ``(n, 2 * d)``, once for an unchanged metric."""

    def build() -> tuple[list[SetUp], Tensor]:
        targets = [Target(metric, box[: metric.dim], box[metric.dim :], max_points) for box in boxes]
        setups = []
        for target in targets:
            check_chart(metric, target.low, target.high)
            setups.append(target.law())
            for complaint in complaints(setups[-1]):
                warn(complaint)
        nodes = [target.points(setup.law.rule.nodes) for target, setup in zip(targets, setups, strict=True)]
        return setups, torch.cat(nodes)

    with torch.no_grad(), untraced():
        return remember(metric, "laws", (max_points,), (boxes,), build)


def independence_chain(log_weight: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Metropolis chains that propose their row of points in order; where each chain is after every step.

    Args:
        log_weight: log importance weights of the proposals, ``(chains, steps)``; the first is the start.
        generator: of the uniform numbers.

    Returns:
        Index of the current proposal, ``(chains, steps)``.
    """
    count, steps = log_weight.shape
    threshold = RUNTIME.uniform(generator, (count, steps), log_weight).log()
    row = torch.arange(count, device=log_weight.device)
    current = torch.zeros_like(row)
    history = [current]
    for step in range(1, steps):
        gain = log_weight[:, step] - log_weight[row, current]  # NaN, and refused, if both are outside
        current = torch.where((threshold[:, step] < gain) | (log_weight[row, current] == -torch.inf), step, current)
        history.append(current)
    return torch.stack(history, dim=1)
