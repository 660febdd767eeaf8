"""Rays in as many directions as an integral takes, what they say of it, of its error and of its derivative."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import logsumexp

from pyro_riemann._formulas import ray_rule
from pyro_riemann._formulas.tangent_rule import check_num_nodes
from pyro_riemann._warn import warn
from pyro_riemann.numpyro._memo import is_known, keep
from pyro_riemann.numpyro.distributions._rays import LOOSE, RayRule, cast_rays, difference_error
from pyro_riemann.numpyro.distributions._tangent import log_tangent_expectation
from pyro_riemann.numpyro.metrics import RiemannianMetric

_KEPT = 4  # casts of one metric: megabytes each
_STEP_GAIN = 8.0  # the tighter steps are that many times better than the looser ones, at least


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
        rule: the nodes, on N rays from each centre.
        white: directions, ``(N, d)``.
        log_weight: log of every node's share in the mass, ``(m, N, b)``.
        ray_mass: log of the integral over every ray, ``(N, b)``.
        value: log mass relative to flat space, ``(b)``.
        error: of the directions, the steps and the cut radii, ``(b)``.
        num_effective: effective number of directions, ``(b)``.
    """

    rule: RayRule
    white: Array
    log_weight: Array
    ray_mass: Array
    value: Array
    error: Array
    num_effective: Array

    def points(self, like: Array) -> Array:
        """Nodes of all rays from every centre, ``(m N, b, d)``; what is none lies at ``like``, ``(b, d)``."""
        points = jnp.where(self.rule.width[..., None] > 0, self.rule.point, like)
        return points.reshape(-1, *like.shape)

    def weights(self) -> Array:
        """Normalised weights of :meth:`points`, ``(m N, b)``."""
        return jnp.exp(self.log_weight).reshape(-1, self.log_weight.shape[-1])

    def warn(self) -> None:
        """Warn of a large error, or of few directions that have all the mass, where nothing is traced."""
        if not is_known(self.error) or not self.error.size:
            return
        if said := ray_rule.complaint(float(self.error.max()), float(self.num_effective.min()), len(self.white)):
            warn(said)


def judged_rays(
    metric: RiemannianMetric, loc: Array, variance: Array, integrand: Integrand, num_directions: int | None
) -> Cast:
    """Rays in as many directions as it takes for a small error; under ``jit`` the first number that is tried.

    Kept while the metric's arrays stay the same ones, where nothing is traced.
    """
    return keep(_settled, (integrand, num_directions), metric, loc, variance, most=_KEPT)


def _settled(
    metric: RiemannianMetric, loc: Array, variance: Array, integrand: Integrand, num_directions: int | None
) -> Cast:
    for count in ray_rule.attempts(num_directions, metric.dim, num_parameters(metric)):
        cast = _judged(metric, loc, variance, integrand, count)
        if not is_known(cast.error) or bool((cast.error < ray_rule.SETTLED).all()):
            break
    return cast


def num_parameters(metric: RiemannianMetric) -> int:
    """How many numbers a metric has, which says what an evaluation costs."""
    return sum(jnp.size(leaf) for leaf in jax.tree.leaves(metric))


@partial(jax.jit, static_argnames=("integrand", "count"))
def _judged(metric: RiemannianMetric, loc: Array, variance: Array, integrand: Integrand, count: int) -> Cast:
    metric, loc, variance = jax.lax.stop_gradient((metric, loc, variance))
    dim, power = metric.dim, 1 - integrand.van_vleck
    white = jnp.asarray(ray_rule.directions(dim, count), loc.dtype)
    every = cast_rays(metric, loc, variance, jnp.broadcast_to(white[:, None], (len(white), *loc.shape)), power)
    rule, loose = every.rays(slice(0, len(white))), every.rays(slice(len(white), None))
    point = jnp.where(rule.width[..., None] > 0, rule.point, loc)
    extra = _curvature_term(metric, loc, variance, point) if integrand.curvature else 0.0
    log_weight = rule.log_integrand(variance, power, extra)
    ray_mass = logsumexp(log_weight, 0)
    total = logsumexp(ray_mass, 0)
    mean = total - math.log(len(white))
    squared = ray_rule.direction_variance(dim, jnp.exp(ray_mass - mean))
    # the steps: two errors may be equal by chance, but hardly at two spreads and on all rays
    for spread in (variance, 0.8 * variance):
        rough = logsumexp(loose.log_integrand(spread, power), 0)
        fine = logsumexp(rule.log_integrand(spread, power), 0)[:: min(len(white), LOOSE)]
        whole = logsumexp(fine, 0) - math.log(len(fine))
        gap = jnp.exp(rough - whole) - jnp.exp(fine - whole)
        squared = squared + (jnp.square(gap.mean(0)) + gap.var(0) / max(1, len(gap) - 1)) / _STEP_GAIN**2
    squared = squared + difference_error(loc) ** 2
    # the ends of rays
    brink = rule.brink(variance, power) + jnp.log(rule.doubt)
    gone = rule.lost + 0.5 * jnp.log(variance)
    ends = jnp.exp(logsumexp(jnp.logaddexp(brink, gone), 0) - total)
    value = mean + ray_rule.log_sphere_area(dim) - 0.5 * dim * jnp.log(2 * math.pi * variance)
    round_off = 8 * jnp.finfo(loc.dtype).eps * (1 + jnp.abs(mean))
    effective = 1 / jnp.square(jax.nn.softmax(ray_mass, 0)).sum(0)
    error = jnp.sqrt(squared) + ends + round_off
    return Cast(rule, white, log_weight - total, ray_mass, value, error, effective)


