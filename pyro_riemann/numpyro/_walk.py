"""One step of Brownian motion in a chart."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas import walk_steps
from pyro_riemann.numpyro import _linalg
from pyro_riemann.numpyro.geodesics import expmap
from pyro_riemann.numpyro.manifolds import ProductMetric
from pyro_riemann.numpyro.metrics import PullbackMetric, RiemannianMetric


def overrides(metric: RiemannianMetric, name: str) -> bool:
    """True if a metric, and all that it is made of, has a method of its own."""
    if isinstance(metric, ProductMetric):
        return all(overrides(factor, name) for factor in metric.factors)
    base = getattr(metric, "base", None)
    own = getattr(type(metric), name) is not getattr(RiemannianMetric, name)
    return own and (not isinstance(base, RiemannianMetric) or overrides(base, name))


def step(metric: RiemannianMetric, z: Array, scale: Array, noise: Array, method: str) -> Array:
    """One step; ``scale`` is the standard deviation of the noise, ``(*batch, 1)``."""
    if method == "geodesic" and isinstance(metric, ProductMetric):  # the factors move independently
        parts = zip(metric.factors, metric.split(z), metric.split(noise), strict=True)
        return jnp.concat([step(factor, x, scale, part, method) for factor, x, part in parts], axis=-1)
    ambient = noise.shape[-1] != metric.dim
    if method == "geodesic" and metric.radial_law() is not None:
        ricci = metric.scalar_curvature(z)[..., None] / metric.dim
        scale = jnp.sqrt(walk_steps.step_variance(jnp, jnp.square(scale), ricci))
    white = scale * noise
    force = None
    surface = metric.immersed()
    if surface is not None and (ambient or method == "retraction"):
        value, jacobian = surface.embed_jacobian(z)
        factor = _linalg.cholesky(jacobian.mT @ jacobian)
        if ambient:
            white = _lower(factor, _pull(jacobian, white))
    elif method == "second_order" and isinstance(metric, PullbackMetric):
        tensor, force = metric.metric_and_force(z)
        factor = _linalg.cholesky(tensor)
    else:
        factor = metric.cholesky(z)

    v = _upper(factor, white)  # v ~ N(0, h G^-1), of norm |white| under G
    if method == "driftless":
        return z + v
    if method == "geodesic":
        if overrides(metric, "expmap"):
            end: Array = metric.expmap(z, v)
            return end
        return expmap(metric, z, v, num_steps=2)  # a step is short: more exact than the random walk itself
    if method == "euler":
        bend = _raise(factor, -jnp.square(scale) * metric.drift(z))
        # the drift does not shrink with v, so that it is held against the typical step
        return z + _upper(factor, white - _cap(bend, metric.dim * jnp.square(scale)))
    if surface is not None and method == "retraction":
        both = surface.embed(jnp.stack([z + v, z - v]))
        bend = _lower(factor, _pull(jacobian, 0.5 * (both[0] + both[1]) - value))
    elif force is not None:
        bend = _lower(factor, 0.5 * force(v))
    else:
        bend = _raise(factor, 0.5 * metric.christoffel(z, v))
    return z + _upper(factor, white - _cap(bend, jnp.square(white).sum(-1, keepdims=True)))


# Corrections are kept in the orthonormal frame of L, G = L L^T, where the norm of G is the Euclidean one.


def _pull(jacobian: Array, vector: Array) -> Array:
    """``J^T vector``."""
    return jnp.einsum("...ai,...a->...i", jacobian, vector)


def _raise(factor: Array, vector: Array) -> Array:
    """``L^T vector``: a chart vector in the orthonormal frame."""
    return jnp.einsum("...ji,...j->...i", factor, vector)


def _lower(factor: Array, vector: Array) -> Array:
    """``L^-1 vector``."""
    return _linalg.solve_lower(factor, vector)


def _upper(factor: Array, vector: Array) -> Array:
    """``L^-T vector``."""
    return _linalg.solve_upper(factor, vector)


def _cap(bend: Array, limit: Array) -> Array:
    """Shorten ``bend`` where its squared length exceeds ``limit``."""
    squared = jnp.square(bend).sum(-1, keepdims=True)
    long = squared > limit
    ratio = jnp.where(long, limit, 1.0) / jnp.where(long, squared, 1.0)
    return jnp.where(long, jnp.sqrt(ratio) * bend, bend)
