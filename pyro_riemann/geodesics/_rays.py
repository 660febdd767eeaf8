"""Geodesics from a centre through all radii, with their Jacobi fields, in steps of each one's own lengths."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann import _autodiff, _work
from pyro_riemann._formulas import ray_rule
from pyro_riemann._interface import Immersed, Metric
from pyro_riemann.geodesics._ray_state import Rays, State

_FEW = 4  # dimensions, up to which a Jacobian of an immersion is as cheap as a few passes through it
_SHORTEST = 1e-4  # step, relative to the spread: a ray that needs shorter ones is given up
_NUMBERS = 1 << 24  # in the derivatives of the Jacobians of one batch of rays


@torch.no_grad()
def follow_rays(
    metric: Metric,
    start: tuple[Tensor, Tensor, Tensor],
    variance: Tensor,
    power: float,
    group: Tensor,
    tolerance: Tensor,
) -> Rays:
    r"""Follow rays as far as :math:`e^{-r^2 / 2t} r^{d-1} V^{-p}` matters, at most to the first conjugate point.

    Args:
        metric: any metric.
        start: centres ``(n, d)``, unit velocities ``(n, d)`` and frames across them, ``(n, d, d - 1)``.
        variance: t, ``(n,)``.
        power: p.
        group: ``(n,)``, number of the centre to which a ray belongs: its rays end together, relative to the largest.
        tolerance: relative error of a step, ``(n,)``.
    """
    z, direction, frame = start
    blank = torch.zeros_like(frame)
    acceleration, bending = _rates(metric, z, direction, blank, frame, variance.sqrt())
    state = State(z, direction, acceleration, blank, frame, bending)
    radius, step = torch.zeros_like(variance), 0.1 * variance.sqrt()
    # steps that are allowed a larger error may be longer as well, or their difference would not show the error
    longest = (tolerance / tolerance.amin() if len(tolerance) else tolerance) ** 0.25 * variance.sqrt()
    radii, history = [radius], [state]
    nowhere = torch.full_like(radius, -torch.inf)
    bend, value, end = -nowhere, nowhere.clone(), -nowhere
    peak = nowhere.new_full((int(group.max()) + 1 if len(group) else 0,), -torch.inf)
    active, conjugate = torch.arange(len(radius), device=z.device), torch.zeros_like(group, dtype=torch.bool)
    for _ in range(ray_rule.MAX_STEPS):
        _work.stage("rays", len(end) - len(active), len(end))
        if len(active) == 0:
            break
        old, width = State(*(part[active] for part in state)), step[active]
        new, area, error = _in_pieces(metric, old, width, variance[active], tolerance[active])
        good = error <= 1
        step[active] = torch.minimum(ray_rule.next_step(torch, width, error), longest[active])
        kept, new = active[good], State(*(part[good] for part in new))
        state = State(*(part.index_put((kept,), fresh) for part, fresh in zip(state, new, strict=True)))
        radius = radius.index_put((kept,), radius[kept] + width[good])
        radii.append(radius)
        history.append(state)
        # where rays end
        bent = _bend(metric, new)
        met = bent - bend[kept] > 2 / width[good]
        log_radius = (metric.dim - 1) * radius[kept].log()
        height = power * area[good] + (1 - power) * log_radius - radius[kept] ** 2 / (2 * variance[kept])
        peak = peak.scatter_reduce(0, group[kept], torch.where(met, -torch.inf, height), "amax")
        gone = (height < peak[group[kept]] - ray_rule.DROP) & (height < value[kept])
        bend[kept], value[kept], conjugate[kept] = bent, height, met
        end[kept[met | gone]] = radius[kept[met | gone]]
        active = active[torch.isinf(end[active]) & (step[active] > _SHORTEST * variance[active].sqrt())]
    unfinished = torch.isinf(end)
    rays = Rays(
        torch.stack(radii),
        State(*(torch.stack(parts) for parts in zip(*history, strict=True))),
        torch.where(unfinished, radius, end),
        torch.where(unfinished, value, nowhere),
    )
    return rays._replace(end=_conjugate_points(metric, rays, conjugate)) if bool(conjugate.any()) else rays


def _rates(metric: Metric, z: Tensor, v: Tensor, field: Tensor, slope: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Acceleration ``(n, d)`` of geodesics and that of their Jacobi fields, ``(n, d, d - 1)``.

    The latter by central differences over ``unit (n)``, the length at which geodesics are resolved: a third of the
    time of a derivative of a derivative, and far more accurate than the steps.
    """
    if metric.dim == 1:
        return -metric.christoffel(z, v), torch.zeros_like(field)
    across, turn = field.movedim(-1, 0), slope.movedim(-1, 0)
    size = (across / unit.unsqueeze(-1)).square().sum(-1) + turn.square().sum(-1)
    small = (torch.finfo(z.dtype).eps ** (1 / 3) * v.norm(dim=-1) / size.sqrt()).unsqueeze(-1)
    shift, twist = small * across, small * turn
    surface = metric.immersed() if metric.dim > _FEW else None
    if surface is not None:
        symbol = metric.christoffel(z, v)
        forward, backward = (_force(surface, z + s * shift, v + s * twist, symbol) for s in (1, -1))
        slope_of_force = ((forward - backward) / (2 * small)).movedim(0, -1)
        return -symbol, -torch.linalg.solve(metric.metric(z), slope_of_force)
    blank = torch.zeros_like(shift[:1])
    acceleration = -metric.christoffel(
        z + torch.cat([blank, shift, -shift]),
        v + torch.cat([blank, twist, -twist]),
    )
    middle, plus, minus = acceleration.split([1, metric.dim - 1, metric.dim - 1])
    return middle[0], ((plus - minus) / (2 * small)).movedim(0, -1)


