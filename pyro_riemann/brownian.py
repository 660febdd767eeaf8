"""Brownian motion on a Riemannian manifold, simulated in a chart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_riemann._checks import check_finite, check_one_of, check_point, check_positive
from pyro_riemann.geodesics import expmap
from pyro_riemann.metrics import RiemannianMetric

__all__ = ["METHODS", "brownian_motion", "default_method"]

METHODS = ("retraction", "second_order", "euler", "geodesic", "driftless")
"""What :func:`brownian_motion` takes as its ``method``."""

_ADVICE = "Raise `num_steps`, lower `time`, or regularise the metric (`jitter`, `regularization`)."


def brownian_motion(
    metric: RiemannianMetric,
    start: Tensor,
    time: float | Tensor,
    num_steps: int,
    method: str | None = None,
    return_path: bool = False,
    noise: Tensor | None = None,
) -> Tensor:
    r"""Simulate Brownian motion, whose generator is half the Laplace-Beltrami operator.

    In the chart it solves :math:`dz = b(z)\,dt + G^{-1/2} dW` with
    :math:`b^i = -\tfrac12 g^{jk} \Gamma^i_{jk}`. Every method draws :math:`v \sim N(0, h\,G(z)^{-1})`,
    :math:`h` the time of a step, and then moves to

    ==================  =====================================================================================
    ``"retraction"``    :math:`z + v - G^{-1} J^\top (\tfrac12 (f(z + v) + f(z - v)) - f(z))`, pullbacks only
    ``"second_order"``  :math:`z + v - \tfrac12 \Gamma(v, v)`
    ``"euler"``         :math:`z + v + h\,b(z)` (Euler-Maruyama)
    ``"geodesic"``      the exponential map of v
    ``"driftless"``     :math:`z + v`: Kalatzis et al. (2020), eq. 3.15. Its law depends on the chart and is wrong
                        in the limit of many steps; for reproduction only.
    ==================  =====================================================================================

    A correction longer than the step itself, in the norm of G, is shortened to that length.
    That leaves the limit unchanged and keeps paths from being thrown off a steep wall of the metric.

    Args:
        metric: metric of dimension d.
        start: initial points, ``(*batch, d)``.
        time: positive duration, the variance in flat space; a number or a tensor that broadcasts with ``batch``.
        num_steps: number of steps of equal duration.
        method: one of the above. Default for pullbacks: ``"second_order"`` if the immersion propagates second
            derivatives cheaply (:meth:`PullbackMetric.jets`), else ``"retraction"``. For other metrics:
            ``"geodesic"`` if the exponential map is closed, ``"euler"`` if the drift is, else ``"second_order"``.
        return_path: return every point visited instead of the last.
        noise: standard normal draws to use, ``(num_steps, *batch, d)``, or ``(num_steps, *batch, D)`` with D the
            number of outputs of a pullback's immersion: noise in the ambient space, which drives
            the same motion in every chart. Default: drawn from torch's global generator.

    Returns:
        End points ``(*batch, d)``, or the path ``(num_steps + 1, *batch, d)``. Differentiable in ``start``,
        ``time`` and the parameters of the metric.

    Raises:
        ValueError: if an argument has the wrong shape or range, the method does not suit the metric, G is not
            positive definite on the way, or a path leaves the reals.
        TypeError: if ``start`` or ``noise`` is not a floating tensor.

    Source: Hsu (2002), *Stochastic Analysis on Manifolds*, section 3.3; Kalatzis et al. (2020), eq. 3.15.

    Example:
        >>> from pyro_riemann import EuclideanMetric, brownian_motion
        >>> end = brownian_motion(EuclideanMetric(2), torch.zeros(5000, 2), time=0.5, num_steps=4)
        >>> bool((end.var(0) - 0.5).abs().max() < 0.05)
        True
    """
    if num_steps < 1:
        raise ValueError(f"`num_steps` must be at least 1, got {num_steps}.")
    method = default_method(metric) if method is None else check_one_of("method", method, METHODS)
    if method == "retraction" and not hasattr(metric, "embed"):
        raise ValueError(
            f"method 'retraction' needs an immersion, which {type(metric).__name__} has not; use 'second_order'."
        )
    check_finite("start", check_point("start", start, metric.dim))
    duration = check_positive("time", torch.as_tensor(time, dtype=start.dtype, device=start.device))
    z, scale = _broadcast(start, (duration / num_steps).sqrt())
    if noise is not None:
        _check_noise(metric, noise, num_steps, z)

    path = [z]
    for index in range(num_steps):
        try:
            z = _step(metric, z, scale, method, None if noise is None else noise[index])
        except torch.linalg.LinAlgError as error:
            raise ValueError(f"The metric became singular in step {index + 1} of {num_steps}. {_ADVICE}") from error
        if not torch.jit.is_tracing() and not bool(torch.isfinite(z).all()):
            lost = int((~torch.isfinite(z).all(-1)).sum())
            raise ValueError(
                f"{lost} of {z[..., 0].numel()} Brownian paths left the reals in step {index + 1} of {num_steps}. "
                f"{_ADVICE}"
            )
        if return_path:
            path.append(z)
    return torch.stack(path) if return_path else z


def _broadcast(start: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    try:
        start, scale = torch.broadcast_tensors(start, scale.unsqueeze(-1))
    except RuntimeError as error:
        raise ValueError(
            f"`time` of shape {tuple(scale.shape)} does not broadcast with the batch shape "
            f"{tuple(start.shape[:-1])} of `start`."
        ) from error
    return start, scale[..., :1]


def _check_noise(metric: RiemannianMetric, noise: Tensor, num_steps: int, z: Tensor) -> None:
    if torch.jit.is_tracing():
        return
    expected = (num_steps, *z.shape)
    if noise.shape[:-1] != expected[:-1]:
        raise ValueError(f"`noise` must have shape {expected}, got {tuple(noise.shape)}.")
    check_finite("noise", noise)
    if noise.shape[-1] == metric.dim:
        return
    embed: Any = getattr(metric, "embed", None)
    if embed is None:
        raise ValueError(f"`noise` has {noise.shape[-1]} entries a point: ambient noise needs an immersion.")
    if noise.shape[-1] != (size := embed(z).shape[-1]):
        raise ValueError(f"`noise` must have {metric.dim} or {size} entries a point, got {noise.shape[-1]}.")


def default_method(metric: RiemannianMetric) -> str:
    """The method that :func:`brownian_motion` uses for a metric unless told otherwise.

    Args:
        metric: any metric.

    Example:
        >>> from pyro_riemann.brownian import default_method
        >>> default_method(Sphere(2)), default_method(PullbackMetric(lambda z: z**3, 2))
        ('geodesic', 'retraction')
    """
    if getattr(metric, "embed", None) is not None:
        return "second_order" if getattr(metric, "has_jets", False) else "retraction"
    if _overrides(metric, "expmap"):
        return "geodesic"
    return "euler" if _overrides(metric, "drift") else "second_order"


def _overrides(metric: RiemannianMetric, name: str) -> bool:
    """True if a metric, and the one that it rewrites if there is one, has a method of its own."""
    base = getattr(metric, "base", None)
    own = getattr(type(metric), name) is not getattr(RiemannianMetric, name)
    return own and (not isinstance(base, RiemannianMetric) or _overrides(base, name))


def _step(metric: Any, z: Tensor, scale: Tensor, method: str, noise: Tensor | None) -> Tensor:
    """One step; ``scale`` is the standard deviation of the noise, ``(*batch, 1)``."""
    noise = torch.randn_like(z) if noise is None else noise
    ambient = noise.shape[-1] != metric.dim
    white = scale * noise
    force = None
    if ambient or method == "retraction":
        value, jacobian = metric.embed_jacobian(z)
        factor = _factor(jacobian.mT @ jacobian, z)
        if ambient:
            white = _lower(factor, _pull(jacobian, white))
    elif method == "second_order" and hasattr(metric, "metric_and_force"):
        tensor, force = metric.metric_and_force(z)
        factor = _factor(tensor, z)
    else:
        factor = metric.cholesky(z)

    v = _upper(factor, white)  # v ~ N(0, h G^-1), of norm |white| under G
    if method == "driftless":
        return z + v
    if method == "geodesic":
        # a step is short: two Runge-Kutta steps are more exact than the random walk itself
        return metric.expmap(z, v) if _overrides(metric, "expmap") else expmap(metric, z, v, num_steps=2)
    if method == "euler":
        bend = _raise(factor, -(scale**2) * metric.drift(z))
        # the drift does not shrink with v, so that it is held against the typical step
        return z + _upper(factor, white - _cap(bend, metric.dim * scale**2))
    if method == "retraction":
        both = metric.embed(torch.stack([z + v, z - v]))
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
