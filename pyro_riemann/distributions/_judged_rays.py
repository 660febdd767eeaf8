"""Rays in as many directions as an integral takes, what they say of it, of its error and of its derivative."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann._formulas import ray_rule
from pyro_riemann._memo import remember
from pyro_riemann._memory import checkpointed
from pyro_riemann._warn import warn
from pyro_riemann.distributions._rays import LOOSE, RayRule, cast_rays, difference_error
from pyro_riemann.distributions._tangent import default_nodes, log_tangent_expectation
from pyro_riemann.metrics import RiemannianMetric

_STEP_GAIN = 8.0  # the tighter steps are that many times better than the looser ones, at least
_POINTS = 1 << 12


class Integrand(NamedTuple):
    """Which radial function: powers of the Van Vleck-Morette determinant, and the curvature term of the heat kernel.

    Attributes:
        van_vleck: q, 0 or 1/2.
        curvature: whether the factor with the scalar curvature is there.
    """

    van_vleck: float = 0.0
    curvature: bool = False


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

    def points(self) -> Tensor:
        """Nodes of all rays from every centre, ``(m N, b, d)``."""
        return self.rule.point.unflatten(1, (-1, len(self.value))).flatten(0, 1)

    def weights(self) -> Tensor:
        """Normalised weights of :meth:`points`, ``(m N, b)``."""
        return self.log_weight.exp().unflatten(1, (-1, len(self.value))).flatten(0, 1)

    def warn(self) -> None:
        """Warn of a large error, or of few directions that have all the mass."""
        if not self.error.numel():
            return
        if said := ray_rule.complaint(float(self.error.max()), float(self.num_effective.min()), len(self.white)):
            warn(said)


def num_parameters(metric: RiemannianMetric) -> int:
    """How many numbers a metric has, which says what an evaluation costs."""
    return sum(p.numel() for p in metric.parameters())


@torch.no_grad()
def judged_rays(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, integrand: Integrand, num_directions: int | None
) -> Cast:
    """Rays in as many directions as it takes for a small error; kept while the metric is unchanged."""

    def compute() -> tuple[Cast, Tensor]:
        for count in ray_rule.attempts(num_directions, metric.dim, num_parameters(metric)):
            cast = _judged(metric, loc, variance, integrand, count)
            if bool((cast.error < ray_rule.SETTLED).all()):
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
    squared = ray_rule.direction_variance(dim, (ray_mass - mean).exp())
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


def log_ratio_of(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, integrand: Integrand
) -> Callable[[Tensor, Tensor], Tensor]:
    """The integrand relative to a Gaussian in the tangent space, at ``z`` with its ``log V``."""

    def log_ratio(z: Tensor, log_v: Tensor) -> Tensor:
        value = (integrand.van_vleck - 1) * log_v
        if integrand.curvature:
            value = value + variance * (metric.scalar_curvature(z) + metric.scalar_curvature(loc)) / 24
        return value

    return log_ratio


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
            ratio = log_ratio_of(metric, loc, fixed, integrand)
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
        part: Tensor = checkpointed(local, *arguments)
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
