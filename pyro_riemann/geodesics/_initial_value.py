"""The initial-value problem: geodesic flow, exponential map and its Jacobian determinant."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_riemann import _autodiff, _linalg, _work
from pyro_riemann._checks import check_finite, check_point, holds
from pyro_riemann._formulas import ray_rule
from pyro_riemann._interface import Metric
from pyro_riemann._modes import full_precision
from pyro_riemann._vmap import over_batches

_SLACK = 0.04  # largest relative change of the squared speed, which is constant along a geodesic
_EVEN_STEPS = 64  # with that many steps of one length or more, lengths of their own are tried next
_TRIALS = 256  # steps of a geodesic's own length, accepted or not


@full_precision
@over_batches
def geodesic_flow(metric: Metric, z: Tensor, v: Tensor, num_steps: int = 16) -> tuple[Tensor, Tensor]:
    r"""Position and velocity after unit time on the geodesic that starts at ``z`` with velocity ``v``.

    Integrates :math:`z'' = -\Gamma(z', z')` by the classical Runge-Kutta method, whose error falls with the
    fourth power of ``num_steps``. The speed :math:`|z'|_G` is constant along the exact flow: where steps are too
    long for a steep wall it is not, and those geodesics are integrated again with four times as many, and at last with
    steps whose lengths follow the walls. What has not arrived after some hundred of these stops where it is. (A speed
    that is kept is no proof of accuracy: steps can jump a wall that is thin.)

    Args:
        metric: any object with ``dim``, ``christoffel(z, v)`` and ``inner(z, u, v)``.
        z: start, ``(*batch, d)``; broadcast against ``v``.
        v: initial velocity in chart coordinates, ``(*batch, d)``.
        num_steps: number of Runge-Kutta steps to begin with; final under ``torch.jit.trace`` and ``torch.vmap``.

    Returns:
        End point and end velocity, each ``(*batch, d)``; exactly ``(z, 0)`` where ``v`` is 0.

    Raises:
        ValueError: if an argument has the wrong shape or is not finite, or if the flow leaves the reals.
        TypeError: if ``z`` or ``v`` is not a floating tensor.

    Source: do Carmo (1992), *Riemannian Geometry*, chapter 3, section 2; Hairer, Norsett & Wanner (1993), *Solving
    Ordinary Differential Equations I*, section II.1.

    Example:
        >>> from pyro_riemann import EuclideanMetric
        >>> from pyro_riemann.geodesics import geodesic_flow
        >>> geodesic_flow(EuclideanMetric(1), torch.tensor([1.0]), torch.tensor([2.0]))
        (tensor([3.]), tensor([2.]))
    """
    z, v = _check(metric, z, v, num_steps)
    end, velocity = _resolved(metric, z, v, num_steps, _runge_kutta)
    return end, velocity


@full_precision
@over_batches
def expmap(metric: Metric, z: Tensor, v: Tensor, num_steps: int = 16) -> Tensor:
    """Exponential map: the end point of :func:`geodesic_flow`, ``(*batch, d)``.

    Args:
        metric: any object with ``dim`` and ``christoffel(z, v)``.
        z: start, ``(*batch, d)``; broadcast against ``v``.
        v: initial velocity in chart coordinates, ``(*batch, d)``.
        num_steps: number of Runge-Kutta steps to begin with, see :func:`geodesic_flow`.

    Raises:
        TypeError, ValueError: as :func:`geodesic_flow`.

    Source: do Carmo (1992), *Riemannian Geometry*, chapter 3, section 2.

    Example:
        >>> from pyro_riemann.geodesics import expmap
        >>> expmap(EuclideanMetric(2), torch.zeros(2), torch.ones(2))
        tensor([1., 1.])
    """
    return geodesic_flow(metric, z, v, num_steps)[0]


@full_precision
@over_batches
def expmap_log_van_vleck(metric: Metric, z: Tensor, v: Tensor, num_steps: int = 16) -> tuple[Tensor, Tensor]:
    r"""End point ``y = expmap(z, v)`` and log Van Vleck-Morette determinant along that geodesic.

    .. math:: \log V = -\Big(\log\Big|\det \frac{\partial y}{\partial v}\Big|
        + \tfrac12 \log\det G(y) - \tfrac12 \log\det G(z)\Big)

    so that ``z = expmap(loc, v)``, ``v ~ N(0, t G(loc)^{-1})`` has density ``N(|v|; t) V`` with respect to the
    Riemannian measure. The columns of the Jacobian are Jacobi fields, here the exact derivatives of the
    discrete flow by forward mode. V is 1 at ``v = 0``, infinite at a conjugate point; past the first one the absolute
    determinant is used, and the geodesic is no longer the shortest.

    Args:
        metric: any object with ``dim``, ``christoffel`` and ``logdet``.
        z: start, ``(*batch, d)``; broadcast against ``v``.
        v: initial velocity, ``(*batch, d)``.
        num_steps: number of Runge-Kutta steps to begin with, see :func:`geodesic_flow`.

    Returns:
        ``y`` of shape ``(*batch, d)`` and ``log V`` of shape ``(*batch)``.

    Raises:
        ValueError: as :func:`geodesic_flow`.
        TypeError: as :func:`geodesic_flow`.

    Source: Morette (1951), *On the definition and approximation of Feynman's path integrals*; do Carmo (1992),
    *Riemannian Geometry*, chapter 5.

    Example:
        >>> from pyro_riemann.geodesics import expmap_log_van_vleck
        >>> y, log_v = expmap_log_van_vleck(Sphere(2), torch.zeros(2), torch.tensor([0.5, 0.0]))
        >>> bool(torch.isclose(log_v, (1 / torch.tensor(1.0).sin()).log(), atol=1e-4))  # r / sin r at r = 1
        True
    """
    z, v = _check(metric, z, v, num_steps)
    y, _, jacobian = _resolved(metric, z, v, num_steps, _with_jacobi_fields)
    log_jacobian = _linalg.log_abs_det(jacobian)
    return y, -(log_jacobian + 0.5 * (metric.logdet(y) - metric.logdet(z)))


def _runge_kutta(metric: Metric, z: Tensor, v: Tensor, steps: int | Tensor) -> tuple[Tensor, Tensor]:
    """End point and velocity after a number of steps of one length, or after steps of lengths ``(count, *batch)``."""
    lengths = [1.0 / steps] * steps if isinstance(steps, int) else list(steps.unsqueeze(-1))
    for step in _work.turns("steps along geodesics", lengths):
        z, v = ray_rule.runge_kutta(metric.christoffel, z, v, step)
    return z, v


@torch.no_grad()
def _own_steps(metric: Metric, z: Tensor, v: Tensor) -> Tensor:
    """Lengths of steps that keep the speed, for each geodesic its own, ``(count, *batch)``; 0 once it has arrived.

    A geodesic that has not arrived after all trials stops where it is: its lengths add up to less than 1.
    """
    time, step = torch.zeros_like(z[..., 0]), torch.full_like(z[..., 0], 1 / 16)
    energy, taken = metric.inner(z, v, v), []
    for _ in _work.turns("steps along geodesics", range(_TRIALS)):
        step = torch.minimum(step, 1 - time)
        try:
            end, velocity = ray_rule.runge_kutta(metric.christoffel, z, v, step.unsqueeze(-1))
            change = (metric.inner(end, velocity, velocity) - energy).abs()
            good = change <= energy * _SLACK * (time + step).clamp(min=0.1)  # false for NaN
        except torch.linalg.LinAlgError:
            good = torch.zeros_like(step, dtype=torch.bool)
        if bool(good.any()):
            z, v = (torch.where(good.unsqueeze(-1), new, old) for new, old in ((end, z), (velocity, v)))
            taken.append(torch.where(good, step, 0))
            time = time + taken[-1]
        step = torch.where(good, 1.5 * step, 0.4 * step)
        if bool((time >= 1 - 1e-6).all()):
            break
    return torch.stack(taken) if taken else time.unsqueeze(0)


def _with_jacobi_fields(metric: Metric, z: Tensor, v: Tensor, steps: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """End point, end velocity, and the derivative of the end point in ``v``."""

    def flow(w: Tensor) -> Tensor:
        return torch.cat(_runge_kutta(metric, z.expand_as(w), w, steps), dim=-1)

    state, jacobian = _autodiff.jacobian(flow, v, metric.dim)
    end, velocity = state.chunk(2, dim=-1)
    return end, velocity, jacobian[..., : metric.dim, :]


def _resolved(
    metric: Metric, z: Tensor, v: Tensor, num_steps: int, integrate: Callable[..., tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """Results of ``integrate``, from more steps where the speed is not kept, at last from steps of their own lengths.

    Without it one draw in ten thousand of a posterior beside a steep wall ends millions of units away.
    """
    try:
        result = integrate(metric, z, v, num_steps)
    except torch.linalg.LinAlgError as error:
        raise ValueError(f"The metric became singular on a geodesic. {_advice(num_steps)}") from error
    with torch.no_grad():
        before, after = metric.inner(z, v, v), metric.inner(result[0], result[1], result[1])
        kept = (after - before).abs() <= _SLACK * before  # false for NaN
    if holds(kept):
        return result
    if kept.dim() == 0:
        return tuple(part[0] for part in _resolved(metric, z[None], v[None], num_steps, integrate))
    lost = ~kept
    if num_steps < _EVEN_STEPS:
        again = _resolved(metric, z[lost], v[lost], 4 * num_steps, integrate)
    else:
        steps = _own_steps(metric, z[lost], v[lost])
        stopped = steps.sum(0) < 0.999  # by far more than rounding
        _check_path(result[0][lost][stopped], num_steps)
        again = integrate(metric, z[lost], v[lost], steps)
    return tuple(old.index_put((lost,), new) for old, new in zip(result, again, strict=True))


def _check(metric: Metric, z: Tensor, v: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
    check_finite("z", check_point("z", z, metric.dim))
    check_finite("v", check_point("v", v, metric.dim))
    if num_steps < 1:
        raise ValueError(f"`num_steps` must be at least 1, got {num_steps}.")
    z, v = torch.broadcast_tensors(z, v)
    return z, v


def _check_path(end: Tensor, num_steps: int) -> None:
    lost = int((~torch.isfinite(end).all(-1)).sum())
    if lost:
        raise ValueError(
            f"{lost} of {end[..., 0].numel()} geodesics left the reals within unit time. {_advice(num_steps)}"
        )


def _advice(num_steps: int) -> str:
    return (
        f"Shorten `v` ({num_steps} steps were taken), or check that the metric is complete and smooth where they pass."
    )
