"""Draws of the Riemannian normal, by the route that its normalising constant has taken.

Exact radii where the volume is known; elsewhere rays in random directions, cells of a sum over the plane, or points of
the mixture that was fitted to weigh draws.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann._formulas import radial, ray_rule
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann.distributions._judged_mass import JudgedMass, distinct, judged_mass
from pyro_riemann.distributions._judged_rays import Integrand
from pyro_riemann.distributions._radial import radial_laws, rewarped, unwarped
from pyro_riemann.distributions._rays import cast_rays
from pyro_riemann.distributions._rejection import Source, along, reject
from pyro_riemann.distributions._tangent import tangent_vectors
from pyro_riemann.manifolds import ProductMetric
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.sampling._runtime import RUNTIME

_METHODS = ("rejection", "cells", "exact")  # that of a product is the first that a factor has


class SamplingReport(NamedTuple):
    """How a Riemannian normal is sampled.

    Attributes:
        method: ``"exact"`` where the metric knows its volume, ``"cells"`` where the normalising constant is a sum over
            those of the plane, else ``"rejection"`` of directions, or of points where it is a mean of weighed draws.
        efficiency: acceptance rate, the worst of the batch.

    Example:
        >>> RiemannianNormal(torch.zeros(2), 0.5, EuclideanMetric(2)).sampling_report
        SamplingReport(method='exact', efficiency=1.0)
    """

    method: str
    efficiency: float


def report_of(metric: RiemannianMetric, loc: Tensor, variance: Tensor, num_directions: int | None) -> SamplingReport:
    """The method for these laws and what it will cost."""
    metric, loc, variance = unwarped(metric, loc, variance)
    if all(law is not None for law, _ in radial_laws(metric)):
        return SamplingReport("exact", 1.0)
    if isinstance(metric, ProductMetric):
        parts = zip(metric.factors, metric.split(loc), strict=True)
        reports = [report_of(factor, x, variance, num_directions) for factor, x in parts]
        methods = {report.method for report in reports}
        method = next(method for method in _METHODS if method in methods)
        return SamplingReport(method, min(report.efficiency for report in reports))
    centre, time, _ = distinct(loc.reshape(-1, metric.dim), variance.reshape(-1))
    mass = _route(metric, centre, time, num_directions)
    efficiencies = [source.efficiency() for source in _sources(metric, centre, time, mass)]
    return SamplingReport("rejection", min(efficiencies)) if efficiencies else SamplingReport("cells", 1.0)


def sample_normal(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, shape: torch.Size, num_directions: int | None
) -> Tensor:
    """Draws of shape ``(*sample, *batch, d)`` for every ``loc (*batch, d)`` and ``variance (*batch)``."""
    base, there, spread = unwarped(metric, loc, variance)
    if isinstance(base, ProductMetric):
        draws = [
            sample_normal(factor, x, spread, torch.Size((*shape[:-1], factor.dim)), num_directions)
            for factor, x in zip(base.factors, base.split(there), strict=True)
        ]
        return rewarped(metric, torch.cat(draws, dim=-1))
    flat, times = there.reshape(-1, base.dim), spread.reshape(-1)
    count = math.prod(shape) // max(1, flat.numel())
    law = base.radial_law()
    if flat.numel() == 0 or count == 0:
        z = flat.new_zeros(shape)
    elif law is not None:
        z = _exact(base, law, flat, times, count)
    else:
        z = _unknown(base, flat, times, count, num_directions)
    return rewarped(metric, z.reshape(shape))


# ---------------------------------------------------------------- where the volume is known


def _exact(metric: RiemannianMetric, law: RadialLaw, loc: Tensor, variance: Tensor, count: int) -> Tensor:
    """Draws ``(count, b, d)``."""
    noise = torch.randn(count, *loc.shape, dtype=loc.dtype, device=loc.device)
    if law.periods is not None:  # a normal law, cut off half a period away on every axis
        half = (law.periods.to(loc.device).double() / (8 * variance.double().unsqueeze(-1)).sqrt()).erf()
        uniform = (2 * torch.rand(noise.shape, dtype=torch.float64, device=loc.device) - 1) * half
        return loc + (2 * variance).sqrt().unsqueeze(-1) * uniform.erfinv().to(loc)
    if law.is_flat(metric.dim):
        return loc + tangent_vectors(metric, loc, variance, noise)
    radius, density, mass = radial.radial_table(torch, law.curvature, metric.dim, variance.double())
    luck = torch.rand(len(loc), count, dtype=torch.float64, device=loc.device)
    cell = torch.searchsorted(mass, luck, right=True).clamp(1, mass.shape[-1] - 1) - 1

    def at(table: Tensor, index: Tensor) -> Tensor:
        return table.gather(-1, index)

    width = at(mass, cell + 1) - at(mass, cell)
    share = ((luck - at(mass, cell)) / width.clamp(min=torch.finfo(width.dtype).tiny)).clamp(0, 1)
    inner = radial.within_cell(torch, share, at(density, cell), at(density, cell + 1))
    r = at(radius, cell) + inner * (at(radius, cell + 1) - at(radius, cell))
    direction = noise / noise.norm(dim=-1, keepdim=True)
    v = r.T.to(loc).unsqueeze(-1) * tangent_vectors(metric, loc, torch.ones_like(variance), direction)
    return metric.expmap(loc.expand_as(v), v)


# ---------------------------------------------------------------- elsewhere


def _route(metric: RiemannianMetric, loc: Tensor, variance: Tensor, num_directions: int | None) -> JudgedMass:
    """That of the constant, unless that has a number of rays which is too small to draw by."""
    mass = judged_mass(metric, loc, variance, Integrand(), num_directions)
    if num_directions is not None and bool((mass.error > ray_rule.ERROR_BOUND).any()):
        return judged_mass(metric, loc, variance, Integrand(), None)
    return mass


def _sources(metric: RiemannianMetric, loc: Tensor, variance: Tensor, mass: JudgedMass) -> list[Source]:
    """Of all laws that have no cells."""

    def follow(law: Tensor) -> tuple[Tensor, Tensor]:
        noise = torch.randn(len(law), metric.dim, dtype=loc.dtype, device=loc.device)
        white = noise / noise.norm(dim=-1, keepdim=True)
        index = rays[law]
        rule, _ = cast_rays(metric, loc[index], variance[index], white.unsqueeze(0), 1.0, check=False)
        logs = rule.log_integrand(variance[index], 1.0)
        return along(rule, logs), logs.logsumexp(0)

    def draw(row: int, law: Tensor) -> tuple[Tensor, Tensor]:
        return mass.drawn[row].propose(metric, loc[row], variance[row], len(law))

    found = [
        Source(torch.tensor([row], device=loc.device), partial(draw, row), draws.log_weights.unsqueeze(-1))
        for row, draws in mass.drawn.items()
    ]
    others = [row for row in range(len(loc)) if row not in mass.drawn and row not in mass.cells]
    if others and mass.cast is not None:
        rays = torch.tensor(others, device=loc.device)
        found.append(Source(rays, follow, mass.cast.ray_mass[:, rays]))
    return found


def _unknown(metric: RiemannianMetric, loc: Tensor, variance: Tensor, count: int, num_directions: int | None) -> Tensor:
    """Draws ``(count, b, d)`` where nothing is known of the volume."""
    centre, time, law = distinct(loc, variance)
    mass = _route(metric, centre, time, num_directions)
    z = loc.new_empty(count, *loc.shape)
    for row, cells in mass.cells.items():
        own = law == row
        luck = torch.rand(count * int(own.sum()), 4, dtype=loc.dtype, device=loc.device)
        z[:, own] = cells.place(RUNTIME, luck).unflatten(0, (count, -1))
    for source in _sources(metric, centre, time, mass):
        own = torch.isin(law, source.rows)
        number = torch.searchsorted(source.rows, law[own])
        z[:, own] = reject(source, number.repeat(count), metric.dim).unflatten(0, (count, -1))
    return z
