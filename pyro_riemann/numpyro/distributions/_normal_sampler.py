"""Draws of the Riemannian normal, by the route that its normalising constant has taken.

Exact radii where the volume is known; elsewhere rays in random directions, cells of a sum over the plane, or points of
the mixture that was fitted to weigh draws.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import radial, ray_rule
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann.numpyro._memo import is_known, remember, without_gradient
from pyro_riemann.numpyro.distributions._judged_mass import Index, JudgedMass, distinct, judged_mass
from pyro_riemann.numpyro.distributions._judged_rays import Integrand
from pyro_riemann.numpyro.distributions._radial import radial_laws, rewarped, unwarped
from pyro_riemann.numpyro.distributions._rejection import by_points, by_rays, efficiency_of
from pyro_riemann.numpyro.distributions._tangent import tangent_vectors
from pyro_riemann.numpyro.manifolds import ProductMetric
from pyro_riemann.numpyro.metrics import RiemannianMetric
from pyro_riemann.numpyro.sampling._runtime import RUNTIME

_METHODS = ("rejection", "cells", "exact")  # that of a product is the first that a factor has


class SamplingReport(NamedTuple):
    """How a Riemannian normal is sampled.

    Attributes:
        method: ``"exact"`` where the metric knows its volume, ``"cells"`` where the normalising constant is a sum over
            those of the plane, else ``"rejection"`` of directions, or of points where it is a mean of weighed draws.
        efficiency: acceptance rate, ``(*batch)``.

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
        methods = {report.method for report in reports}
        method = next(method for method in _METHODS if method in methods)
        return SamplingReport(method, jnp.stack([report.efficiency for report in reports]).min(0))
    mass, _, _, law = _judged(metric, there.reshape(-1, metric.dim), variance.reshape(-1), num_directions)
    efficiency = jnp.ones_like(mass.value) if mass.cast is None else efficiency_of(mass.cast.ray_mass)
    for row, draws in mass.drawn.items():
        efficiency = efficiency.at[row].set(efficiency_of(jnp.asarray(draws.log_weights, efficiency.dtype)))
    for row in mass.cells:
        efficiency = efficiency.at[row].set(1.0)
    method = "rejection" if len(mass.cells) < len(mass.value) else "cells"
    return SamplingReport(method, efficiency[law].reshape(variance.shape))


def sample_normal(
    metric: RiemannianMetric,
    loc: Array,
    variance: Array,
    key: Array,
    shape: tuple[int, ...],
    num_directions: int | None,
) -> Array:
    """Draws of shape ``(*sample, *batch, d)`` for every ``loc (*batch, d)`` and ``variance (*batch)``; no gradient."""
    metric, loc, variance = without_gradient(metric, loc, variance)
    base, there, spread = remember(unwarped, metric, loc, variance)  # nothing that is known may enter a trace
    if isinstance(base, ProductMetric):
        split = remember(ProductMetric.split, base, there)
        parts = zip(base.factors, split, jax.random.split(key, len(base.factors)), strict=True)
        draws = [
            sample_normal(factor, x, spread, one, (*shape[:-1], factor.dim), num_directions) for factor, x, one in parts
        ]
        return rewarped(metric, jnp.concat(draws, axis=-1))
    flat, times = remember(lambda x, t: (x.reshape(-1, base.dim), t.reshape(-1)), there, spread)
    count = math.prod(shape) // max(1, flat.size)
    law = base.radial_law()
    if flat.size == 0 or count == 0:
        return jnp.zeros(shape, loc.dtype)
    if law is not None:
        z = _exact(base, law, flat, times, count, key)
    else:
        z = _unknown(base, flat, times, count, key, num_directions)
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


def _judged(
    metric: RiemannianMetric, loc: Array, variance: Array, num_directions: int | None
) -> tuple[JudgedMass, Array, Array, Index]:
    """Masses of the laws that differ, their centres and variances, and which of them each is.

    By the route of the constant, unless that has a number of rays which is too small to draw by. Constants of the
    surrounding program where nothing of it is traced.
    """

    def compute(metric: RiemannianMetric, loc: Array, variance: Array) -> tuple[JudgedMass, Array, Array, Index]:
        centre, time, law = distinct(metric, loc, variance)
        mass = judged_mass(metric, centre, time, Integrand(), num_directions)
        if num_directions is not None and is_known(mass.error) and bool((mass.error > ray_rule.ERROR_BOUND).any()):
            mass = judged_mass(metric, centre, time, Integrand(), None)
        return mass, centre, time, law

    return remember(compute, metric, loc, variance)


def _unknown(
    metric: RiemannianMetric, loc: Array, variance: Array, count: int, key: Array, num_directions: int | None
) -> Array:
    """Draws ``(count, b, d)`` where nothing is known of the volume."""
    mass, centre, time, law = _judged(metric, loc, variance, num_directions)
    z = jnp.zeros((count, *loc.shape), loc.dtype)
    alone = (*mass.cells, *mass.drawn)
    rest = [row for row in range(len(centre)) if row not in alone]
    groups = [*([row] for row in alone), *([rest] if rest else [])]
    for rows, one in zip(groups, jax.random.split(key, len(groups)), strict=True):
        own, row = np.flatnonzero(np.isin(law, rows)), rows[0]
        shape = (count, len(own), metric.dim)
        if row in mass.cells:
            luck = jax.random.uniform(one, (count * len(own), 4), loc.dtype)
            found = mass.cells[row].place(RUNTIME, luck)
        elif row in mass.drawn:
            found = by_points(metric, centre[row], time[row], mass.drawn[row], one, count * len(own))
        else:
            assert mass.cast is not None
            found = by_rays(metric, loc[own], variance[own], mass.cast.ray_mass[:, law[own]], one, count)
        z = z.at[:, own].set(found.reshape(shape))
    return z
