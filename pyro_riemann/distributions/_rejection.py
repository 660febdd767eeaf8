"""Rejection whose bound rises to heavier proposals that have mass: rays in random directions, or points of a mixture.

Source: Caffo, Booth & Davis (2002), *Empirical supremum rejection sampling*.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from pyro_riemann import _work
from pyro_riemann._formulas import ray_rule
from pyro_riemann._warn import warn
from pyro_riemann.distributions._rays import RayRule

_AT_ONCE = 1 << 13  # proposals
Propose: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]


class Source(NamedTuple):
    """Where proposals for some of the laws come from.

    Attributes:
        rows: of these laws, ``(r,)``.
        propose: points ``(n, d)`` and their log weights ``(n,)`` for laws by their number here, ``(n,)``.
        seen: log weights of earlier ones, ``(N, r)``.
    """

    rows: Tensor
    propose: Propose
    seen: Tensor

    def bound(self) -> Tensor:
        """Above the log weight of all that were seen, ``(r,)``."""
        largest = self.seen.amax(0)
        return largest + ray_rule.MARGIN * (largest - self.mean()).clamp(0.01, 1.0)

    def mean(self) -> Tensor:
        """Log of the mean weight, ``(r,)``."""
        return self.seen.logsumexp(0) - math.log(len(self.seen))

    def efficiency(self) -> float:
        """Acceptance rate, the worst of the laws."""
        return float((self.mean() - self.bound()).exp().min())


def reject(source: Source, law: Tensor, dim: int) -> Tensor:
    """Draws ``(n, d)`` for laws by their number in the source, ``(n,)``.

    Where proposals above the bound have more than a hundredth of the mass they raise it, and thin what was accepted
    before.
    """
    first, mean = source.bound(), source.mean()
    bound, dear = first, _say_if_dear(mean - first)
    z = first.new_empty(len(law), dim)
    pending = torch.arange(len(law), device=law.device)
    done = pending[:0]
    whole, squares = ((k * (source.seen - first)).exp().sum(0) for k in (1, 2))
    lost = torch.zeros_like(whole)
    for _ in range(ray_rule.MAX_ROUNDS):
        _work.stage("draws", len(law) - len(pending), len(law))
        now, later = pending[:_AT_ONCE], pending[_AT_ONCE:]
        which = law[now]
        points, weight = source.propose(which)
        weight = weight.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)  # where nothing is known
        share = (weight - first[which]).exp()
        whole, squares = whole.index_add(0, which, share), squares.index_add(0, which, share**2)
        lost = lost.index_add(0, which, (share - (bound - first).exp()[which]).clamp(min=0))
        heavier = (weight > bound[which]) & (lost > ray_rule.LOST * whole)[which]
        if bool(heavier.any()):
            before, bound = bound, bound.scatter_reduce(0, which[heavier], weight[heavier] + ray_rule.MARGIN, "amax")
            lost = torch.where(bound > before, 0.0, lost)
            dear = dear or _say_if_dear(mean - bound)
            stays = torch.rand(len(done), dtype=z.dtype, device=z.device).log() < (before - bound)[law[done]]
            later, done = torch.cat([done[~stays], later]), done[stays]
        accept = torch.rand_like(weight).log() < weight - bound[which]
        z[now[accept]] = points[accept]
        done = torch.cat([done, now[accept]])
        pending = torch.cat([now[~accept], later])
        if len(pending) == 0:
            break
    else:
        raise RuntimeError(
            f"Rejection sampling of a RiemannianNormal left {len(pending)} of {len(law)} draws without an accepted "
            f"proposal in {ray_rule.MAX_ROUNDS} rounds: few have all the mass. Use a smaller `scale`."
        )
    if said := ray_rule.complaint_of_draws(float((whole**2 / squares).min()), len(source.seen)):
        warn(said)
    return z


def _say_if_dear(log_efficiency: Tensor) -> bool:
    """Warn if few proposals are accepted; whether it was said."""
    said = ray_rule.complaint_of_efficiency(float(log_efficiency.exp().min()))
    if said:
        warn(said)
    return said is not None


def along(rule: RayRule, logs: Tensor) -> Tensor:
    """A point on every ray, ``(n, d)``, by the inverse of the distribution function of the radius."""
    size = ray_rule.PANEL
    panels = logs.unflatten(0, (-1, size))
    mass = panels.logsumexp(1).softmax(0).cumsum(0)
    luck = torch.rand_like(mass[0])
    chosen = (mass[:-1] < luck).sum(0)
    ray = torch.arange(len(chosen), device=chosen.device)
    weight = torch.from_numpy(ray_rule.panel()[1]).to(logs)
    density = (panels - panels.amax(1, keepdim=True))[chosen, :, ray].exp() / weight
    powers = torch.from_numpy(ray_rule.panel_polynomials()).to(logs)
    order = torch.arange(size, device=logs.device)
    growth = density @ powers / (order + 1)  # coefficients of the running integral, from the first power up
    goal = torch.rand_like(luck) * growth.sum(-1)
    low, high = torch.zeros_like(goal), torch.ones_like(goal)
    for _ in range(40):
        middle = 0.5 * (low + high)
        below = (growth * middle.unsqueeze(-1) ** (order + 1)).sum(-1) < goal
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    basis = (low.unsqueeze(-1) ** order) @ powers.T
    points = rule.point.unflatten(0, (-1, size))[chosen, :, ray]
    return (basis.unsqueeze(-1) * points).sum(1)
