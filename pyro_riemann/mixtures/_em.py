"""A few heat kernels with centres and times of their own, by expectation maximisation."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann import _linalg
from pyro_riemann._checks import check_finite, check_point
from pyro_riemann._formulas.mixtures import maximise
from pyro_riemann._modes import full_precision
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.mixtures._mixture import ROWS, HeatKernelMixture


class MixtureFit(NamedTuple):
    """A mixture and how it came about.

    Attributes:
        mixture: the fitted law, ``num_components`` kernels of one time each, and the background.
        log_likelihood: mean log density of the points with respect to dM, in nats, ``(num_steps + 1,)``: before each
            step and at the end, fewer where it stopped early; it never falls.

    Example:
        >>> from pyro_riemann import Sphere
        >>> fit = fit_mixture(0.3 * torch.randn(200, 2), Sphere(2), 3, num_steps=5)
        >>> bool((fit.log_likelihood.diff() >= 0).all())
        True
    """

    mixture: HeatKernelMixture
    log_likelihood: Tensor


@full_precision
def fit_mixture(
    points: Tensor,
    metric: RiemannianMetric,
    num_components: int,
    *,
    min_time: float = 1e-6,
    background: float | None = None,
    num_steps: int = 50,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> MixtureFit:
    r"""Mixture of exact heat kernels with centres, times and weights of maximum likelihood.

    Expectation: responsibilities :math:`r_{ij}` of kernel j for point i. Maximisation, with gradients of the kernel
    and sums weighed by :math:`r_{ij} / \sum_i r_{ij}`,

    .. math:: \mu_j \leftarrow \exp_{\mu_j}\!\Big(t_j \sum_i \nabla_{\mu} \log p_{t_j}(\mu_j, x_i)\Big), \qquad
        t_j \leftarrow t_j \Big(1 + \tfrac2d \sum_i \partial_{\log t} \log p_{t_j}(\mu_j, x_i)\Big) .

    In flat space these are the weighted mean and variance. On the sphere and the flat torus the step of the centre
    cannot lower the likelihood: :math:`-\log p_t` has a Hessian of at most :math:`1 / t` there (Hamilton's matrix
    Harnack estimate). A step is halved until the likelihood does not fall. The first centres are points, drawn far
    apart from each other (k-means++); all first times are the mean squared distance to the nearest centre over d.

    Args:
        points: points of the chart, ``(n, d)``.
        metric: a metric that knows its exact heat kernel, see :class:`HeatKernelMixture`.
        num_components: number of kernels.
        min_time: no time falls below this variance; without it the likelihood has no maximum.
        background: time of one more kernel that stays at the first point and only changes its weight.
        num_steps: most steps.
        tolerance: stop where a step gains less in the mean log likelihood.
        seed: of the first centres; the global generator is left alone.

    Returns:
        The mixture and the mean log likelihood of every step.

    Raises:
        TypeError, ValueError: naming the argument at fault.

    Source: Dempster, Laird & Rubin (1977), *Maximum likelihood from incomplete data via the EM algorithm*; Hamilton
    (1993), *A matrix Harnack estimate for the heat equation*; Arthur & Vassilvitskii (2007), *k-means++*.

    Example:
        >>> from pyro_riemann import Sphere
        >>> points = torch.cat([0.1 * torch.randn(50, 2), 0.1 * torch.randn(50, 2) + 1])
        >>> fit_mixture(points, Sphere(2), 2).mixture.loc.shape
        torch.Size([2, 2])
    """
    check_finite("points", check_point("points", points, metric.dim))
    if points.dim() != 2 or not 1 <= num_components <= len(points):
        raise ValueError(
            f"`points` must have shape (n, {metric.dim}) with n at least `num_components`, got {tuple(points.shape)} "
            f"and {num_components}."
        )
    if min_time <= 0:
        raise ValueError(f"`min_time` must be positive, got {min_time}.")
    law = _start(points.detach(), metric, num_components, min_time, background, seed)
    law, history, _ = maximise(
        law,
        partial(_expect, points),
        partial(_move, min_time, background is not None),
        num_steps=num_steps,
        tolerance=tolerance,
    )
    return MixtureFit(law, torch.stack(history))


class _Step(NamedTuple):
    """Of each kernel: its share of the points, and its step in the tangent space and, relative, in time."""

    share: Tensor
    velocity: Tensor
    log_time: Tensor


def _expect(points: Tensor, law: HeatKernelMixture) -> tuple[Tensor, _Step]:
    """Mean log likelihood, and the step that the responsibilities suggest."""
    loc, log_time = law.loc.clone().requires_grad_(), law.time.log().requires_grad_()
    total, share = points.new_zeros(()), torch.zeros_like(law.logits)
    slopes = [torch.zeros_like(loc), torch.zeros_like(log_time)]
    for part in points.split(ROWS):
        with torch.enable_grad():
            moving = HeatKernelMixture(loc, log_time.exp(), law.logits, law.metric, cutoff=law.cutoff)
            ((_, point, centre, term),) = moving.terms(part)
            joint = term.detach() + law.log_weights[centre, 0]
            top = torch.full_like(part[:, 0], -torch.inf).scatter_reduce(0, point, joint, "amax")
            density = top + torch.zeros_like(top).index_add(0, point, (joint - top[point]).exp()).log()
            responsibility = (joint - density[point]).exp()
            new = torch.autograd.grad((responsibility * term).sum(), [loc, log_time])
        total = total + density.sum()
        share = share.index_add(0, centre, responsibility[:, None])
        slopes = [old + slope for old, slope in zip(slopes, new, strict=True)]
    size = share.clamp(min=torch.finfo(share.dtype).tiny)
    gradient = _linalg.solve(law.metric.metric(law.loc), slopes[0])
    change = 2 / law.metric.dim * slopes[1] / size
    return total / len(points), _Step(share / len(points), law.time * gradient / size, change)


def _move(min_time: float, background: bool, law: HeatKernelMixture, step: _Step, length: float) -> HeatKernelMixture:
    """The law after a step; the last kernel keeps place and time where it is the background."""
    loc = law.metric.expmap(law.loc, length * step.velocity)
    time = law.time * (1 + length * step.log_time).clamp(0.1, 10.0)
    time = time.clamp(min=min_time)
    if background:
        loc, time = torch.cat([loc[:-1], law.loc[-1:]]), torch.cat([time[:-1], law.time[-1:]])
    return HeatKernelMixture(loc, time, step.share.log(), law.metric, cutoff=law.cutoff)


def _start(
    points: Tensor, metric: RiemannianMetric, count: int, min_time: float, background: float | None, seed: int
) -> HeatKernelMixture:
    """Centres drawn among the points with probability proportional to the squared distance to those drawn before."""
    generator = torch.Generator("cpu").manual_seed(seed)
    first = int(torch.randint(len(points), (1,), generator=generator, device="cpu"))
    chosen, squared = [first], metric.squared_dist(points, points[first])
    for _ in range(count - 1):
        # where all distances are 0 the remaining centres are any points
        weights = squared.cpu() if float(squared.sum()) > 0 else torch.ones(len(points), device="cpu")
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
        squared = torch.minimum(squared, metric.squared_dist(points, points[chosen[-1]]))
    loc = points[chosen]
    time = (squared.mean() / metric.dim).clamp(min=min_time).expand(count, 1)
    logits = points.new_zeros(count, 1)
    if background is not None:
        loc, time = torch.cat([loc, points[:1]]), torch.cat([time, time.new_full((1, 1), background)])
        logits = torch.cat([logits, logits[:1]])
    return HeatKernelMixture(loc, time, logits, metric)
