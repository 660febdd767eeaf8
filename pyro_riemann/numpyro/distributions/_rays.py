r"""The ray rule: integrals of radial functions in geodesic polar coordinates.

.. math:: \int h(r)\,dM = \int I(u)\,du, \qquad I(u) = \int_0^{c(u)} h(r)\,r^{d-1} / V(r u)\,dr,

u in the unit sphere of the tangent space and c(u) the radius at which the geodesic in that direction stops being the
shortest. One integration of the geodesic with its Jacobi fields passes through all radii, as far as the integrand
matters: on negative curvature that is far outside the tangent Gaussian.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import ray_rule
from pyro_riemann.numpyro.distributions._tangent import is_closed_form
from pyro_riemann.numpyro.geodesics._rays import MAX_STEPS, Rays, across, follow_rays, log_area
from pyro_riemann.numpyro.metrics import RiemannianMetric

_TOLERANCE = {"float64": 2e-5, "float32": 1e-3}  # of a step, relative
_CUT_TOLERANCE = 0.01  # a shorter way by more than 1 %, above the rough solver's own error
_BISECTIONS = 9
LOOSE = 4  # one ray in so many is followed with a looser tolerance as well


def step_tolerance(like: Array) -> float:
    """Relative error of a step in the precision of ``like``."""
    return _TOLERANCE.get(str(like.dtype), 1e-3)


def difference_error(like: Array) -> float:
    """Relative error of Jacobi fields, which go by central differences, in the precision of ``like``."""
    return float(16 * jnp.finfo(like.dtype).eps ** (2 / 3))


class RayRule(NamedTuple):
    """Nodes on R rays from each of b centres, m on each, and what belongs to them.

    Attributes:
        radius: ``(m, R, b)``.
        point: ``(m, R, b, d)``.
        velocity: ``(m, R, b, d)``, of unit speed.
        width: ``(m, R, b)``, weight of a node in an integral over its ray; 0 for a node that is none.
        log_area: ``(m, R, b)``, :math:`\\log(r^{d-1} / V)`.
        cut: ``(R, b)``, where the ray stops being shortest, or at its end.
        doubt: ``(R, b)``, how far off that may be.
        lost: ``(R, b)``, log of the integrand at the end of a ray that could not be followed further; else -inf.
    """

    radius: Array
    point: Array
    velocity: Array
    width: Array
    log_area: Array
    cut: Array
    doubt: Array
    lost: Array

    def log_v(self) -> Array:
        """Log of the Van Vleck-Morette determinant, ``(m, R, b)``."""
        tiny = jnp.finfo(self.radius.dtype).tiny
        return (self.point.shape[-1] - 1) * jnp.log(jnp.maximum(self.radius, tiny)) - self.log_area

    def brink(self, variance: Array, power: float) -> Array:
        """Log of the integrand per unit of radius at the last node of every ray, ``(R, b)``."""
        value = self.log_integrand(variance, power) - jnp.log(self.width)
        last = jnp.where(self.width > 0, self.radius, -1.0).argmax(0)
        picked = jnp.take_along_axis(value, last[None], 0, mode="clip")[0]
        return jnp.where(jnp.isfinite(picked), picked, -jnp.inf)

    def log_integrand(self, variance: Array, power: float, extra: Any = 0.0) -> Array:
        r"""Log of :math:`e^{-r^2 / 2t} r^{d-1} V^{-p}`, times ``exp(extra)``, times the weights, ``(m, R, b)``."""
        value = jnp.log(jnp.where(self.width > 0, self.width, 1.0)) + self.log_area - self.radius**2 / (2 * variance)
        return jnp.where(self.width > 0, value + (1 - power) * self.log_v() + extra, -jnp.inf)

    def rays(self, where: slice) -> RayRule:
        """Some of the rays of every centre."""
        return RayRule(*(part[..., where, :] if part.ndim < 4 else part[:, where] for part in self))


def cast_rays(
    metric: RiemannianMetric, loc: Array, variance: Array, white: Array, power: float, check: bool = True
) -> RayRule:
    """The rule on rays from ``loc (b, d)`` in directions ``white (N, b, d)``; with ``check`` some once more at the end.

    Args:
        metric: any metric.
        loc: centres, ``(b, d)``.
        variance: ``(b,)``.
        white: directions, unit vectors in an orthonormal frame.
        power: of 1 / V in the integrand, which says how far rays matter.
        check: whether some rays are followed once more with longer steps.
    """
    count = len(white)
    tolerance = np.full(count, step_tolerance(loc))
    if check:
        some = white[:: min(count, LOOSE)]
        tolerance = np.append(tolerance, np.full(len(some), ray_rule.LOOSER * tolerance[0]))
        white = jnp.concatenate([white, some])
    direction, frame = across(metric.cholesky(loc), white)
    centre = jnp.broadcast_to(loc, direction.shape)
    rays = follow_rays(metric, (centre, direction, frame), variance, power, jnp.asarray(tolerance[:, None], loc.dtype))
    return _nodes(metric, rays, *_cut_radii(metric, centre, rays))


def _nodes(metric: RiemannianMetric, rays: Rays, cut: Array, doubt: Array) -> RayRule:
    """Gauss-Legendre in every step, the last one ending at the cut radius."""
    unit, weight, _ = (jnp.asarray(part, cut.dtype) for part in ray_rule.panel())
    left, right = rays.radius[:-1], rays.radius[1:]
    used = jnp.clip(jnp.minimum(right, cut) - left, 0.0)
    share = used / jnp.where(right > left, right - left, 1.0)

    def panel(step: Array, tables: Any) -> Any:
        steps = jnp.full(cut.shape, step)
        state = jax.vmap(lambda x: rays.at(steps, x * share[step]))(unit)
        new = (state.point, state.velocity, log_area(metric, state))
        return tuple(table.at[step].set(value) for table, value in zip(tables, new, strict=True))

    shape = (MAX_STEPS, ray_rule.PANEL, *cut.shape)
    blank = jnp.zeros((*shape, metric.dim), cut.dtype)
    tables = jax.lax.fori_loop(0, rays.num_steps, panel, (blank, blank, jnp.zeros(shape, cut.dtype)))
    width = weight[:, None, None] * used[:, None]
    area = jnp.where((width > 0) & jnp.isfinite(tables[2]), tables[2], -jnp.inf)
    radius = left[:, None] + unit[:, None, None] * used[:, None]
    nodes = (part.reshape(-1, *part.shape[2:]) for part in (radius, *tables[:2], width, area))
    radius, point, velocity, width, area = nodes
    return RayRule(radius, point, velocity, width, area, cut, doubt, rays.lost)


def _cut_radii(metric: RiemannianMetric, centre: Array, rays: Rays) -> tuple[Array, Array]:
    """Where every ray stops being the shortest way, at most its end, and how far off that may be; ``(R, b)``.

    A geodesic that has stopped being the shortest never is again: bisection, by curves that are shorter. How much
    shorter grows evenly from nothing at the cut, which is where two values of it point.
    """
    solver: Any = metric.solver.replace(
        init="line", max_iterations=10, max_polish=0, tolerance=1e-3, on_failure="ignore"
    )
    closed = is_closed_form(metric)
    end = rays.end * (1 - 1e-6)
    last = _BISECTIONS + 3

    def saved(radius: Array) -> Array:
        """Share of ``radius`` that another curve saves."""
        z = rays.at(*rays.find(radius)).point
        length = metric.dist(centre, z) if closed else jnp.sqrt(solver.squared_dist(metric, centre, z))
        return 1 - length / radius

    def going(carry: Any) -> Array:
        index, cut = carry[:2]
        return (index == 0) | ((index < last) & cut.any())

    def test(carry: Any) -> Any:  # the end, bisection, then two radii beyond: one call of the solver in the program
        index, cut, low, high, first, second = carry
        far = jnp.minimum(1.1 * high, end)
        radius = jnp.where(index == 0, end, jnp.where(index > _BISECTIONS, high, 0.5 * (low + high)))
        radius = jnp.where(index == last - 1, far, radius)
        share = saved(radius)
        longer, halving = share > _CUT_TOLERANCE, (index > 0) & (index <= _BISECTIONS)
        cut = jnp.where(index == 0, longer, cut)
        low, high = jnp.where(halving & ~longer, radius, low), jnp.where(halving & longer, radius, high)
        first = jnp.where(index == last - 2, share * radius, first)
        return index + 1, cut, low, high, first, jnp.where(index == last - 1, share * radius, second)

    nought = jnp.zeros_like(end)
    _, cut, low, high, first, second = jax.lax.while_loop(
        going, test, (0, jnp.ones_like(end, bool), nought, end, nought, nought)
    )
    slope = (second - first) / jnp.maximum(jnp.minimum(1.1 * high, end) - high, 1e-12)
    back = jnp.where(slope > 0, first / jnp.maximum(slope, 1e-6), 0.0)
    back = jnp.minimum(jnp.maximum(back, 0.0), 0.2 * high)
    return jnp.where(cut, high - back, rays.end), jnp.where(cut, 0.3 * back + (high - low), 0.0)
