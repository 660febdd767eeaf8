"""How much of a wrapped normal lies past the cut locus, where its density is a sum of which one term is known."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaincc

from pyro_riemann._formulas import ray_rule
from pyro_riemann._warn import warn
from pyro_riemann.numpyro._checks import holds
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro.distributions._tangent import is_closed_form, tangent_vectors
from pyro_riemann.numpyro.metrics import RiemannianMetric

BOUND = 1e-3
_STEPS = 16
_PARTS = 4  # Runge-Kutta steps in each
_BISECTIONS = 7
_SLACK = 0.04  # largest relative change of the squared speed
_SHORTER = 0.99  # a shorter way by more than 1 %, above the errors of the flow and of the rough solver
_BACK = 1 - (1 - _SHORTER) / 2  # the cut lies before that: a way that arrives head-on shortens as the other one grows


@partial(jax.jit, static_argnames="num_directions")
def folded_mass(metric: RiemannianMetric, loc: Array, spread: Array, num_directions: int) -> Estimate:
    """Mass of the tangent Gaussian at every ``loc (*batch, d)`` beyond the cut radius of its direction, ``(*batch)``.

    One integration of the flow along a direction passes through all radii. A geodesic that has stopped being the
    shortest never is again, so that the cut radius is found by bisection; past it, a chi distribution has the mass.
    Where the flow is lost, at the edge of a chart, what lies beyond counts as error. ``spread`` is the law's time,
    ``(*batch)``, or a factor of its covariance, ``(*batch, d, d)``.
    """
    metric, loc, spread = jax.lax.stop_gradient((metric, loc, spread))
    dim, longest = metric.dim, ray_rule.reach(metric.dim)
    unit = jnp.asarray(ray_rule.even_directions(dim, num_directions), loc.dtype).reshape(
        -1, *(1,) * (loc.ndim - 1), dim
    )
    white = longest * jnp.broadcast_to(unit, (len(unit), *loc.shape))
    is_time = spread.ndim < loc.ndim
    v = tangent_vectors(metric, loc, spread, white) if is_time else (spread @ white[..., None])[..., 0]
    centre = jnp.broadcast_to(loc, v.shape)
    length = metric.norm(centre, v)
    points, velocities, last = _walk(metric, centre, v)

    def is_past(share: Array) -> Array:
        """Whether there is a shorter way to the point at this share of the ray."""
        index = jnp.clip((share * _STEPS).astype(int), max=_STEPS - 1)
        there = [jnp.take_along_axis(path, index[None, ..., None], 0, mode="clip")[0] for path in (points, velocities)]
        rest = (share - index / _STEPS)[..., None]
        end, _ = ray_rule.runge_kutta(metric.christoffel, there[0], there[1], rest)
        return _dist(metric, centre, end) < _SHORTER * share * length  # false for NaN

    def halve(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        middle = (ends[0] + ends[1]) / 2
        past = is_past(middle)
        return (jnp.where(past, ends[0], middle), jnp.where(past, middle, ends[1])), None

    is_cut = (last > 0) & is_past(last)
    (low, high), _ = jax.lax.scan(halve, (jnp.zeros_like(last), last), length=_BISECTIONS)
    least = jnp.where(is_cut, _chi_tail(dim, _BACK * longest * high), 0.0)
    most = _chi_tail(dim, longest * jnp.where(is_cut, _BACK * low, last))
    # beyond the end of a ray that is not cut nothing was looked at: that is error, not mass
    mass = jnp.where(is_cut, (least + most) / 2, 0.0)
    error = jnp.sqrt(mass.var(0, ddof=1) / len(mass)) + jnp.maximum(most - mass, mass - least).mean(0)
    return Estimate(mass.mean(0), error)


def warn_if_folded(mass: Estimate, time: Array) -> None:
    """Warn where more than ``BOUND`` of a known mass is folded."""
    if not holds(mass.value <= BOUND):
        worst = int(jnp.argmax(mass.value))
        warn(
            f"{100 * float(mass.value.ravel()[worst]):.3g} % of a RiemannianWrappedNormal with time "
            f"{float(time.ravel()[worst]):.4g} lies past the cut locus of its centre, where several geodesics meet and "
            "`log_prob` counts one of them. Its mass is not 1, and an evidence lower bound with it is none. Shorten "
            "`time`."
        )


def widest(metric: RiemannianMetric, loc: Array, spread: Array) -> Array:
    """The times, ``(*batch)``, or those of the widest axes of covariances."""
    if spread.ndim < loc.ndim:
        return spread
    return jnp.square(jnp.linalg.norm(metric.cholesky(loc).mT @ spread, ord=2, axis=(-2, -1)))


def _walk(metric: RiemannianMetric, z: Array, v: Array) -> tuple[Array, Array, Array]:
    """Points and velocities ``(steps + 1, *rays, d)`` along geodesics, and the share up to which they keep their speed.

    A geodesic that loses its speed stops there: nothing is known beyond.
    """
    energy, step = metric.inner(z, v, v), 1 / (_STEPS * _PARTS)

    def advance(
        state: tuple[Array, Array, Array], _: None
    ) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
        z, v, going = state
        end, velocity = jax.lax.fori_loop(
            0, _PARTS, lambda _, at: ray_rule.runge_kutta(metric.christoffel, at[0], at[1], step), (z, v)
        )
        change = jnp.abs(metric.inner(end, velocity, velocity) - energy)
        going = going & (change <= _SLACK * energy)  # false for NaN
        z, v = (jnp.where(going[..., None], new, old) for new, old in ((end, z), (velocity, v)))
        return (z, v, going), (z, v, going)

    start = (z, v, jnp.ones(z.shape[:-1], bool))
    _, (points, velocities, kept) = jax.lax.scan(advance, start, length=_STEPS)
    return jnp.concat([z[None], points]), jnp.concat([v[None], velocities]), kept.mean(0).astype(z.dtype)


def _dist(metric: RiemannianMetric, z: Array, y: Array) -> Array:
    """Distances, from above: any shorter curve refutes that a geodesic is the shortest."""
    if is_closed_form(metric):
        return metric.dist(z, y)
    solver: Any = metric.solver.replace(
        init="line", max_iterations=10, max_polish=0, tolerance=1e-3, on_failure="ignore"
    )
    return jnp.sqrt(solver.squared_dist(metric, z, y))


def _chi_tail(dim: int, radius: Array) -> Array:
    """Probability that a chi variable with ``dim`` degrees of freedom exceeds ``radius``."""
    return gammaincc(jnp.full_like(radius, dim / 2), radius**2 / 2)