def _curvature_term(metric: RiemannianMetric, loc: Array, variance: Array, point: Array) -> Array:
    """``t R / 12`` at every node ``(m, N, b)``, R the mean of both ends; interpolated from every second node."""
    some = point.reshape(-1, ray_rule.PANEL, *point.shape[1:])[:, ::2]
    there = jax.lax.map(metric.scalar_curvature, some)
    matrix = jnp.asarray(ray_rule.from_every_second(), loc.dtype)
    everywhere = jnp.einsum("ij,kj...->ki...", matrix, there).reshape(point.shape[:-1])
    return variance * (everywhere + metric.scalar_curvature(loc)) / 24


def log_integrand_slope(
    metric: RiemannianMetric, loc: Array, variance: Array, integrand: Integrand, cast: Cast
) -> Array:
    r"""A function ``(b)`` of loc, variance and metric whose derivative is that of the log mass.

    That is the mean of the derivative of the log integrand at fixed points of the chart. The squared distance's in the
    centre is :math:`-2 G(\mu) v`, v the velocity that reaches the point; its derivative in the metric is that of the
    path's energy, :math:`r \int \partial G(v, v)`, by the envelope theorem. The derivative of log V has no such
    form: with it, those in the centre and the metric are of a rule in the tangent space, which is differentiated whole.
    """
    rule, dim = cast.rule, metric.dim
    fixed_metric, fixed_loc, fixed = jax.lax.stop_gradient((metric, loc, variance))
    weight = jnp.exp(cast.log_weight)
    slope = -0.5 * (weight * rule.radius**2).sum((0, 1)) / variance - 0.5 * dim * jnp.log(variance)
    if integrand.curvature:
        point = jnp.where(rule.width[..., None] > 0, rule.point, fixed_loc)
        curvature = _curvature_term(fixed_metric, fixed_loc, jnp.ones_like(variance), point)
        slope = slope + variance * (weight * curvature).sum((0, 1))
    if integrand.van_vleck:

        def log_ratio(z: Array, log_v: Array) -> Array:
            value = (integrand.van_vleck - 1) * log_v
            if integrand.curvature:
                value = value + fixed * (metric.scalar_curvature(z) + metric.scalar_curvature(loc)) / 24
            return value

        return slope + log_tangent_expectation(metric, loc, fixed, check_num_nodes(None, dim), log_ratio).value
    reach = (weight * rule.radius).sum(0).T @ cast.white
    covector = (fixed_metric.cholesky(fixed_loc) @ reach[..., None])[..., 0]
    slope = slope + (covector * loc).sum(-1) / fixed
    lever = _levers(rule, weight) / fixed

    @jax.checkpoint
    def local(arguments: Any) -> Array:
        z, v, half, arm = arguments
        return (half * 0.5 * metric.logdet(z) - arm * metric.inner(z, v, v)).sum((0, 1))

    safe = jnp.where(rule.width[..., None] > 0, rule.point, fixed_loc)
    panels = [part.reshape(-1, ray_rule.PANEL, *part.shape[1:]) for part in (safe, rule.velocity, weight, lever)]
    return slope + jax.lax.map(local, tuple(panels)).sum(0)


def _levers(rule: RayRule, weight: Array) -> Array:
    """Factors ``(m, N, b)`` of G(v, v) at the nodes in the mean of half the squared distance."""
    _, inner, running = (jnp.asarray(part, weight.dtype) for part in ray_rule.panel())
    arm = (0.5 * weight * rule.radius).reshape(-1, ray_rule.PANEL, *weight.shape[1:])
    whole = arm.sum(1)
    after = jnp.cumsum(whole[::-1], 0)[::-1] - whole
    within = jnp.einsum("ki...,ij->kj...", arm, running) / inner[:, None, None]
    width = rule.width.reshape(arm.shape)
    return (width * (after[:, None] + within)).reshape(weight.shape)
