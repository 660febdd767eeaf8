"""Draws of the Riemannian normal: exact radii where the volume is known, elsewhere rays in random directions."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import logsumexp

from pyro_riemann._formulas import radial, ray_rule
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann._warn import warn
from pyro_riemann.numpyro._memo import is_known
from pyro_riemann.numpyro.distributions._radial_mass import Cast, Integrand, judged_rays, radial_laws, unwarped
from pyro_riemann.numpyro.distributions._radial_moments import rewarped
from pyro_riemann.numpyro.distributions._rays import RayRule, cast_rays
from pyro_riemann.numpyro.distributions._tangent import tangent_vectors
from pyro_riemann.numpyro.manifolds import ProductMetric
from pyro_riemann.numpyro.metrics import RiemannianMetric

Shape = tuple[int, ...]
_MARGIN = 0.1  # of the log of the largest ray mass that was seen, for those that were not
_EFFICIENCY_BOUND = 0.02
_MAX_ROUNDS = 1000


class SamplingReport(NamedTuple):
    """How a Riemannian normal is sampled.

    Attributes:
        method: ``"exact"`` where the metric knows its volume, else ``"rejection"`` of directions.
        efficiency: acceptance rate of directions, ``(*batch)``.

    Example:
        >>> RiemannianNormal(jnp.zeros(2), 0.5, EuclideanMetric(2)).sampling_report.method
        'exact'
    """

    method: str
    efficiency: Array


def report_of(metric: RiemannianMetric, loc: Array, variance: Array, num_directions: int | None) -> SamplingReport:
    """The method for these laws and what it will cost."""
    metric, there, variance = unwarped(metric, loc, variance)
    if all(law is not None for law, _ in radial_laws(metric)):
        return SamplingReport("exact", jnp.ones_like(variance))
    if isinstance(metric, ProductMetric):
        parts = zip(metric.factors, metric.split(there), strict=True)
        reports = [report_of(factor, x, variance, num_directions) for factor, x in parts]
        return SamplingReport("rejection", jnp.stack([report.efficiency for report in reports]).min(0))
    cast = judged_rays(metric, there.reshape(-1, metric.dim), variance.reshape(-1), Integrand(), num_directions)
    bound, mean = _bounds(cast)
    return SamplingReport("rejection", jnp.exp(mean - bound).reshape(variance.shape))


def sample_normal(
    metric: RiemannianMetric,
    loc: Array,
    variance: Array,
    key: Array,
    shape: tuple[int, ...],
    num_directions: int | None,
) -> Array:
    """Draws of shape ``(*sample, *batch, d)`` for every ``loc (*batch, d)`` and ``variance (*batch)``; no gradient."""
    metric, loc, variance = jax.lax.stop_gradient((metric, loc, variance))
    base, there, spread = unwarped(metric, loc, variance)
    if isinstance(base, ProductMetric):
        parts = zip(base.factors, base.split(there), jax.random.split(key, len(base.factors)), strict=True)
        draws = [
            sample_normal(factor, x, spread, one, (*shape[:-1], factor.dim), num_directions) for factor, x, one in parts
        ]
        return rewarped(metric, jnp.concat(draws, axis=-1))
    flat, times = there.reshape(-1, base.dim), spread.reshape(-1)
    count = math.prod(shape) // max(1, flat.size)
    law = base.radial_law()
    if flat.size == 0 or count == 0:
        return jnp.zeros(shape, loc.dtype)
    if law is not None:
        z = _exact(base, law, flat, times, count, key)
    else:
        cast = judged_rays(base, flat, times, Integrand(), num_directions)
        bound, mean = _bounds(cast)
        if is_known(bound) and float((mean - bound).min()) < math.log(_EFFICIENCY_BOUND):
            warn(
                f"Only {math.exp(float((mean - bound).min())):.1%} of the directions that a RiemannianNormal proposes "
                "are accepted: few have all the mass, and draws are dear. Use a smaller `scale` or a smoother metric."
            )
        z, lost = _reject(base, flat, times, bound, key, count)
        if is_known(lost) and (said := ray_rule.complaint_of_draws(float(lost))):
            warn(said)
    return rewarped(metric, z.reshape(shape))


# ---------------------------------------------------------------- where the volume is known


def _exact(metric: RiemannianMetric, law: RadialLaw, loc: Array, variance: Array, count: int, key: Array) -> Array:
    """Draws ``(count, b, d)``."""
    for_noise, for_radius = jax.random.split(key)
    shape = (count, *loc.shape)
    if law.periods is not None:  # a normal law, cut off half a period away on every axis
        half = jax.lax.erf(jnp.asarray(law.periods, loc.dtype) / jnp.sqrt(8 * variance[:, None]))
        uniform = jax.random.uniform(for_noise, shape, loc.dtype, -1.0, 1.0) * half
        return loc + jnp.sqrt(2 * variance)[:, None] * jax.lax.erf_inv(uniform)
    noise = jax.random.normal(for_noise, shape, loc.dtype)
    if law.is_flat(metric.dim):
        return loc + tangent_vectors(metric, loc, variance, noise)
    radius, density, mass = radial.radial_table(jnp, law.curvature, metric.dim, variance)
    luck = jax.random.uniform(for_radius, (len(loc), count), mass.dtype)
    cell = jnp.clip(jax.vmap(partial(jnp.searchsorted, side="right"))(mass, luck), 1, mass.shape[-1] - 1) - 1

    def at(table: Array, index: Array) -> Array:
        return jnp.take_along_axis(table, index, -1, mode="clip")

    width = at(mass, cell + 1) - at(mass, cell)
    share = jnp.clip((luck - at(mass, cell)) / jnp.maximum(width, jnp.finfo(width.dtype).tiny), 0.0, 1.0)
    inner = radial.within_cell(jnp, share, at(density, cell), at(density, cell + 1))
    r = at(radius, cell) + inner * (at(radius, cell + 1) - at(radius, cell))
    direction = noise / jnp.linalg.norm(noise, axis=-1, keepdims=True)
    v = r.T[..., None] * tangent_vectors(metric, loc, jnp.ones_like(variance), direction)
    return metric.expmap(jnp.broadcast_to(loc, v.shape), v)


# ---------------------------------------------------------------- elsewhere


def _bounds(cast: Cast) -> tuple[Array, Array]:
    """Bound and mean of the mass of a ray, in logs, ``(b)``, from those behind the normalising constant."""
    mean = logsumexp(cast.ray_mass, 0) - math.log(len(cast.ray_mass))
    largest = cast.ray_mass.max(0)
    return largest + _MARGIN * jnp.clip(largest - mean, 0.01, 1.0), mean


@partial(jax.jit, static_argnames="count")
def _reject(
    metric: RiemannianMetric, loc: Array, variance: Array, bound: Array, key: Array, count: int
) -> tuple[Array, Array]:
    """Draws ``(count, b, d)``: a direction by rejection from the uniform one, a radius by its law on that ray.

    NaN where no direction is accepted in 1000 rounds. And the share of the mass beyond the bound.
    """
    shape = (count, *loc.shape)

    def propose(carry: Any) -> Any:
        index, z, pending, lost, total = carry
        for_noise, for_choice, for_radius = jax.random.split(jax.random.fold_in(key, index), 3)
        noise = jax.random.normal(for_noise, shape, loc.dtype)
        white = noise / jnp.linalg.norm(noise, axis=-1, keepdims=True)
        rule = cast_rays(metric, loc, variance, white, 1.0, check=False)
        logs = rule.log_integrand(variance, 1.0)
        luck = jnp.log(jax.random.uniform(for_choice, pending.shape, loc.dtype))
        over = logsumexp(logs, 0) - bound
        accept = pending & (luck < over)
        z = jnp.where(accept[..., None], _along(rule, logs, for_radius), z)
        lost, total = lost + jnp.expm1(jnp.maximum(over, 0)).sum(), total + jnp.exp(over).sum()
        return index + 1, z, pending & ~accept, lost, total

    nothing = jnp.zeros((), loc.dtype)
    start = (0, jnp.full(shape, jnp.nan, loc.dtype), jnp.ones(shape[:-1], bool), nothing, nothing)
    end = jax.lax.while_loop(lambda carry: (carry[0] < _MAX_ROUNDS) & carry[2].any(), propose, start)
    return end[1], end[3] / end[4]


def _along(rule: RayRule, logs: Array, key: Array) -> Array:
    """A point on every ray, ``(R, b, d)``, by the inverse of the distribution function of the radius."""
    size = ray_rule.PANEL
    panels = logs.reshape(-1, size, *logs.shape[1:])
    mass = jnp.cumsum(jax.nn.softmax(logsumexp(panels, 1), 0), 0)
    luck, goal = jax.random.uniform(key, (2, *mass.shape[1:]), mass.dtype)
    chosen = (mass[:-1] < luck).sum(0)

    def pick(table: Array) -> Array:  # (k, size, R, b, ...) at the chosen panels: (R, b, size, ...)
        first, second = jnp.arange(chosen.shape[0])[:, None], jnp.arange(chosen.shape[1])
        return table[chosen, :, first, second]

    density = pick(panels)
    density = jnp.exp(density - density.max(-1, keepdims=True)) / jnp.asarray(ray_rule.panel()[1], logs.dtype)
    powers, order = jnp.asarray(ray_rule.panel_polynomials(), logs.dtype), jnp.arange(size)
    growth = density @ powers / (order + 1)  # coefficients of the running integral, from the first power up
    goal = goal * growth.sum(-1)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = 0.5 * (ends[0] + ends[1])
        below = (growth * middle[..., None] ** (order + 1)).sum(-1) < goal
        return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

    low, _ = jax.lax.fori_loop(0, 40, halve, (jnp.zeros_like(goal), jnp.ones_like(goal)))
    basis = (low[..., None] ** order) @ powers.T
    return (basis[..., None] * pick(rule.point.reshape(-1, size, *rule.point.shape[1:]))).sum(-2)
