"""One step of Brownian motion in a chart."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann._formulas import walk_steps
from pyro_riemann.geodesics import expmap
from pyro_riemann.manifolds import ProductMetric
from pyro_riemann.metrics import PullbackMetric, RiemannianMetric


def overrides(metric: RiemannianMetric, name: str) -> bool:
    """True if a metric, and all that it is made of, has a method of its own."""
    if isinstance(metric, ProductMetric):
        return all(overrides(factor, name) for factor in metric.factors)
    base = getattr(metric, "base", None)
    own = getattr(type(metric), name) is not getattr(RiemannianMetric, name)
    return own and (not isinstance(base, RiemannianMetric) or overrides(base, name))


def step(metric: RiemannianMetric, z: Tensor, scale: Tensor, noise: Tensor, method: str) -> Tensor:
    """One step; ``scale`` is the standard deviation of the noise, ``(*batch, 1)``."""
    if method == "geodesic" and isinstance(metric, ProductMetric):  # the factors move independently
        parts = zip(metric.factors, metric.split(z), metric.split(noise), strict=True)
        return torch.cat([step(factor, x, scale, part, method) for factor, x, part in parts], dim=-1)
    ambient = noise.shape[-1] != metric.dim
    if method == "geodesic" and metric.radial_law() is not None:
        ricci = metric.scalar_curvature(z).unsqueeze(-1) / metric.dim
        scale = walk_steps.step_variance(torch, scale.square(), ricci).sqrt()
    white = scale * noise
    force = None
    surface = metric.immersed()
    if surface is not None and (ambient or method == "retraction"):
        value, jacobian = surface.embed_jacobian(z)
        factor = _factor(jacobian.mT @ jacobian, z)
        if ambient:
            white = _lower(factor, _pull(jacobian, white))
    elif method == "second_order" and isinstance(metric, PullbackMetric):
        tensor, force = metric.metric_and_force(z)
        factor = _factor(tensor, z)
    else:
        factor = metric.cholesky(z)

    v = _upper(factor, white)  # v ~ N(0, h G^-1), of norm |white| under G
    if method == "driftless":
        return z + v
    if method == "geodesic":
        if overrides(metric, "expmap"):
            return metric.expmap(z, v)
        return expmap(metric, z, v, num_steps=2)  # a step is short: more exact than the random walk itself
    if method == "euler":
        bend = _raise(factor, -(scale**2) * metric.drift(z))
        # the drift does not shrink with v, so that it is held against the typical step
        return z + _upper(factor, white - _cap(bend, metric.dim * scale**2))
    if surface is not None and method == "retraction":
        both = surface.embed(torch.stack([z + v, z - v]))
        bend = _lower(factor, _pull(jacobian, 0.5 * (both[0] + both[1]) - value))
    elif force is not None:
        bend = _lower(factor, 0.5 * force(v))
    else:
        bend = _raise(factor, 0.5 * metric.christoffel(z, v))
    return z + _upper(factor, white - _cap(bend, white.square().sum(-1, keepdim=True)))


# Corrections are kept in the orthonormal frame of L, G = L L^T, where the norm of G is the Euclidean one.


def _factor(tensor: Tensor, z: Tensor) -> Tensor:
    """Cholesky factor L of the metric of an immersion."""
    factor, info = torch.linalg.cholesky_ex(tensor)
    if not torch.jit.is_tracing() and bool((info != 0).any()):
        where = z[info != 0][0].tolist()
        raise ValueError(
            f"The pullback metric is not positive definite at {int((info != 0).sum())} of {info.numel()} points, for "
            f"instance z = {where}. Where this is far away, a path has run off: raise `num_steps` or lower `time`. "
            "Otherwise raise `jitter` of the PullbackMetric, or use float64."
        )
    return factor


def _pull(jacobian: Tensor, vector: Tensor) -> Tensor:
    """``J^T vector``."""
    return torch.einsum("...ai,...a->...i", jacobian, vector)


def _raise(factor: Tensor, vector: Tensor) -> Tensor:
    """``L^T vector``: a chart vector in the orthonormal frame."""
    return torch.einsum("...ji,...j->...i", factor, vector)


def _lower(factor: Tensor, vector: Tensor) -> Tensor:
    """``L^-1 vector``."""
    return torch.linalg.solve_triangular(factor, vector.unsqueeze(-1), upper=False).squeeze(-1)


def _upper(factor: Tensor, vector: Tensor) -> Tensor:
    """``L^-T vector``."""
    return torch.linalg.solve_triangular(factor.mT, vector.unsqueeze(-1), upper=True).squeeze(-1)


def _cap(bend: Tensor, limit: Tensor) -> Tensor:
    """Shorten ``bend`` where its squared length exceeds ``limit``."""
    squared = bend.square().sum(-1, keepdim=True)
    long = squared > limit
    ratio = torch.where(long, limit, torch.ones_like(limit)) / torch.where(long, squared, torch.ones_like(squared))
    return torch.where(long, ratio.sqrt() * bend, bend)