def _force(metric: Immersed, z: Tensor, v: Tensor, symbol: Tensor) -> Tensor:
    r""":math:`J^\top (D^2 f[v, v] - J \Gamma)`, whose derivative, where it is 0, is G times that of the symbols.

    Of an immersion of many dimensions: some passes through it in place of a Jacobian with as many columns.
    """
    z, v = z.contiguous(), v.contiguous()
    acceleration = _autodiff.second_directional(metric.embed, z, v)[2]
    push = _autodiff.directional(metric.embed, z, symbol.expand_as(z).contiguous())[1]
    with torch.enable_grad():
        free = z.detach().requires_grad_()
        (force,) = torch.autograd.grad(metric.embed(free), free, (acceleration - push).detach())
    return force


def _in_pieces(
    metric: Metric, state: State, step: Tensor, variance: Tensor, tolerance: Tensor
) -> tuple[State, Tensor, Tensor]:
    """:func:`_trial`, for so many rays at once as memory allows where an immersion has many outputs.

    Where one fails with an error, for fewer at once, so that the others do not share its fate.
    """
    surface = metric.immersed()
    outputs = metric.dim if surface is None else surface.embed(state.point[:1]).shape[-1]
    size = max(1, _NUMBERS // (metric.dim**2 * outputs))
    if len(step) <= size:
        try:
            return _trial(metric, state, step, variance, tolerance)
        except (torch.linalg.LinAlgError, ValueError):  # off the manifold: a shorter step may not be
            none = torch.full_like(step, torch.inf)
            if len(step) == 1:
                return state, none, none
            size = (len(step) + 1) // 2
    index = torch.arange(len(step), device=step.device).split(size)
    parts = [_in_pieces(metric, State(*(p[i] for p in state)), step[i], variance[i], tolerance[i]) for i in index]
    states, areas, errors = zip(*parts, strict=True)
    return State(*(torch.cat(pieces) for pieces in zip(*states, strict=True))), torch.cat(areas), torch.cat(errors)


def _trial(
    metric: Metric, state: State, step: Tensor, variance: Tensor, tolerance: Tensor
) -> tuple[State, Tensor, Tensor]:
    """One step; the log area at its end, and its error relative to the tolerance (infinite where there is none)."""
    flat, wide = step.unsqueeze(-1), step.reshape(-1, 1, 1)
    now = (state.point, state.velocity, state.field, state.field_velocity)
    rate = [(state.velocity, state.acceleration, state.field_velocity, state.field_acceleration)]
    covered = torch.ones_like(step, dtype=torch.bool)

    def combined(row: tuple[float, ...], part: int) -> Tensor:
        total = sum(a * r[part] for a, r in zip(row, rate, strict=True) if a)
        return (flat if part < 2 else wide) * total

    for row in ray_rule.STAGES:
        z, v, field, slope = (x + combined(row, part) for part, x in enumerate(now))
        if (known := metric.covers(z)) is not None:
            covered = covered & known
            z = torch.where(covered.unsqueeze(-1), z, state.point)
        acceleration, bending = _rates(metric, z, v, field, slope, variance.sqrt())
        rate.append((v, acceleration, slope, bending))
    tensor = metric.metric(z)
    new = State(z, v, acceleration, field, slope, bending)
    factor, info = torch.linalg.cholesky_ex(tensor)

    def size(x: Tensor) -> Tensor:
        return (factor.mT @ x).square().sum((-2, -1)).sqrt()

    off = [combined(ray_rule.ERROR, part) for part in range(4)]
    unit = variance.sqrt()
    speed = size(v.unsqueeze(-1))
    parts = [size(off[0].unsqueeze(-1)) / unit, size(off[1].unsqueeze(-1)), 0.1 * (speed - 1).abs()]
    area = torch.zeros_like(step)
    if metric.dim > 1:
        length = size(field)
        whole = length + unit * size(slope)  # at a conjugate point fields are short
        parts += [size(off[2]) / whole, unit * size(off[3]) / whole]
        root = factor.mT @ field
        area = 0.5 * torch.linalg.slogdet(root.mT @ root).logabsdet
    error = torch.stack(parts).amax(0) / tolerance
    good = (info == 0) & torch.isfinite(error) & covered
    return new, area, torch.where(good, error, torch.full_like(error, torch.inf))


def _bend(metric: Metric, state: State) -> Tensor:
    """Trace of the logarithmic derivative of the Jacobi fields, up to what is smooth; ``(*batch)``."""
    if metric.dim == 1:
        return torch.zeros_like(state.point[..., 0])
    fields = torch.cat([state.velocity.unsqueeze(-1), state.field], -1)
    slopes = torch.cat([state.acceleration.unsqueeze(-1), state.field_velocity], -1)
    inverse = torch.linalg.inv_ex(fields).inverse
    return torch.nan_to_num((inverse * slopes.mT).sum((-2, -1)), nan=torch.inf)


def _conjugate_points(metric: Metric, rays: Rays, found: Tensor) -> Tensor:
    """Ends ``(n,)`` of the rays, of those that ``found`` a conjugate point in their last step its radius there."""
    step, _ = rays.find(rays.end)
    index = torch.arange(len(rays.end), device=step.device)
    left, right = rays.radius[step, index], rays.radius[step + 1, index]
    first = _bend(metric, State(*(part[step, index] for part in rays.state)))
    low, high = torch.zeros_like(left), torch.ones_like(left)
    for _ in range(40):
        share = 0.5 * (low + high)
        beyond = _bend(metric, rays.at(step, share)) - first > 2 / (share * (right - left))
        low, high = torch.where(beyond, low, share), torch.where(beyond, share, high)
    return torch.where(found, left + low * (right - left), rays.end)
