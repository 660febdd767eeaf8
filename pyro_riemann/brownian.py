"""Brownian motion on a Riemannian manifold, simulated in a chart."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from pyro_riemann import _work
from pyro_riemann._checks import check_finite, check_one_of, check_point, check_positive, holds
from pyro_riemann._formulas import walk_steps
from pyro_riemann._memo import remember
from pyro_riemann._memory import by_points
from pyro_riemann._modes import full_precision
from pyro_riemann._walk import overrides, step
from pyro_riemann._warn import warn
from pyro_riemann.manifolds import ProductMetric
from pyro_riemann.metrics import RiemannianMetric

__all__ = ["METHODS", "brownian_motion", "default_method"]

METHODS = ("retraction", "second_order", "euler", "geodesic", "driftless")
"""What :func:`brownian_motion` takes as its ``method``."""

_PILOTS = 128  # points from which the default number of steps is tried
_ADVICE = "Raise `num_steps`, lower `time`, or regularise the metric (`jitter`, `regularization`)."


@full_precision
def brownian_motion(
    metric: RiemannianMetric,
    start: Tensor,
    time: float | Tensor,
    num_steps: int | None = None,
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
    That leaves the limit unchanged and keeps paths from being thrown off a steep wall of the metric. The weak error of
    n steps falls as 1 / n; along geodesics of a metric whose scalar curvature R is known in closed form the variance of
    v is :math:`h (1 - h R / 6d)`, and where that is constant it falls as 1 / n^2.

    Args:
        metric: metric of dimension d.
        start: initial points, ``(*batch, d)``.
        time: positive duration, the variance in flat space; a number or a tensor that broadcasts with ``batch``.
        num_steps: number of steps of equal duration. Default: as many as keep the mean distance right within 1 %,
            16 to 512: by a closed form where the curvature is constant, else by a pilot of 256 paths from ``start``
            with noise of its own, which compares n steps with 4 n driven by the same noise, and is repeated only when
            the metric or ``start`` has changed. Where nothing can be tried (``torch.jit.trace``, ``torch.vmap``) it is
            64. The number of draws given as ``noise``, if any.
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

    Warns, with the number, if the default would need more than 512 steps, and if more than 5 % of the paths end where
    the metric is only its floor (:meth:`RiemannianMetric.on_floor`).

    Source: Hsu (2002), *Stochastic Analysis on Manifolds*, section 3.3; Kalatzis et al. (2020), eq. 3.15.

    Example:
        >>> from pyro_riemann import EuclideanMetric, brownian_motion
        >>> end = brownian_motion(EuclideanMetric(2), torch.zeros(5000, 2), time=0.5, num_steps=4)
        >>> bool((end.var(0) - 0.5).abs().max() < 0.05)
        True
    """
    if num_steps is not None and num_steps < 1:
        raise ValueError(f"`num_steps` must be at least 1, got {num_steps}.")
    method = default_method(metric) if method is None else check_one_of("method", method, METHODS)
    if method == "retraction" and metric.immersed() is None:
        raise ValueError(
            f"method 'retraction' needs an immersion, which {type(metric).__name__} has not; use 'second_order'."
        )
    check_finite("start", check_point("start", start, metric.dim))
    duration = check_positive("time", torch.as_tensor(time, dtype=start.dtype, device=start.device))
    z, duration = _broadcast(start, duration)
    if num_steps is None:
        num_steps = choose_steps(metric, z, duration, method) if noise is None else max(len(noise), 1)
    if noise is not None:
        _check_noise(metric, noise, num_steps, z)
    path = _walk(metric, z, (duration / num_steps).sqrt(), num_steps, method, noise, return_path)
    _check_floor(metric, path[-1])
    return torch.stack(path) if return_path else path[-1]


def _walk(
    metric: RiemannianMetric,
    z: Tensor,
    scale: Tensor,
    num_steps: int,
    method: str,
    noise: Tensor | None,
    return_path: bool = False,
    inside: Tensor | None = None,
) -> list[Tensor]:
    """The points visited, or the last of them alone; ``scale`` is the root of the time of a step, ``(*batch, 1)``.

    With a mask ``inside``, ``(*batch)``, no step leaves where the metric is known: paths that would stay where they are
    and are struck off it.
    """
    path = [z]
    for index in _work.turns("steps", range(num_steps)):
        before = z
        try:
            draws = torch.randn_like(z) if noise is None else noise[index]
            z = by_points(metric, partial(step, metric, method=method), (z, scale, draws), 0)
            if inside is not None and (known := metric.covers(z)) is not None:
                z = torch.where(known.unsqueeze(-1), z, before)
                inside &= known
        except torch.linalg.LinAlgError as error:
            raise ValueError(f"The metric became singular in step {index + 1} of {num_steps}. {_ADVICE}") from error
        if not holds(torch.isfinite(z)):
            lost = int((~torch.isfinite(z).all(-1)).sum())
            raise ValueError(
                f"{lost} of {z[..., 0].numel()} Brownian paths left the reals in step {index + 1} of {num_steps}. "
                f"{_ADVICE}"
            )
        path = [*path, z] if return_path else [z]
    return path


