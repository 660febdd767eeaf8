"""Geodesics from a centre through all radii, with their Jacobi fields, in steps of each one's own lengths."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas import ray_rule
from pyro_riemann.numpyro._interface import Metric

_SHORTEST = 1e-4  # step, relative to the spread: a ray that needs shorter ones is given up
MAX_STEPS = 128  # trial steps of one ray: a compiled program has fixed shapes


class State(NamedTuple):
    """Where geodesics of unit speed are.

    Attributes:
        point, velocity, acceleration: ``(*batch, d)``.
        field, field_velocity, field_acceleration: ``(*batch, d, d - 1)``, Jacobi fields that start with 0 in the
            directions of an orthonormal frame across the ray. (Along the ray the field is ``r`` times the velocity.)
    """

    point: Array
    velocity: Array
    acceleration: Array
    field: Array
    field_velocity: Array
    field_acceleration: Array


class Rays(NamedTuple):
    """The steps of R rays from each of b centres.

    Attributes:
        radius: ``(k + 1, R, b)``, distances along the ray between which the steps are; no step where it stays the same.
        state: what is known at their ends, each ``(k + 1, R, b, ...)``.
        end: ``(R, b)``: the first conjugate point, or where the integrand has gone.
        lost: ``(R, b)``, log of the integrand at the end of a ray that could not be followed further; else -inf.
        num_steps: steps that were tried, at most k.
    """

    radius: Array
    state: State
    end: Array
    lost: Array
    num_steps: Array

    def at(self, step: Array, share: Array) -> State:
        """State of every ray at ``share`` in [0, 1] of its step number ``step``, both ``(R, b)``.

        By quintic interpolation, without accelerations.
        """
        width = _pick(self.radius, step + 1) - _pick(self.radius, step)
        value = _times_width(ray_rule.quintic(share), width)
        safe = jnp.where(width > 0, width, 1.0)
        slope = [factor / safe for factor in _times_width(ray_rule.quintic_slope(share), width)]
        start, stop = (State(*(_pick(part, step + k) for part in self.state)) for k in (0, 1))
        position, field = (*start[:3], *stop[:3]), (*start[3:], *stop[3:])
        return State(
            *(_blend(value, position), _blend(slope, position), jnp.zeros_like(start.point)),
            *(_blend(value, field), _blend(slope, field), jnp.zeros_like(start.field)),
        )

    def find(self, radius: Array) -> tuple[Array, Array]:
        """The step, and the share of it, at which every ray has ``radius``; all ``(R, b)``."""
        step = (self.radius[1:-1] < radius).sum(0)
        left, right = _pick(self.radius, step), _pick(self.radius, step + 1)
        return step, jnp.clip((radius - left) / jnp.where(right > left, right - left, 1.0), 0.0, 1.0)


def log_area(metric: Metric, state: State) -> Array:
    r"""Log of :math:`r^{d-1} / V`, the area at that radius of a unit of solid angle; ``(*batch)``."""
    if metric.dim == 1:
        return jnp.zeros_like(state.point[..., 0])
    gram = state.field.mT @ metric.metric(state.point) @ state.field
    return 0.5 * jnp.linalg.slogdet(gram)[1]


def across(factor: Array, white: Array) -> tuple[Array, Array]:
    """Unit vectors ``(*batch, d)`` and orthonormal frames across them, ``(*batch, d, d - 1)``, in the metric ``L L^T``.

    Args:
        factor: Cholesky factors L, ``(*batch, d, d)``.
        white: directions, unit vectors of R^d, ``(*batch, d)``.
    """
    axis = jnp.zeros_like(white).at[..., 0].set(jnp.where(white[..., 0] > 0, -1.0, 1.0))
    normal = (white - axis)[..., None]  # of the mirror that takes the axis to the direction; never short
    eye = jnp.eye(white.shape[-1], dtype=white.dtype)
    mirror = eye - 2 * normal @ normal.mT / jnp.square(normal).sum(-2, keepdims=True)
    frame = jax.scipy.linalg.solve_triangular(
        jnp.broadcast_to(factor, mirror.shape), jnp.concatenate([white[..., None], mirror[..., 1:]], -1), 1, lower=True
    )
    return frame[..., 0], frame[..., 1:]


def follow_rays(
    metric: Metric, start: tuple[Array, Array, Array], variance: Array, power: float, tolerance: Array
) -> Rays:
    r"""Follow rays as far as :math:`e^{-r^2 / 2t} r^{d-1} V^{-p}` matters, at most to the first conjugate point.

    Args:
        metric: any metric.
        start: centres ``(R, b, d)``, unit velocities and frames across them, ``(R, b, d, d - 1)``.
        variance: t, ``(b)``.
        power: p.
        tolerance: relative error of a step, ``(R, 1)``.
    """
    z, direction, frame = start
    dim, unit = metric.dim, jnp.broadcast_to(jnp.sqrt(variance), z.shape[:-1])
    blank, nought = jnp.zeros_like(frame), jnp.zeros_like(unit)
    # steps that are allowed a larger error may be longer as well, or their difference would not show the error
    longest = (tolerance / tolerance.min()) ** 0.25 * unit
    acceleration, bending = _rates(metric, z, direction, blank, frame, unit)
    state = State(z, direction, acceleration, blank, frame, bending)
    history = jax.tree.map(lambda part: jnp.broadcast_to(part, (MAX_STEPS + 1, *part.shape)), (nought, state))

    def going(carry: Any) -> Array:
        return (carry[0] < MAX_STEPS) & carry[-1].any()

    def advance(carry: Any) -> Any:
        index, history, radius, state, step, bend, value, end, conjugate, peak, active = carry
        new, area, error = _trial(metric, state, step, unit, tolerance)
        good = active & (error <= 1)
        radius = jnp.where(good, radius + step, radius)
        state = State(*(_where(good, a, b) for a, b in zip(new, state, strict=True)))
        history = jax.tree.map(lambda kept, now: kept.at[index + 1].set(now), history, (radius, state))
        bent = _bend(metric, new)
        met = good & (bent - bend > 2 / step)
        log_radius = (dim - 1) * jnp.log(jnp.where(good, radius, 1.0))
        height = power * area + (1 - power) * log_radius - radius**2 / (2 * unit**2)
        peak = jnp.maximum(peak, jnp.where(good & ~met, height, -jnp.inf).max(0))
        gone = good & (height < peak - ray_rule.DROP) & (height < value)
        end = jnp.where(met | gone, radius, end)
        bend, value = jnp.where(good, bent, bend), jnp.where(good, height, value)
        step = jnp.where(active, jnp.minimum(ray_rule.next_step(jnp, step, error), longest), step)
        active = active & jnp.isinf(end) & (step > _SHORTEST * unit)
        return index + 1, history, radius, state, step, bend, value, end, conjugate | met, peak, active

    far, yes = jnp.full_like(unit, jnp.inf), jnp.ones_like(unit, bool)
    carry = (jnp.asarray(0), history, nought, state, 0.1 * unit, far, -far, far, ~yes, -far[0], yes)
    count, (radii, states), radius, *_, value, end, conjugate, _, _ = jax.lax.while_loop(going, advance, carry)
    later = jnp.arange(MAX_STEPS + 1) > count
    radii = jnp.where(later[:, None, None], radius, radii)
    unfinished = jnp.isinf(end)
    rays = Rays(radii, states, jnp.where(unfinished, radius, end), jnp.where(unfinished, value, -jnp.inf), count)
    return rays._replace(end=jnp.where(conjugate, _conjugate_points(metric, rays), rays.end))


def _rates(metric: Metric, z: Array, v: Array, field: Array, slope: Array, unit: Array) -> tuple[Array, Array]:
    """Acceleration ``(*batch, d)`` of geodesics and that of their Jacobi fields, ``(*batch, d, d - 1)``.

    The latter by central differences over ``unit (*batch)``, the length at which geodesics are resolved: cheaper than a
    derivative of a derivative, and far more accurate than the steps.
    """
    if metric.dim == 1:
        return -metric.christoffel(z, v), jnp.zeros_like(field)
    over, turn = jnp.moveaxis(field, -1, 0), jnp.moveaxis(slope, -1, 0)
    size = jnp.square(over / unit[..., None]).sum(-1) + jnp.square(turn).sum(-1)
    small = (jnp.finfo(z.dtype).eps ** (1 / 3) * jnp.linalg.norm(v, axis=-1) / jnp.sqrt(size))[..., None]
    shift, twist = small * over, small * turn
    blank = jnp.zeros_like(shift[:1])
    every = -metric.christoffel(
        z + jnp.concatenate([blank, shift, -shift]), v + jnp.concatenate([blank, twist, -twist])
    )
    plus, minus = jnp.split(every[1:], 2)
    return every[0], jnp.moveaxis((plus - minus) / (2 * small), 0, -1)


def _trial(metric: Metric, state: State, step: Array, unit: Array, tolerance: Array) -> tuple[State, Array, Array]:
    """One step; the log area at its end, and its error relative to the tolerance (infinite where there is none)."""
    now = (state.point, state.velocity, state.field, state.field_velocity)
    first = (state.velocity, state.acceleration, state.field_velocity, state.field_acceleration)
    size = len(ray_rule.ERROR)
    table = jnp.asarray([[*row, *(0.0,) * (size - len(row))] for row in ray_rule.STAGES], step.dtype)
    rates = tuple(jnp.zeros((size, *part.shape), part.dtype).at[0].set(part) for part in first)

    def combined(row: Array, part: Array) -> Array:
        return step.reshape(*step.shape, *(1,) * (part.ndim - 1 - step.ndim)) * jnp.tensordot(row, part, 1)

    def stage(index: Array, carry: Any) -> Any:  # a loop: compiled once for all stages
        rates, _, covered = carry
        z, v, field, slope = (x + combined(table[index], part) for x, part in zip(now, rates, strict=True))
        acceleration, bending = _rates(metric, z, v, field, slope, unit)
        new = (v, acceleration, slope, bending)
        rates = tuple(part.at[index + 1].set(value) for part, value in zip(rates, new, strict=True))
        known = metric.covers(z)
        return rates, State(z, v, acceleration, field, slope, bending), covered if known is None else covered & known

    rates, new, covered = jax.lax.fori_loop(0, size - 1, stage, (rates, state, jnp.ones_like(step, bool)))
    factor = jnp.linalg.cholesky(metric.metric(new.point))

    def length(x: Array) -> Array:
        return jnp.sqrt(jnp.square(factor.mT @ x).sum((-2, -1)))

    off = [combined(jnp.asarray(ray_rule.ERROR, step.dtype), part) for part in rates]
    speed = length(new.velocity[..., None])
    parts = [length(off[0][..., None]) / unit, length(off[1][..., None]), 0.1 * jnp.abs(speed - 1)]
    area = jnp.zeros_like(step)
    if metric.dim > 1:
        whole = length(new.field) + unit * length(new.field_velocity)  # at a conjugate point fields are short
        parts += [length(off[2]) / whole, unit * length(off[3]) / whole]
        root = factor.mT @ new.field
        area = 0.5 * jnp.linalg.slogdet(root.mT @ root)[1]
    error = jnp.stack(parts).max(0) / tolerance
    return new, area, jnp.where(jnp.isfinite(error) & covered, error, jnp.inf)


def _bend(metric: Metric, state: State) -> Array:
    """Trace of the logarithmic derivative of the Jacobi fields, up to what is smooth; ``(*batch)``."""
    if metric.dim == 1:
        return jnp.zeros_like(state.point[..., 0])
    fields = jnp.concatenate([state.velocity[..., None], state.field], -1)
    slopes = jnp.concatenate([state.acceleration[..., None], state.field_velocity], -1)
    return jnp.nan_to_num((jnp.linalg.inv(fields) * slopes.mT).sum((-2, -1)), nan=jnp.inf)


def _conjugate_points(metric: Metric, rays: Rays) -> Array:
    """Radius ``(R, b)`` of the conjugate point in the last step of every ray, if there is one."""
    step, _ = rays.find(rays.end)
    left, right = _pick(rays.radius, step), _pick(rays.radius, step + 1)
    first = _bend(metric, State(*(_pick(part, step) for part in rays.state)))

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        share = 0.5 * (low + high)
        beyond = _bend(metric, rays.at(step, share)) - first > 2 / (share * (right - left))
        return jnp.where(beyond, low, share), jnp.where(beyond, share, high)

    low, _ = jax.lax.fori_loop(0, 40, halve, (jnp.zeros_like(left), jnp.ones_like(left)))
    return left + low * (right - left)


def _pick(table: Array, step: Array) -> Array:
    """Rows ``step (R, b)`` of a table ``(k, R, b, ...)``."""
    return table[step, jnp.arange(step.shape[0])[:, None], jnp.arange(step.shape[1])]


def _where(condition: Array, first: Array, second: Array) -> Array:
    return jnp.where(condition.reshape(*condition.shape, *(1,) * (first.ndim - condition.ndim)), first, second)


def _times_width(factors: tuple[Array, ...], width: Array) -> list[Array]:
    """Hermite's factors of value, slope and curvature at both ends, for a step of that width."""
    return [factor * width ** (k % 3) for k, factor in enumerate(factors)]


def _blend(factors: list[Array], parts: tuple[Array, ...]) -> Array:
    extra = (1,) * (parts[0].ndim - factors[0].ndim)
    return sum((f.reshape(*f.shape, *extra) * p for f, p in zip(factors, parts, strict=True)), jnp.zeros_like(parts[0]))
