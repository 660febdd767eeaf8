"""Parallel transport of tangent vectors along the shortest geodesic."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann._checks import check_finite, check_point
from pyro_riemann._modes import full_precision
from pyro_riemann._warn import warn
from pyro_riemann.metrics import RiemannianMetric

_RUNG = 0.1  # length to which vectors are scaled for a pole ladder
_MOST_STEPS = 1024


@full_precision
def parallel_transport(metric: RiemannianMetric, z: Tensor, y: Tensor, u: Tensor) -> Tensor:
    r"""Carry tangent vectors ``u`` at ``z`` to ``y`` along the shortest geodesic, inner products unchanged.

    On symmetric spaces (flat, spherical and hyperbolic space, positive definite matrices, their products and scaled
    versions, in whatever coordinates) one rung of a pole ladder, which is exact there. On any other metric the equation
    :math:`\dot u^i = -\Gamma^i_{jk} \dot\gamma^j u^k` is integrated together with that of the geodesic, with steps that
    are halved until vectors move by less than 1e-6 of their length (1e-4 in single precision).

    Differentiable in all arguments and in the metric's parameters.

    Args:
        metric: the metric.
        z: start, ``(*batch, d)``.
        y: end, ``(*batch, d)``.
        u: vectors at ``z``, ``(*batch, d)``; batches broadcast.

    Returns:
        Vectors at ``y``, ``(*batch, d)``.

    Raises:
        TypeError: if an argument is not a floating tensor.
        ValueError: for wrong shapes, or values that are not finite.

    Source: do Carmo (1992), *Riemannian Geometry*, chapter 2; Guigui & Pennec (2022), *Numerical accuracy of ladder
    schemes for parallel transport on manifolds*.

    Example:
        >>> from pyro_riemann import Sphere
        >>> sphere, z, y = Sphere(2), torch.tensor([0.0, 0.0]), torch.tensor([0.3, 0.4])
        >>> v = parallel_transport(sphere, z, y, torch.tensor([0.4, -0.3]))
        >>> round(sphere.norm(y, v).item(), 4)  # as long as before: 2 * 0.5 at the pole
        1.0
    """
    for name, value in (("z", z), ("y", y), ("u", u)):
        check_finite(name, check_point(name, value, metric.dim))
    z, y, u = torch.broadcast_tensors(z, y, u)
    size = metric.norm(z, u).detach().unsqueeze(-1)
    rests = size == 0
    scale = torch.where(rests, torch.ones_like(size), size)
    if metric.is_symmetric:
        return scale / _RUNG * _rung(metric, z, y, _RUNG / scale * u)
    velocity = metric.logmap(z, y)
    speed = metric.norm(z, velocity).detach().unsqueeze(-1)
    moving = speed > 0
    pace = torch.where(moving, speed, torch.ones_like(speed))  # a vector as long as the velocity keeps digits
    moved = pace * u / scale
    steps, tolerance = metric.flow_steps, 1e-6 if z.dtype == torch.float64 else 1e-4
    coarse = _integrated(metric, z, velocity, moved, steps)
    while True:
        fine = _integrated(metric, z, velocity, moved, 2 * steps)
        change = metric.norm(y, fine - coarse).detach()
        lost = moving.squeeze(-1) & ~(change <= tolerance * pace.squeeze(-1))  # also for NaN
        if not bool(lost.any()):
            break
        if steps >= _MOST_STEPS:
            warn(
                f"parallel_transport: {int(lost.sum())} of {lost.numel()} vectors still move by up to "
                f"{float((change / pace.squeeze(-1))[lost].max()):.1e} of their length when {steps} steps are halved: "
                "the metric is steep on their way."
            )
            break
        coarse, steps = fine, 2 * steps
    return torch.where(moving, scale / pace * fine, u)


def _rung(metric: RiemannianMetric, z: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """Transport by the geodesic reflection in the middle of the way."""
    middle = metric.expmap(z, 0.5 * metric.logmap(z, y))
    image = metric.expmap(middle, -metric.logmap(middle, metric.expmap(z, u)))
    return -metric.logmap(y, image)


def _integrated(metric: RiemannianMetric, z: Tensor, v: Tensor, u: Tensor, num_steps: int) -> Tensor:
    """The vectors after unit time along the geodesics with initial velocity ``v``, by the Runge-Kutta method."""

    def change(z: Tensor, v: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Gamma(v, u) by polarisation: all three in one batch
        bent = metric.christoffel(z.expand(3, *z.shape), torch.stack([v, v + u, v - u]))
        return v, -bent[0], -0.25 * (bent[1] - bent[2])

    state, h = (z, v, u), 1 / num_steps
    for _ in range(num_steps):
        first = change(*state)
        second = change(*(x + 0.5 * h * k for x, k in zip(state, first, strict=True)))
        third = change(*(x + 0.5 * h * k for x, k in zip(state, second, strict=True)))
        fourth = change(*(x + h * k for x, k in zip(state, third, strict=True)))
        slopes = zip(first, second, third, fourth, strict=True)
        z, v, u = (x + h / 6 * (a + 2 * b + 2 * c + d) for x, (a, b, c, d) in zip(state, slopes, strict=True))
        state = (z, v, u)
    return state[2]
