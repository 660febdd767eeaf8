"""How much of a wrapped normal lies past the cut locus, where its density is a sum of which one term is known."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaincc

from pyro_riemann._formulas import rays
from pyro_riemann.numpyro import _autodiff
from pyro_riemann.numpyro._checks import holds
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro.distributions._tangent import is_closed_form, tangent_vectors
from pyro_riemann.numpyro.metrics import RiemannianMetric

BOUND = 1e-3
_BISECTIONS = 9


@partial(jax.jit, static_argnames="num_directions")
def folded_mass(metric: RiemannianMetric, loc: Array, time: Array, num_directions: int) -> Estimate:
    """Mass of the tangent Gaussian at every ``loc (*batch, d)`` beyond the cut radius of its direction, ``(*batch)``.

    A geodesic that has stopped being the shortest never is again, so that the cut radius of a direction is found by
    bisection; past it, a chi distribution with d degrees of freedom has the mass.
    """
    metric, loc, time = jax.lax.stop_gradient((metric, loc, time))
    dim, longest = metric.dim, rays.reach(metric.dim)
    unit = jnp.asarray(rays.directions(dim, num_directions), loc.dtype).reshape(-1, *(1,) * (loc.ndim - 1), dim)
    unit = jnp.broadcast_to(unit, (len(unit), *loc.shape))
    low = jnp.zeros(unit.shape[:-1], loc.dtype)
    ends = (low, jnp.full_like(low, 2 * longest))  # the first middle is the end of the ray itself

    def halve(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        middle = (ends[0] + ends[1]) / 2
        past = _past_cut(metric, loc, time, unit, middle)
        return (jnp.where(past, ends[0], middle), jnp.where(past, middle, ends[1])), None

    first, _ = halve(ends, None)
    is_cut = first[1] <= longest
    (low, high), _ = jax.lax.scan(halve, (first[0], jnp.minimum(first[1], longest)), length=_BISECTIONS)
    beyond = [jnp.where(is_cut, _chi_tail(dim, radius), 0.0) for radius in (low, high)]
    mass = (beyond[0] + beyond[1]) / 2
    error = jnp.sqrt(mass.var(0, ddof=1) / len(mass)) + (beyond[0] - beyond[1]).mean(0) / 2
    return Estimate(mass.mean(0), error + _chi_tail(dim, jnp.asarray(longest, loc.dtype)))


def warn_if_folded(mass: Estimate, time: Array) -> None:
    """Warn where more than ``BOUND`` of a known mass is folded."""
    if not holds(mass.value <= BOUND):
        worst = int(jnp.argmax(mass.value))
        warnings.warn(
            f"{100 * float(mass.value.ravel()[worst]):.3g} % of a RiemannianWrappedNormal with time "
            f"{float(time.ravel()[worst]):.4g} lies past the cut locus of its centre, where several geodesics meet and "
            "`log_prob` counts one of them. Its mass is not 1, and an evidence lower bound with it is none. Shorten "
            "`time`.",
            UserWarning,
            stacklevel=3,
        )


def _past_cut(metric: RiemannianMetric, loc: Array, time: Array, unit: Array, radius: Array) -> Array:
    """Where the geodesics of length ``radius sqrt(time)`` are not shortest, or leave the reals.

    Two routes: a shorter curve to the same end, found by a few rough iterations of the solver, and a Jacobi
    determinant of negative sign, which has passed a conjugate point.
    """
    v = tangent_vectors(metric, loc, time, radius[..., None] * unit)
    centre = jnp.broadcast_to(loc, v.shape)
    end, jacobian = _autodiff.jacobian(lambda w: metric.expmap(centre, w), v, metric.dim)
    if is_closed_form(metric):
        length = metric.dist(centre, end)
    else:
        solver: Any = metric.solver.replace(init="line", max_iterations=10, max_polish=0, tolerance=1e-3)
        length = jnp.sqrt(solver.squared_dist(metric, centre, end))
    kept = (length >= 0.99 * radius * jnp.sqrt(time)) & (jnp.linalg.slogdet(jacobian)[0] >= 0)
    return ~kept  # also where one of them is NaN


def _chi_tail(dim: int, radius: Array) -> Array:
    """Probability that a chi variable with ``dim`` degrees of freedom exceeds ``radius``."""
    return gammaincc(jnp.full_like(radius, dim / 2), radius**2 / 2)
