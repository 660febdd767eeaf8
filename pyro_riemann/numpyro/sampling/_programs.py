"""Programs of the laws of a metric on a box, compiled with metric and box as arguments."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array

from pyro_riemann._formulas import unit_laws, unit_samplers
from pyro_riemann._formulas.peaks import in_units, variances
from pyro_riemann._formulas.unit_cells import tabulate
from pyro_riemann._formulas.unit_laws import CellLaw, MixtureLaw, TemperedLaw
from pyro_riemann._formulas.unit_mixture import UnitMixture, log_area, shares
from pyro_riemann._formulas.unit_mixture import mixture as mixture_of
from pyro_riemann._formulas.unit_samplers import Weighed, spread
from pyro_riemann._formulas.unit_tempering import TemperedState, temper
from pyro_riemann.numpyro.metrics import RiemannianMetric
from pyro_riemann.numpyro.sampling._density import log_density, slopes
from pyro_riemann.numpyro.sampling._runtime import RUNTIME

_REACH = 5.0  # standard deviations beyond the box at which a known peak no longer matters
_NEVER = -1e6  # log mass of such a peak: no array changes its shape under `jit`


@partial(jax.jit, static_argnames="count")
def cells(metric: RiemannianMetric, low: Array, high: Array, count: int) -> CellLaw:
    return tabulate(RUNTIME, partial(log_density, metric, low, high), count, low)


@jax.jit
def mixture(metric: RiemannianMetric, low: Array, high: Array, proposal: UnitMixture, uniform: Array) -> MixtureLaw:
    box = metric, low, high
    value, climb = partial(log_density, *box), partial(slopes, *box)
    return unit_laws.mixture_law(RUNTIME, value, climb, proposal, uniform, jax.random.key(0))


@partial(jax.jit, static_argnames="budget")
def tempered(metric: RiemannianMetric, low: Array, high: Array, proposal: UnitMixture, budget: int) -> TemperedLaw:
    return unit_laws.tempered_law(RUNTIME, partial(slopes, metric, low, high), proposal, jax.random.key(0), budget)


def known_mixture(metric: RiemannianMetric, low: Array, high: Array) -> UnitMixture:
    """One Gaussian for each of the peaks that a traced metric knows of, and a uniform part."""
    known, width = metric.peaks(), high - low
    if known is None:
        none = jnp.zeros((0, metric.dim), low.dtype)
        return mixture_of(jnp, none, none, jnp.zeros(1, low.dtype))
    loc, covariance = (known.loc - low) / width, in_units(known.covariance, width)
    seeds = scipy.stats.qmc.Sobol(metric.dim, scramble=True, seed=np.random.default_rng(0)).random(256)
    places = jnp.concatenate([loc.clip(0, 1), jnp.asarray(seeds, low.dtype)])
    height = log_density(metric, low, high, places)
    root = jnp.sqrt(covariance) if covariance.ndim == 2 else jnp.linalg.cholesky(covariance)
    area = log_area(jnp, root if root.ndim == 2 else jnp.diagonal(root, axis1=-2, axis2=-1))
    near = (jnp.abs(loc - loc.clip(0, 1)) < _REACH * jnp.sqrt(variances(jnp, covariance))).all(-1)
    log_mass = jnp.where(near, height[: len(loc)] + area, _NEVER)
    rest = jnp.median(height[len(loc) :])
    return mixture_of(jnp, loc, covariance, shares(jnp, log_mass, jax.nn.logsumexp(log_mass), rest))


@partial(jax.jit, static_argnames=("shape", "num_moves"))
def resampled(
    metric: RiemannianMetric,
    low: Array,
    high: Array,
    proposal: UnitMixture,
    key: Array,
    shape: tuple[int, int, int],
    num_moves: int,
) -> tuple[Weighed, Array]:
    drawn = unit_samplers.resampled(RUNTIME, partial(log_density, metric, low, high), proposal, shape, key)
    return spread(RUNTIME, partial(slopes, metric, low, high), drawn, proposal.scale(RUNTIME), num_moves, key)


@partial(jax.jit, static_argnames=("islands", "particles", "num_moves"))
def population(
    metric: RiemannianMetric,
    low: Array,
    high: Array,
    proposal: UnitMixture,
    key: Array,
    islands: int,
    particles: int,
    num_moves: int,
) -> TemperedState:
    return temper(RUNTIME, partial(slopes, metric, low, high), proposal, islands, particles, key, num_moves)
