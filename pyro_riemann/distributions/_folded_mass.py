"""How much of a wrapped normal lies past the cut locus, where its density is a sum of which one term is known."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pyro_riemann import _work
from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas import ray_rule
from pyro_riemann._memo import remember
from pyro_riemann._vmap import is_mapped
from pyro_riemann._warn import warn
from pyro_riemann.distributions._tangent import is_closed_form, tangent_vectors
from pyro_riemann.metrics import RiemannianMetric

BOUND = 1e-3
_STEPS = 16
_BISECTIONS = 7
_SLACK = 0.04  # largest relative change of the squared speed
_SHORTER = 0.99  # a shorter way by more than 1 %, above the errors of the flow and of the rough solver
_BACK = 1 - (1 - _SHORTER) / 2  # the cut lies before that: a way that arrives head-on shortens as the other one grows
_warned: WeakKeyDictionary[RiemannianMetric, float] = WeakKeyDictionary()


@torch.no_grad()
def folded_mass(
    metric: RiemannianMetric, loc: Tensor, spread: Tensor, num_directions: int, closely: bool
) -> tuple[Estimate, Tensor]:
    """Mass of the tangent Gaussian at every ``loc (*batch, d)`` beyond the cut radius of its direction, ``(*batch)``.

    One integration of the flow along a direction passes through all radii. A geodesic that has stopped being the
    shortest never is again, so that the cut radius is found by bisection; past it, a chi distribution has the mass.
    Where the flow is lost, at the edge of a chart, what lies beyond counts as error; it is tried again by shorter steps
    only if ``closely``. ``spread`` is the law's time, ``(*batch)``, or a factor of its covariance, ``(*batch, d, d)``.
    Returns also points on the rays.
    """
    dim, longest = metric.dim, ray_rule.reach(metric.dim)
    unit = torch.as_tensor(ray_rule.even_directions(dim, num_directions), dtype=loc.dtype, device=loc.device)
    unit = unit.reshape(-1, *(1,) * (loc.dim() - 1), dim).expand(-1, *loc.shape)
    v = _vectors(metric, loc, spread, longest * unit)
    centre = loc.expand_as(v).reshape(-1, dim)
    points, velocities, last = _walk(metric, centre, v.reshape(-1, dim), 1)
    lost = last < 1 - 1e-6
    if closely and bool(lost.any()):  # again, by shorter steps
        again = _walk(metric, centre[lost], v.reshape(-1, dim)[lost], 6)
        better = again[2] > last[lost]
        row = lost.nonzero()[better, 0]
        points[:, row], velocities[:, row], last[row] = again[0][:, better], again[1][:, better], again[2][better]
    length = metric.norm(centre, v.reshape(-1, dim))

    def is_past(share: Tensor, row: Tensor) -> Tensor:
        """Whether there is a shorter way to the point at this share of the ray."""
        index = (share * _STEPS).long().clamp(max=_STEPS - 1)
        end, _ = _step(metric, points[index, row], velocities[index, row], share - index / _STEPS)
        return _dist(metric, centre[row], end) < _SHORTER * share * length[row]  # false for NaN

    row = torch.arange(len(centre), device=loc.device)
    row = row[(last > 0) & is_past(last, row)]
    low, high = torch.zeros_like(last[row]), last[row]
    for _ in range(_BISECTIONS if len(row) else 0):
        middle = (low + high) / 2
        past = is_past(middle, row)
        low, high = torch.where(past, low, middle), torch.where(past, middle, high)
    least, most = torch.zeros_like(last), _chi_tail(dim, longest * last)
    least[row], most[row] = (_chi_tail(dim, _BACK * longest * x) for x in (high, low))
    least, most = least.reshape(v.shape[:-1]), most.reshape(v.shape[:-1])
    # beyond the end of a ray that is not cut nothing was looked at: that is error, not mass
    mass = torch.where(least > 0, (least + most) / 2, torch.zeros_like(least))
    error = (mass.var(0) / len(mass)).sqrt() + torch.maximum(most - mass, mass - least).mean(0)
    return Estimate(mass.mean(0), error), points


def warn_if_folded(metric: RiemannianMetric, loc: Tensor, spread: Tensor, num_directions: int = 8) -> None:
    """Warn if more than ``BOUND`` of the Gaussians with the longest times is folded; again only if it doubles.

    Not under ``vmap`` over centres or times, which cannot be read there.
    """
    if is_mapped(loc) or is_mapped(spread):
        return
    times, factors = _widest(metric, loc, spread)
    chosen = times.argsort(descending=True, stable=True)[: max(1, 4 // metric.dim)]
    centres, times, factors = loc.detach().reshape(-1, metric.dim)[chosen], times[chosen], factors[chosen]
    if len(times) == 0:
        return
    mass = remember(
        metric,
        "folded mass",
        (num_directions,),
        (centres, factors),
        lambda: folded_mass(metric, centres, factors, num_directions, closely=False),
    ).value
    worst = float(mass.max())
    if worst <= max(BOUND, 2 * _warned.get(metric, 0.0)):
        return
    _warned[metric] = worst
    warn(
        f"{100 * worst:.3g} % of a RiemannianWrappedNormal with time {float(times[mass.argmax()]):.4g} lies past the "
        "cut locus of its centre, where several geodesics meet and `log_prob` counts one of them. Its mass is not 1, "
        "and an evidence lower bound with it is none. Shorten `time`; `folded_mass()` has the number."
    )


def _vectors(metric: RiemannianMetric, loc: Tensor, spread: Tensor, white: Tensor) -> Tensor:
    """Tangent vectors of standard normal ``white (*sample, *batch, d)``."""
    if spread.dim() < loc.dim():
        return tangent_vectors(metric, loc, spread, white)
    return (spread @ white.unsqueeze(-1)).squeeze(-1)


@torch.no_grad()
def _widest(metric: RiemannianMetric, loc: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """The times, ``(b)``, or those of the widest axes of covariances; and the spreads in one batch."""
    if spread.dim() < loc.dim():
        return spread.detach().flatten(), spread.detach().flatten()
    root = metric.cholesky(loc).mT @ spread
    return torch.linalg.matrix_norm(root, ord=2).square().flatten(), spread.detach().reshape(-1, metric.dim, metric.dim)


def _walk(metric: RiemannianMetric, z: Tensor, v: Tensor, parts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points and velocities ``(steps, n, d)`` along geodesics, and the share ``(n)`` up to which they keep their speed.

    Each of the steps in ``parts``. A geodesic that loses its speed stops there: nothing is known beyond.
    """
    energy, going = metric.inner(z, v, v), torch.ones_like(z[:, 0])
    points, velocities, last = [z], [v], torch.zeros_like(going)
    for _ in _work.turns("steps along geodesics", range(_STEPS)):
        end, velocity = z, v
        for _ in range(parts):
            end, velocity = _step(metric, end, velocity, going / (_STEPS * parts))
        change = (metric.inner(end, velocity, velocity) - energy).abs()
        going = torch.where(change <= _SLACK * energy, going, torch.zeros_like(going))  # also for NaN
        z, v = (torch.where(going.unsqueeze(-1) > 0, new, old) for new, old in ((end, z), (velocity, v)))
        last = last + going / _STEPS
        points.append(z)
        velocities.append(v)
    return torch.stack(points), torch.stack(velocities), last