def _check_floor(metric: RiemannianMetric, end: Tensor) -> None:
    """Warn if many paths, of at most some thousand that are looked at, have left what the metric knows of."""
    if torch.jit.is_tracing() or end.numel() == 0:
        return
    points = end.detach().reshape(-1, metric.dim)
    on_floor = metric.on_floor(points[:: 1 + len(points) // 2000])
    if on_floor is None or holds(on_floor.double().mean() <= walk_steps.FLOOR_SHARE):
        return
    message = walk_steps.mostly_floor(on_floor.double().mean().item(), len(points), f"the {type(metric).__name__}")
    warn(message)


def _broadcast(start: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    try:
        start, time = torch.broadcast_tensors(start, time.unsqueeze(-1))
    except RuntimeError as error:
        raise ValueError(
            f"`time` of shape {tuple(time.shape)} does not broadcast with the batch shape "
            f"{tuple(start.shape[:-1])} of `start`."
        ) from error
    return start, time[..., :1]


def _check_noise(metric: RiemannianMetric, noise: Tensor, num_steps: int, z: Tensor) -> None:
    if torch.jit.is_tracing():
        return
    expected = (num_steps, *z.shape)
    if noise.shape[:-1] != expected[:-1]:
        raise ValueError(f"`noise` must have shape {expected}, got {tuple(noise.shape)}.")
    check_finite("noise", noise)
    if noise.shape[-1] == metric.dim:
        return
    surface = metric.immersed()
    if surface is None:
        raise ValueError(f"`noise` has {noise.shape[-1]} entries a point: ambient noise needs an immersion.")
    if noise.shape[-1] != (size := surface.embed(z).shape[-1]):
        raise ValueError(f"`noise` must have {metric.dim} or {size} entries a point, got {noise.shape[-1]}.")


# ---------------------------------------------------------------- how many steps


def choose_steps(metric: RiemannianMetric, start: Tensor, time: Tensor, method: str) -> int:
    """The default number of steps of :func:`brownian_motion`; start ``(*batch, d)``, time ``(*batch, 1)``."""
    try:
        longest = 0.0 if torch.jit.is_tracing() or time.numel() == 0 else float(time.detach().max())
    except RuntimeError:  # torch.vmap: no value can be read
        longest = 0.0
    if longest == 0:
        return walk_steps.UNKNOWN
    start, time = start.detach().reshape(-1, metric.dim), time.detach().reshape(-1, 1)
    if method == "geodesic" and isinstance(metric, ProductMetric):
        parts = zip(metric.factors, metric.split(start), strict=True)
        return max(choose_steps(factor, x, time, method) for factor, x in parts)
    if method == "geodesic" and metric.radial_law() is not None:
        curvature = metric.scalar_curvature(start)
        largest = float(curvature[curvature.abs().argmax()])
        needed, order = walk_steps.needed_on_space_form(metric.dim, largest, longest), 2
    else:
        rows = torch.linspace(0, len(start) - 1, _PILOTS, device="cpu").round().long().to(start.device)
        needed, order = _needed_by_pilot(metric, start[rows], time[rows], method), 1
    if needed > walk_steps.LEVELS[-1]:
        warn(walk_steps.too_few(needed, walk_steps.LEVELS[-1], order, longest))
    return walk_steps.level(needed)


@torch.no_grad()
def _needed_by_pilot(metric: RiemannianMetric, start: Tensor, time: Tensor, method: str) -> float:
    """Number of steps at which the mean distance from ``start (n, d)`` stops changing, to half the tolerance.

    A path and its mirror image from each point, with a generator of their own. Kept while the metric is unchanged at
    the ends of the finest walk.
    """
    count = len(start)

    def compute() -> tuple[float, Tensor]:
        z, duration = start.expand(2, -1, -1), time.expand(2, -1, -1)
        generator = torch.Generator(device="cpu").manual_seed(0)
        end = z
        for fine in walk_steps.PILOTS:
            half = torch.randn(fine, count, metric.dim, generator=generator, dtype=torch.float64, device="cpu")
            noise = torch.stack([half, -half], 1).to(start)
            draws = noise.unflatten(0, (-1, walk_steps.RATIO)).sum(1) / walk_steps.RATIO**0.5
            coarse, inside = len(draws), torch.ones_like(z[..., 0], dtype=torch.bool)
            try:
                scales = ((duration / len(w)).sqrt() for w in (draws, noise))
                walks = zip((draws, noise), scales, strict=True)
                ends = [_walk(metric, z, scale, len(w), method, w, inside=inside)[-1] for w, scale in walks]
            except ValueError:  # a path is lost
                needed = 4.0 * fine
            else:
                end = ends[1]
                far = [_extent(metric, z, duration, point) for point in ends]
                pair = inside.all(0)
                gap = ((far[1] - far[0]).mean(0) / far[1].mean())[pair]
                if len(gap) < 2:  # nearly all paths leave what the metric knows: no walk will stay there
                    return float(walk_steps.UNKNOWN), end.reshape(-1, metric.dim)
                needed = walk_steps.needed_by_gap(coarse, gap.mean().item(), gap.std().item() / len(gap) ** 0.5)
            if needed <= fine:
                break
        return needed, end.reshape(-1, metric.dim)

    return remember(metric, "steps", (method,), (start, time), compute)


def _extent(metric: RiemannianMetric, start: Tensor, time: Tensor, end: Tensor) -> Tensor:
    """How far from ``start``, ``(*batch)``: in the ambient space of an immersion, else in the chart, far out as log."""
    if (surface := metric.immersed()) is not None:
        return (surface.embed(end) - surface.embed(start)).norm(dim=-1)
    scale = 2 * (metric.dim * time.squeeze(-1)).sqrt()
    return scale * torch.asinh(metric.norm(start, end - start) / scale)


def default_method(metric: RiemannianMetric) -> str:
    """The method that :func:`brownian_motion` uses for a metric unless told otherwise.

    Args:
        metric: any metric.

    Example:
        >>> from pyro_riemann.brownian import default_method
        >>> default_method(Sphere(2)), default_method(PullbackMetric(lambda z: z**3, 2))
        ('geodesic', 'retraction')
    """
    if (surface := metric.immersed()) is not None:
        return "second_order" if surface.has_jets else "retraction"
    if overrides(metric, "expmap"):
        return "geodesic"
    return "euler" if overrides(metric, "drift") else "second_order"
