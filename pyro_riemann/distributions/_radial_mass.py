r"""Integrals of radial functions, :math:`V^{q}\,e^{t \bar R / 12}\,e^{-\ell^2 / 2t}`: exact, or by the ray rule."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas import radial, ray_rule
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann._formulas.tangent_rule import REPLICATES
from pyro_riemann._memo import remember
from pyro_riemann.distributions._quadrature import log_chart_integral
from pyro_riemann.distributions._rays import LOOSE, RayRule, cast_rays, difference_error
from pyro_riemann.distributions._tangent import default_nodes, log_tangent_expectation
from pyro_riemann.manifolds import ProductMetric, ScaledMetric, WarpedMetric
from pyro_riemann.metrics import GridMetric, RiemannianMetric

_SETTLED = 0.01  # error of a log mass above which more directions are tried
_ERROR_BOUND = 0.1  # above which a warning is given
_DIRECTIONS_BOUND = 8.0
_STEP_GAIN = 8.0  # the tighter steps are that many times better than the looser ones, at least
_POINTS = 1 << 12
_TAIL = 5e-4  # share of the mass on either side that may lie outside the box of a sum over the chart, at first
_CHARTS = 4  # centres at most whose mass is summed over the chart: some ten seconds each


class Integrand(NamedTuple):
    """Which radial function: powers of the Van Vleck-Morette determinant, and the curvature term of the heat kernel.

    Attributes:
        van_vleck: q, 0 or 1/2.
        curvature: whether the factor with the scalar curvature is there.
    """

    van_vleck: float = 0.0
    curvature: bool = False


def unwarped(metric: RiemannianMetric, loc: Tensor, variance: Tensor) -> tuple[RiemannianMetric, Tensor, Tensor]:
    """A metric, a point and a variance in the coordinates and the units in which the metric was given."""
    while isinstance(metric, WarpedMetric | ScaledMetric):
        if isinstance(metric, WarpedMetric):
            loc = metric.to_base(loc)
        else:
            variance = variance / metric.factor.to(variance)
        metric = metric.base
    return metric, loc, variance


def radial_laws(metric: RiemannianMetric) -> list[tuple[RadialLaw | None, int]]:
    """What is known of the volume of every factor of a product, and its dimension; of any other metric one entry."""
    while isinstance(metric, WarpedMetric | ScaledMetric):
        metric = metric.base
    if isinstance(metric, ProductMetric):
        return [law for factor in metric.factors for law in radial_laws(factor)]
    return [(metric.radial_law(), metric.dim)]


def log_radial_mass(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, integrand: Integrand, num_directions: int | None
) -> Estimate:
    r"""Log of :math:`(2 \pi t)^{-d/2} \int V^{q}\,e^{t \bar R / 12}\,e^{-\ell^2 / 2t}\,dM`, ``(*batch)``.

    The value is the same whether a gradient is asked for or not. Its first derivatives in ``loc``, ``variance`` and the
    metric are those of the integral at the rule's own nodes.

    Args:
        metric: any metric.
        loc: centres, ``(*batch, d)``.
        variance: t, ``(*batch)``.
        integrand: q, and whether the curvature term is there.
        num_directions: of the rays; None for as many as it takes.
    """
    metric, loc, variance = unwarped(metric, loc, variance)
    if isinstance(metric, ProductMetric):
        parts = zip(metric.factors, metric.split(loc), strict=True)
        masses = [log_radial_mass(factor, x, variance, integrand, num_directions) for factor, x in parts]
        values, errors = zip(*masses, strict=True)
        return Estimate(torch.stack(values).sum(0), torch.stack(errors).sum(0))
    law = metric.radial_law()
    if law is not None:
        return _exact(law, metric.dim, variance, integrand)
    if not variance.numel():
        return Estimate(torch.zeros_like(variance), torch.zeros_like(variance))
    if torch.jit.is_tracing():  # nothing may depend on data: a fixed rule in the tangent space
        return log_tangent_expectation(
            metric, loc, variance, default_nodes(metric.dim), _log_ratio(metric, loc, variance, integrand)
        )
    flat_loc, flat = loc.reshape(-1, metric.dim), variance.reshape(-1)
    # the elements of a plate are often all alike
    rows, index = torch.cat([flat_loc, flat.unsqueeze(-1)], -1).detach().unique(dim=0, return_inverse=True)
    centre, time = rows[:, :-1].contiguous(), rows[:, -1].contiguous()
    cast = judged_rays(metric, centre, time, integrand, num_directions)
    if num_directions is None and metric.dim == 2 and integrand == Integrand():
        cast = _summed_over_chart(metric, centre, time, cast)
    cast.warn()
    value = cast.value[index]
    if torch.is_grad_enabled():
        centre.requires_grad_(loc.requires_grad)
        time.requires_grad_(variance.requires_grad)
        slope = log_integrand_slope(metric, centre, time, integrand, cast)
        for live, leaf in ((flat_loc, centre), (flat.unsqueeze(-1), time)):
            if leaf.requires_grad:
                (by,) = torch.autograd.grad(slope.sum(), leaf, retain_graph=True)
                value = value + (by.reshape(len(rows), -1)[index] * (live - live.detach())).sum(-1)
        value = value + (slope - slope.detach())[index]
    return Estimate(value.reshape(variance.shape), cast.error[index].reshape(variance.shape))


@torch.no_grad()
def _summed_over_chart(metric: RiemannianMetric, loc: Tensor, variance: Tensor, cast: Cast) -> Cast:
    """Values and errors by sums over the plane chart where rays do not settle: behind walls few have all the mass.

    The rays, which end nowhere, say how large the box must be and what share lies beyond.
    """
    unsettled = (cast.error > _SETTLED).nonzero().flatten()
    if not 0 < len(unsettled) <= _CHARTS:
        return cast
    value, error, effective = cast.value.clone(), cast.error.clone(), cast.num_effective.clone()
    for row in unsettled:

        def compute(row: Tensor = row) -> tuple[Estimate, Tensor]:
            low, high, beyond = _box_of_rays(metric, cast, int(row))
            mass = log_chart_integral(metric, loc[row], variance[row], (low, high))
            nodes = cast.rule.point[cast.rule.width > 0]
            return Estimate(mass.value, mass.standard_error + beyond), nodes

        mass = remember(metric, "chart", (), (loc[row], variance[row]), compute)
        gap = (mass.value - value[row]).abs()
        # routes that exclude each other: neither error is what it says
        own = torch.where(gap > 2 * (error[row] + mass.standard_error), gap, mass.standard_error)
        if bool(own < error[row]):
            value[row], error[row], effective[row] = mass.value, own, math.inf
    return cast._replace(value=value, error=error, num_effective=effective)


def _box_of_rays(metric: RiemannianMetric, cast: Cast, row: int) -> tuple[Tensor, Tensor, float]:
    """A box ``(d,)`` that holds the mass on the rays from one centre, that of a table if it does; the share beyond."""
    batch = cast.ray_mass.shape[1]
    weight = (cast.log_weight[:, row::batch].exp() * cast.ray_mass[:, row].softmax(0)).flatten()
    point = cast.rule.point[:, row::batch].flatten(0, 1)[weight > 0]
    weight = weight[weight > 0]

    def beyond(low: Tensor, high: Tensor) -> float:
        return float(weight[((point < low) | (point > high)).any(-1)].sum())

    low, high = point.amin(0), point.amax(0)
    for axis in range(metric.dim):
        order = point[:, axis].argsort()
        inner = point[order, axis][
            (weight[order].cumsum(0) > _TAIL) & (weight[order].flip(0).cumsum(0).flip(0) > _TAIL)
        ]
        low[axis], high[axis] = inner.amin(), inner.amax()
    margin = 0.1 * (high - low)
    low, high = low - margin, high + margin
    if isinstance(metric, GridMetric):
        own = metric.table.low, metric.table.high
        if (share := beyond(*own)) < _SETTLED or metric.base is None:
            return *own, share
        low, high = torch.minimum(low, own[0]), torch.maximum(high, own[1])
    return low, high, beyond(low, high)


def _log_ratio(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, integrand: Integrand
) -> Callable[[Tensor, Tensor], Tensor]:
    """The integrand relative to a Gaussian in the tangent space, at ``z`` with its ``log V``."""

    def log_ratio(z: Tensor, log_v: Tensor) -> Tensor:
        value = (integrand.van_vleck - 1) * log_v
        if integrand.curvature:
            value = value + variance * (metric.scalar_curvature(z) + metric.scalar_curvature(loc)) / 24
        return value

    return log_ratio


def _exact(law: RadialLaw, dim: int, variance: Tensor, integrand: Integrand) -> Estimate:
    wide = variance.double()
    value = error = torch.zeros_like(wide)
    if law.periods is not None:
        value = (law.periods.to(wide) / (8 * wide.unsqueeze(-1)).sqrt()).erf().log().sum(-1)
    elif not law.is_flat(dim):
        value, error = radial.log_relative_mass(torch, law.curvature, dim, wide, wide.detach(), 1 - integrand.van_vleck)
    if integrand.curvature:
        value = value + wide * law.curvature * dim * (dim - 1) / 12
    return Estimate(value.to(variance), error.detach().to(variance))


class Cast(NamedTuple):
    """Rays from every centre of a batch of b, and what they say of the mass.

    Attributes:
        rule: the nodes, those of N b rays, ordered by direction, then centre.
        white: directions, ``(N, d)``.
        log_weight: log of every node's share in the mass, ``(m, N b)``.
        ray_mass: log of the integral over every ray, ``(N, b)``.
        value: log mass relative to flat space, ``(b)``.
        error: of the directions, the steps and the cut radii, ``(b)``.
        num_effective: effective number of directions, ``(b)``.
    """

    rule: RayRule
    white: Tensor
    log_weight: Tensor
    ray_mass: Tensor
    value: Tensor
    error: Tensor
    num_effective: Tensor

    def warn(self) -> None:
        """Warn of a large error, or of few directions that have all the mass."""
        worst = float(self.error.max()) if self.error.numel() else 0.0
        few = float(self.num_effective.min()) if self.error.numel() and self.white.shape[0] > 16 else math.inf
        if worst > _ERROR_BOUND or few < _DIRECTIONS_BOUND:
            warnings.warn(
                f"A normalising constant has a stated error of {worst:.2g} in its logarithm: {len(self.white)} rays, "
                f"of which {min(few, len(self.white)):.1f} have the mass. Use more (`num_directions`), a smaller "
                "spread, or a smoother metric.",
                stacklevel=6,
            )


@torch.no_grad()
def judged_rays(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, integrand: Integrand, num_directions: int | None
) -> Cast:
    """Rays in as many directions as it takes for a small error; kept while the metric is unchanged."""

    def compute() -> tuple[Cast, Tensor]:
        parameters = sum(p.numel() for p in metric.parameters())
        for count in ray_rule.attempts(num_directions, metric.dim, parameters):
            cast = _judged(metric, loc, variance, integrand, count)
            if bool((cast.error < _SETTLED).all()):
                break
        return cast, cast.rule.point[cast.rule.width > 0]

    return remember(metric, "rays", (integrand, num_directions), (loc, variance), compute)


def _judged(metric: RiemannianMetric, loc: Tensor, variance: Tensor, integrand: Integrand, count: int) -> Cast:
    dim, batch = metric.dim, len(loc)
    white = torch.from_numpy(ray_rule.directions(dim, count)).to(loc)
    power = 1 - integrand.van_vleck
    rule, loose = cast_rays(metric, loc, variance, white.unsqueeze(1).expand(-1, batch, -1), power)
    times = variance.repeat(len(white))
    extra = _curvature_term(metric, loc, variance, rule) if integrand.curvature else None
    log_weight = rule.log_integrand(times, power, extra)
    ray_mass = log_weight.logsumexp(0).reshape(-1, batch)
    mean = ray_mass.logsumexp(0) - math.log(len(white))
    # the directions
    if dim == 1:
        squared = torch.zeros_like(mean)
    elif dim == 2:
        squared = (ray_mass[::2].logsumexp(0) - math.log(len(white) // 2) - mean).square()
    else:
        groups = (
            ray_mass.reshape(REPLICATES, -1, batch).logsumexp(1) - math.log(len(white) // REPLICATES) - mean
        ).exp()
        squared = groups.var(0) / REPLICATES
    # the steps: two errors may be equal by chance, but hardly at two spreads and on all rays
    some = min(len(white), LOOSE)
    for spread in (times, 0.8 * times):
        rough = loose.log_integrand(spread[: loose.cut.shape[0]], power).logsumexp(0).reshape(-1, batch)
        fine = rule.log_integrand(spread, power).logsumexp(0).reshape(-1, batch)[::some]
        whole = fine.logsumexp(0) - math.log(len(fine))
        gap = (rough - whole).exp() - (fine - whole).exp()
        scatter = gap.var(0, correction=0) / max(1, len(gap) - 1)
        squared = squared + (gap.mean(0).square() + scatter) / _STEP_GAIN**2
    squared = squared + difference_error(loc) ** 2
    # the ends of rays
    brink = rule.brink(times, power) + rule.doubt.log()
    gone = rule.lost + 0.5 * times.log()
    ends = (torch.logaddexp(brink, gone).reshape(-1, batch).logsumexp(0) - math.log(len(white)) - mean).exp()
    value = mean + ray_rule.log_sphere_area(dim) - 0.5 * dim * (2 * math.pi * variance).log()
    share = ray_mass.softmax(0)
    weight = log_weight - (ray_mass.logsumexp(0)).repeat(len(white))
    round_off = 8 * torch.finfo(loc.dtype).eps * (1 + mean.abs())
    return Cast(rule, white, weight, ray_mass, value, squared.sqrt() + ends + round_off, 1 / share.square().sum(0))


def _curvature_term(metric: RiemannianMetric, loc: Tensor, variance: Tensor, rule: RayRule) -> Tensor:
    """``t R / 12`` at every node ``(m, n)``, R the mean of both ends; interpolated from every second node."""
    count = rule.radius.shape[1] // len(loc)
    point, width = (part.unflatten(0, (-1, ray_rule.PANEL))[:, ::2] for part in (rule.point, rule.width))
    there = torch.zeros_like(width)
    for step, node, ray in (index.T for index in (width > 0).nonzero().split(_POINTS)):
        there[step, node, ray] = metric.scalar_curvature(point[step, node, ray])
    matrix = torch.from_numpy(ray_rule.from_every_second()).to(loc)
    everywhere = torch.einsum("ij,kjn->kin", matrix, there).flatten(0, 1)
    return variance.repeat(count) * (everywhere + metric.scalar_curvature(loc).repeat(count)) / 24


def log_integrand_slope(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, integrand: Integrand, cast: Cast
) -> Tensor:
    r"""A function ``(b)`` of loc, variance and metric whose derivative is that of the log mass.

    That is the mean of the derivative of the log integrand at fixed points of the chart. The squared distance's in the
    centre is :math:`-2 G(\mu) v`, v the velocity that reaches the point; its derivative in the metric is that of the
    path's energy, :math:`r \int \partial G(v, v)`, by the envelope theorem.
    """
    rule, dim, batch = cast.rule, metric.dim, len(loc)
    weight = cast.log_weight.exp()
    squared = (weight * rule.radius**2).sum(0).reshape(-1, batch).sum(0)
    slope = -0.5 * squared / variance - 0.5 * dim * variance.log()
    count = len(cast.white)
    if integrand.curvature:
        curvature = _curvature_term(metric, loc.detach(), torch.ones_like(variance), rule)
        slope = slope + variance * (weight * curvature).sum(0).reshape(-1, batch).sum(0)
    if integrand.van_vleck:
        if loc.requires_grad or _depends(metric, loc):
            fixed = variance.detach()
            ratio = _log_ratio(metric, loc, fixed, integrand)
            slope = slope + log_tangent_expectation(metric, loc, fixed, default_nodes(dim), ratio).value
        return slope
    if loc.requires_grad:
        reach = (weight * rule.radius).sum(0).reshape(count, batch)
        with torch.no_grad():
            covector = metric.cholesky(loc) @ (reach.T @ cast.white).unsqueeze(-1)
        slope = slope + (covector.squeeze(-1) * loc).sum(-1) / variance.detach()
    with torch.no_grad():
        used = ((weight > 1e-12) | (rule.width > 0) & (weight.sum(0) > 1e-12)).nonzero()
        lever = _levers(rule, weight) / variance.detach().repeat(count)

    def local(z: Tensor, v: Tensor, half: Tensor, arm: Tensor) -> Tensor:
        return half * 0.5 * metric.logdet(z) - arm * metric.inner(z, v, v)

    if not _depends(metric, rule.point[0, :1]):
        return slope
    for node, ray in (index.T for index in used.split(_POINTS)):
        arguments = (rule.point[node, ray], rule.velocity[node, ray], weight[node, ray], lever[node, ray])
        part: Tensor = checkpoint(local, *arguments, use_reentrant=False)
        slope = slope.index_add(0, ray % batch, part)
    return slope


def _depends(metric: RiemannianMetric, z: Tensor) -> bool:
    """Whether the metric carries a gradient."""
    return metric.metric(z.detach()).requires_grad


def _levers(rule: RayRule, weight: Tensor) -> Tensor:
    """Factors ``(m, n)`` of G(v, v) at the nodes in the mean of half the squared distance."""
    _, inner, running = (torch.from_numpy(part).to(weight) for part in ray_rule.panel())
    arm = (0.5 * weight * rule.radius).unflatten(0, (-1, ray_rule.PANEL))
    after = arm.sum(1).flip(0).cumsum(0).flip(0) - arm.sum(1)
    within = torch.einsum("kin,ij->kjn", arm, running) / inner[:, None]
    return (rule.width.unflatten(0, (-1, ray_rule.PANEL)) * (after.unsqueeze(1) + within)).flatten(0, 1)
