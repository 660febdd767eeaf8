"""Log masses of radial functions by the route that errs least: rays, a sum over the plane, or weighed draws."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from pyro_riemann._formulas import ray_rule
from pyro_riemann._formulas.chart_draws import MOST_CENTRES, Verdict, WeighedDraws
from pyro_riemann._formulas.chart_sum import Cells
from pyro_riemann.numpyro._memo import is_known
from pyro_riemann.numpyro.distributions._judged_rays import Cast, Integrand, judged_rays, num_parameters
from pyro_riemann.numpyro.distributions._over_chart import sum_over_chart, weighed_draws
from pyro_riemann.numpyro.metrics import GridMetric, RiemannianMetric


class JudgedMass(NamedTuple):
    """Log masses from every centre of a batch of b, and where they come from.

    Attributes:
        value: ``(b)``.
        error: ``(b)``.
        cast: rays; None where draws have all values.
        drawn: draws, by the row of the centre whose value is theirs.
        cells: of the sum over the plane, by the row of the centre whose value it is.
    """

    value: Array
    error: Array
    cast: Cast | None
    drawn: dict[int, WeighedDraws]
    cells: dict[int, Cells]


Index: TypeAlias = NDArray[np.intp]


def distinct(metric: RiemannianMetric, loc: Array, variance: Array) -> tuple[Array, Array, Index]:
    """Centres and variances of the laws that differ, and which of them each is; all of them where one is traced."""
    if not is_known(metric, loc, variance):
        return loc, variance, np.arange(len(loc))
    rows = np.concatenate([np.asarray(loc), np.asarray(variance)[:, None]], -1)
    found, index = np.unique(rows, axis=0, return_inverse=True)
    return jnp.asarray(found[:, :-1], loc.dtype), jnp.asarray(found[:, -1], loc.dtype), index.reshape(-1)


def judged_mass(
    metric: RiemannianMetric, loc: Array, variance: Array, integrand: Integrand, num_directions: int | None
) -> JudgedMass:
    """By rays, unless their number is not given and others err less: a sum over the chart, or weighed draws.

    Where anything is traced, by rays alone.
    """
    free = num_directions is None and metric.dim > 1 and integrand == Integrand() and is_known(metric, loc, variance)
    # what lies beyond a table that refuses points is error, of which rays, which end at its box, know the size
    refuses = isinstance(metric, GridMetric) and metric.outside == "error"
    few = free and 0 < len(loc) <= MOST_CENTRES
    drawable = few and metric.dim > 2 and not refuses
    if drawable and ray_rule.are_dear(metric.dim, num_parameters(metric)):
        drawn = {row: weighed_draws(metric, loc[row], variance[row]) for row in range(len(loc))}
        if all(each.verdict().is_good() for each in drawn.values()):
            return JudgedMass(*_arrays([each.verdict() for each in drawn.values()], loc), None, drawn, {})
    cast = judged_rays(metric, loc, variance, integrand, num_directions)
    if not few:
        cast.warn()
        return JudgedMass(cast.value, cast.error, cast, {}, {})
    drawn, cells = {}, {}
    numbers = zip(cast.value.tolist(), cast.error.tolist(), cast.num_effective.tolist(), strict=True)
    found = [Verdict(*each) for each in numbers]
    for row, rays in enumerate(found):
        if metric.dim == 2 and rays.error > ray_rule.SETTLED:
            plane = sum_over_chart(metric, loc[row], variance[row], cast.points(loc)[:, row], cast.weights()[:, row])
            found[row], taken = rays.beside(plane.verdict())
            if taken and plane.cells is not None:
                cells[row] = plane.cells
        elif drawable and not rays.is_sure():
            draws = weighed_draws(metric, loc[row], variance[row])
            found[row], taken = rays.beside(draws.verdict())
            if taken:
                drawn[row] = draws
    value, error = _arrays(found, loc)
    effective = jnp.asarray([each.num_effective for each in found], loc.dtype)
    cast._replace(value=value, error=error, num_effective=effective).warn()
    return JudgedMass(value, error, cast, drawn, cells)


def _arrays(found: list[Verdict], like: Array) -> tuple[Array, Array]:
    values, errors = (jnp.asarray([each[part] for each in found], like.dtype) for part in (0, 1))
    return values, errors
