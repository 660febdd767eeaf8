r"""The ray rule: integrals of radial functions in geodesic polar coordinates.

.. math:: \int h(r)\,dM = \int I(u)\,du, \qquad I(u) = \int_0^{c(u)} h(r)\,r^{d-1} / V(r u)\,dr,

u in the unit sphere of the tangent space and c(u) the radius at which the geodesic in that direction stops being the
shortest. One integration of the geodesic with its Jacobi fields passes through all radii, as far as the integrand
matters: on negative curvature that is far outside the tangent Gaussian.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann import _work
from pyro_riemann._formulas import ray_rule
from pyro_riemann.distributions._tangent import is_closed_form
from pyro_riemann.geodesics._ray_state import Rays, across, log_area
from pyro_riemann.geodesics._rays import follow_rays
from pyro_riemann.metrics import RiemannianMetric

_TOLERANCE = {torch.float64: 2e-5, torch.float32: 1e-3}  # of a step, relative
_CUT_TOLERANCE = 0.01  # a shorter way by more than 1 %, above the rough solver's own error
_BISECTIONS = 9
_POINTS = 1 << 13  # evaluations of the metric at once
_RAYS = 1 << 13  # followed at once
LOOSE = 4  # one ray in so many is followed with a looser tolerance as well


def step_tolerance(like: Tensor) -> float:
    """Relative error of a step in the precision of ``like``."""
    return _TOLERANCE.get(like.dtype, 1e-3)


def difference_error(like: Tensor) -> float:
    """Relative error of Jacobi fields, which go by central differences, in the precision of ``like``."""
    return float(16 * torch.finfo(like.dtype).eps ** (2 / 3))


class RayRule(NamedTuple):
    """Nodes on n rays and what belongs to them; without gradient.

    Attributes:
        radius: ``(m, n)``.
        point: ``(m, n, d)``.
        velocity: ``(m, n, d)``, of unit speed.
        width: ``(m, n)``, weight of a node in an integral over its ray; 0 for a node that is none.
        log_area: ``(m, n)``, :math:`\\log(r^{d-1} / V)`.
        cut: ``(n,)``, where the ray stops being shortest, or at its end.
        doubt: ``(n,)``, how far off that may be.
        lost: ``(n,)``, log of the integrand at the end of a ray that could not be followed further; else -inf.
    """

    radius: Tensor
    point: Tensor
    velocity: Tensor
    width: Tensor
    log_area: Tensor
    cut: Tensor
    doubt: Tensor
    lost: Tensor

    def log_v(self) -> Tensor:
        """Log of the Van Vleck-Morette determinant, ``(m, n)``."""
        dim = self.point.shape[-1]
        return (dim - 1) * self.radius.clamp(min=torch.finfo(self.radius.dtype).tiny).log() - self.log_area

    def brink(self, variance: Tensor, power: float) -> Tensor:
        """Log of the integrand per unit of radius at the last node of every ray, ``(n,)``."""
        value = self.log_integrand(variance, power) - self.width.log()
        last = torch.where(self.width > 0, self.radius, -torch.ones_like(self.radius)).argmax(0)
        return torch.nan_to_num(value.gather(0, last.unsqueeze(0)).squeeze(0), nan=-math.inf, posinf=-math.inf)

    def log_integrand(self, variance: Tensor, power: float, extra: Tensor | None = None) -> Tensor:
        r"""Log of :math:`e^{-r^2 / 2t} r^{d-1} V^{-p}`, times ``exp(extra)``, times the weights, ``(m, n)``."""
        value = self.width.log() + self.log_area - self.radius**2 / (2 * variance)
        if power != 1:
            value = value + (1 - power) * self.log_v()
        if extra is not None:
            value = value + extra
        return torch.where(self.width > 0, value, torch.full_like(value, -math.inf))


@torch.no_grad()
def cast_rays(
    metric: RiemannianMetric, loc: Tensor, variance: Tensor, white: Tensor, power: float, check: bool = True
) -> tuple[RayRule, RayRule]:
    """The rule on ``N b`` rays, ordered by direction, then centre; and on some of them, with longer steps.

    Args:
        metric: any metric.
        loc: centres, ``(b, d)``.
        variance: ``(b,)``.
        white: directions, unit vectors in an orthonormal frame, ``(N, b, d)``.
        power: of 1 / V in the integrand, which says how far rays matter.
        check: whether some rays are followed with longer steps as well.
    """
    count, batch, dim = white.shape
    chunk = max(1, _RAYS // count)
    if batch > chunk:
        index = torch.arange(batch, device=loc.device).split(chunk)
        parts = [cast_rays(metric, loc[i], variance[i], white[:, i], power, check) for i in index]
        first, second = zip(*parts, strict=True)
        return _joined(list(first), count), _joined(list(second), len(white[:: min(count, LOOSE)]) if check else 0)
    factor = metric.cholesky(loc).expand(count, batch, dim, dim).reshape(-1, dim, dim)
    direction, frame = across(factor, white.reshape(-1, dim))
    rays = torch.arange(count * batch, device=loc.device).reshape(count, batch)
    some = rays[:: min(count, LOOSE)].flatten() if check else rays[:0].flatten()
    every = torch.cat([rays.flatten(), some])
    tolerance = torch.full((len(every),), step_tolerance(loc), dtype=loc.dtype, device=loc.device)
    tolerance[count * batch :] *= ray_rule.LOOSER
    centre = loc.expand(count, batch, dim).reshape(-1, dim)
    followed = follow_rays(
        metric,
        (centre[every], direction[every], frame[every]),
        variance.expand(count, batch).reshape(-1)[every],
        power,
        every % batch,
        tolerance,
    )
    last = torch.arange(count * batch, len(every), device=some.device)
    fine, loose = followed.take(rays.flatten()), followed.take(last)
    cut, doubt = _cut_radii(metric, centre, fine)
    return _nodes(metric, fine, cut, doubt), _nodes(metric, loose, torch.minimum(cut[some], loose.end), doubt[some])


def _joined(parts: list[RayRule], count: int) -> RayRule:
    """Rules in ``count`` directions of parts of a batch as one of the whole."""
    longest = max(part.radius.shape[0] for part in parts)

    def join(pieces: tuple[Tensor, ...], name: str) -> Tensor:
        axis = 0 if name in ("cut", "doubt", "lost") else 1  # that of the rays
        split = [p.unflatten(axis, (count, -1)) if p.shape[axis] else p.unflatten(axis, (0, 1)) for p in pieces]
        if axis == 1:  # rays of other parts may have more nodes
            split = [torch.cat([p, p.new_zeros(longest - p.shape[0], *p.shape[1:])]) for p in split]
        return torch.cat(split, axis + 1).flatten(axis, axis + 1)

    return RayRule(
        *(join(pieces, name) for pieces, name in zip(zip(*parts, strict=True), RayRule._fields, strict=True))
    )


def _nodes(metric: RiemannianMetric, rays: Rays, cut: Tensor, doubt: Tensor) -> RayRule:
    """Gauss-Legendre in every step, the last one ending at the cut radius."""
    unit, weight, _ = (torch.from_numpy(part).to(cut) for part in ray_rule.panel())
    left, right = rays.radius[:-1], rays.radius[1:]
    used = (torch.minimum(right, cut) - left).clamp(min=0)
    radius = left.unsqueeze(1) + unit[:, None] * used.unsqueeze(1)
    width = weight[:, None] * used.unsqueeze(1)
    point, velocity = (cut.new_zeros(*radius.shape, metric.dim) for _ in range(2))
    area = torch.full_like(radius, -math.inf)
    share = unit[:, None] * (used / torch.where(right > left, right - left, torch.ones_like(left))).unsqueeze(1)
    for step, inner, ray in (index.T for index in (width > 0).nonzero().split(_POINTS)):
        state = rays.at(step, share[step, inner, ray], ray)
        point[step, inner, ray], velocity[step, inner, ray] = state.point, state.velocity
        area[step, inner, ray] = log_area(metric, state)
    return RayRule(
        radius.flatten(0, 1), point.flatten(0, 1), velocity.flatten(0, 1), width.flatten(0, 1), area.flatten(0, 1),
        cut, doubt, rays.lost,
    )  # fmt: skip


def _cut_radii(metric: RiemannianMetric, centre: Tensor, rays: Rays) -> tuple[Tensor, Tensor]:
    """Where every ray stops being the shortest way, at most its end, and how far off that may be; ``(n,)``.

    A geodesic that has stopped being the shortest never is again: bisection, by curves that are shorter. How much
    shorter grows evenly from nothing at the cut, which is where two values of it point.
    """
    solver = metric.solver.replace(init="line", max_iterations=10, max_polish=0, tolerance=1e-3, on_failure="ignore")
    closed = is_closed_form(metric)

    def saved(index: Tensor, radius: Tensor) -> Tensor:
        """Share of ``radius`` that another curve saves."""
        z, start = rays.take(index).at(*rays.take(index).find(radius)).point, centre[index]
        length = metric.dist(start, z) if closed else solver.squared_dist(metric, start, z).sqrt()
        return 1 - length / radius

    cut, doubt = rays.end.clone(), torch.zeros_like(rays.end)
    index = torch.arange(len(cut), device=cut.device)
    index = index[saved(index, (1 - 1e-6) * cut) > _CUT_TOLERANCE]
    if len(index) == 0:
        return cut, doubt
    low, high = torch.zeros_like(cut[index]), cut[index]
    for _ in _work.turns("bisections of cut radii", range(_BISECTIONS)):
        middle = 0.5 * (low + high)
        longer = saved(index, middle) > _CUT_TOLERANCE
        low, high = torch.where(longer, low, middle), torch.where(longer, middle, high)
    far = torch.minimum(1.1 * high, cut[index] * (1 - 1e-6))
    first, second = saved(index, high) * high, saved(index, far) * far
    slope = (second - first) / (far - high).clamp(min=1e-12)
    back = torch.where(slope > 0, first / slope.clamp(min=1e-6), 0.0).clamp(min=0).minimum(0.2 * high)
    cut[index] = high - back
    doubt[index] = 0.3 * back + (high - low)
    return cut, doubt
