"""Draws of the Riemannian normal: exact radii where the volume is known, elsewhere rays in random directions."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann import _work
from pyro_riemann._formulas import radial, ray_rule
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann._warn import warn
from pyro_riemann.distributions._judged_rays import Integrand, judged_rays
from pyro_riemann.distributions._radial_mass import radial_laws, unwarped
from pyro_riemann.distributions._radial_moments import rewarped
from pyro_riemann.distributions._rays import RayRule, cast_rays
from pyro_riemann.distributions._tangent import tangent_vectors
from pyro_riemann.manifolds import ProductMetric
from pyro_riemann.metrics import RiemannianMetric

_MARGIN = 0.1  # of the log of the largest ray mass that was seen, for those that were not
_EFFICIENCY_BOUND = 0.02
_RAYS = 1 << 13  # followed at once
_MAX_ROUNDS = 1000


class SamplingReport(NamedTuple):
    """How a Riemannian normal is sampled.

    Attributes:
        method: ``"exact"`` where the metric knows its volume, else ``"rejection"`` of directions.
        efficiency: acceptance rate of directions, the worst of the batch.

    Example:
        >>> RiemannianNormal(torch.zeros(2), 0.5, EuclideanMetric(2)).sampling_report
        SamplingReport(method='exact', efficiency=1.0)
    """

    method: str
    efficiency: float


def report_of(metric: RiemannianMetric, loc: Tensor, variance: Tensor, num_directions: int | None) -> SamplingReport:
    """The method for these laws and what it will cost."""
    metric, loc, variance = unwarped(metric, loc, variance)
    if all(law is not None for law, _ in radial_laws(metric)):
        return SamplingReport("exact", 1.0)
    if isinstance(metric, ProductMetric):
        parts = zip(metric.factors, metric.split(loc), strict=True)
        reports = [report_of(factor, x, variance, num_directions) for factor, x in parts]
        return SamplingReport("rejection", min(report.efficiency for report in reports))
    bound, mean = _bounds(metric, loc.reshape(-1, metric.dim), variance.reshape(-1), num_directions)
    return SamplingReport("rejection", float((mean - bound).exp().min()))


def sample_normal(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, shape: torch.Size, num_directions: int | None
) -> Tensor:
    """Draws of shape ``(*sample, *batch, d)`` for every ``loc (*batch, d)`` and ``variance (*batch)``."""
    base, there, spread = unwarped(metric, loc, variance)
    if isinstance(base, ProductMetric):
        draws = [
            sample_normal(factor, x, spread, torch.Size((*shape[:-1], factor.dim)), num_directions)
            for factor, x in zip(base.factors, base.split(there), strict=True)
        ]
        return rewarped(metric, torch.cat(draws, dim=-1))
    flat, times = there.reshape(-1, base.dim), spread.reshape(-1)
    count = math.prod(shape) // max(1, flat.numel())
    law = base.radial_law()
    if flat.numel() == 0 or count == 0:
        z = flat.new_zeros(shape)
    elif law is not None:
        z = _exact(base, law, flat, times, count)
    else:
        z = _reject(base, flat, times, count, num_directions)
    return rewarped(metric, z.reshape(shape))


# ---------------------------------------------------------------- where the volume is known


def _exact(metric: RiemannianMetric, law: RadialLaw, loc: Tensor, variance: Tensor, count: int) -> Tensor:
    """Draws ``(count, b, d)``."""
    noise = torch.randn(count, *loc.shape, dtype=loc.dtype, device=loc.device)
    if law.periods is not None:  # a normal law, cut off half a period away on every axis
        half = (law.periods.to(loc.device).double() / (8 * variance.double().unsqueeze(-1)).sqrt()).erf()
        uniform = (2 * torch.rand(noise.shape, dtype=torch.float64, device=loc.device) - 1) * half
        return loc + (2 * variance).sqrt().unsqueeze(-1) * uniform.erfinv().to(loc)
    if law.is_flat(metric.dim):
        return loc + tangent_vectors(metric, loc, variance, noise)
    radius, density, mass = radial.radial_table(torch, law.curvature, metric.dim, variance.double())
    luck = torch.rand(len(loc), count, dtype=torch.float64, device=loc.device)
    cell = torch.searchsorted(mass, luck, right=True).clamp(1, mass.shape[-1] - 1) - 1

    def at(table: Tensor, index: Tensor) -> Tensor:
        return table.gather(-1, index)

    width = at(mass, cell + 1) - at(mass, cell)
    share = ((luck - at(mass, cell)) / width.clamp(min=torch.finfo(width.dtype).tiny)).clamp(0, 1)
    inner = radial.within_cell(torch, share, at(density, cell), at(density, cell + 1))
    r = at(radius, cell) + inner * (at(radius, cell + 1) - at(radius, cell))
    direction = noise / noise.norm(dim=-1, keepdim=True)
    v = r.T.to(loc).unsqueeze(-1) * tangent_vectors(metric, loc, torch.ones_like(variance), direction)
    return metric.expmap(loc.expand_as(v), v)


# ---------------------------------------------------------------- elsewhere


def _bounds(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, num_directions: int | None
) -> tuple[Tensor, Tensor]:
    """Bound and mean of the mass of a ray, in logs, ``(b)``, from those behind the normalising constant."""
    cast = judged_rays(metric, loc, variance, Integrand(), num_directions)
    cast.warn()
    mean = cast.ray_mass.logsumexp(0) - math.log(len(cast.ray_mass))
    largest = cast.ray_mass.amax(0)
    spread = (largest - mean).clamp(max=1.0)
    return largest + _MARGIN * spread.clamp(min=0.01), mean


def _reject(metric: RiemannianMetric, loc: Tensor, variance: Tensor, count: int, num_directions: int | None) -> Tensor:
    """Draws ``(count, b, d)``: a direction by rejection from the uniform one, a radius by its law on that ray."""
    bound, mean = _bounds(metric, loc, variance, num_directions)
    efficiency = (mean - bound).exp()
    if float(efficiency.min()) < _EFFICIENCY_BOUND:
        warn(
            f"Only {float(efficiency.min()):.1%} of the directions that a RiemannianNormal proposes are accepted: few "
            "have all the mass, and draws are dear. Use a smaller `scale` or a smoother metric."
        )
    batch = len(loc)
    z = torch.empty(count * batch, metric.dim, dtype=loc.dtype, device=loc.device)
    pending, lost, total = torch.arange(count * batch, device=loc.device), 0.0, 0.0
    for _ in range(_MAX_ROUNDS):
        _work.stage("draws", len(z) - len(pending), len(z))
        now = pending[:_RAYS]
        centre = now % batch
        noise = torch.randn(len(now), metric.dim, dtype=loc.dtype, device=loc.device)
        white = noise / noise.norm(dim=-1, keepdim=True)
        rule, _ = cast_rays(metric, loc[centre], variance[centre], white.unsqueeze(0), 1.0, check=False)
        logs = rule.log_integrand(variance[centre], 1.0)
        over = logs.logsumexp(0) - bound[centre]
        accept = torch.rand_like(over).log() < over
        z[now[accept]] = _along(rule, logs)[accept]
        lost, total = lost + float(over.clamp(min=0).expm1().sum()), total + float(over.exp().sum())
        pending = torch.cat([now[~accept], pending[_RAYS:]])
        if len(pending) == 0:
            break
    else:
        raise RuntimeError(
            f"Rejection sampling of a RiemannianNormal left {len(pending)} of {len(z)} draws without an accepted "
            f"direction in {_MAX_ROUNDS} rounds: few directions have all the mass. Use a smaller `scale`."
        )
    if said := ray_rule.complaint_of_draws(lost / total):
        warn(said)
    return z.reshape(count, batch, metric.dim)


def _along(rule: RayRule, logs: Tensor) -> Tensor:
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