def _step(metric: RiemannianMetric, z: Tensor, v: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """One Runge-Kutta step of each geodesic; NaN for those on which the metric is singular, the others' step intact."""
    try:
        return ray_rule.runge_kutta(metric.christoffel, z, v, share.unsqueeze(-1))
    except torch.linalg.LinAlgError:
        if len(z) == 1:
            return torch.full_like(z, torch.nan), torch.full_like(v, torch.nan)
        half = len(z) // 2
        parts = [_step(metric, z[rows], v[rows], share[rows]) for rows in (slice(half), slice(half, None))]
        return torch.cat([parts[0][0], parts[1][0]]), torch.cat([parts[0][1], parts[1][1]])


def _dist(metric: RiemannianMetric, z: Tensor, y: Tensor) -> Tensor:
    """Distances, from above: any shorter curve refutes that a geodesic is the shortest."""
    if is_closed_form(metric):
        return metric.dist(z, y)
    solver = metric.solver.replace(init="line", max_iterations=10, max_polish=0, tolerance=1e-3, on_failure="ignore")
    return solver.squared_dist(metric, z, y).sqrt()


def _chi_tail(dim: int, radius: Tensor) -> Tensor:
    """Probability that a chi variable with ``dim`` degrees of freedom exceeds ``radius``."""
    return torch.special.gammaincc(torch.full_like(radius, dim / 2), radius.square() / 2)
