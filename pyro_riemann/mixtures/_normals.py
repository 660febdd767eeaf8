"""Mixtures of Riemannian or wrapped normals on any metric, by expectation maximisation."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann import _linalg
from pyro_riemann._checks import check_finite, check_one_of, check_point
from pyro_riemann._formulas.mixtures import maximise
from pyro_riemann._modes import full_precision, full_precision_methods
from pyro_riemann.distributions import RiemannianNormal, RiemannianWrappedNormal, VampPrior
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.statistics import kmeans

FAMILIES = ("wrapped", "riemannian")


@full_precision_methods
class RiemannianMixture(VampPrior):
    r"""Mixture :math:`p(z) = \sum_k w_k\,p_k(z)` of normal laws on a manifold, an ordinary Pyro distribution.

    The components are one :class:`pyro_riemann.RiemannianNormal` or :class:`pyro_riemann.RiemannianWrappedNormal` of
    batch shape ``(*batch, K)``; :func:`fit_normals` fits them. Densities are with respect to dz.

    Args:
        components: normal laws, batch shape ``(*batch, K)``.
        logits: unnormalised log weights, ``(K,)`` or ``(*batch, K)``; equal weights if None.
        validate_args: check arguments and values; Pyro's own setting if None.

    Raises:
        TypeError, ValueError: if ``components`` has no such shape or ``logits`` does not match it.

    Source: Arvanitidis, Hansen & Hauberg (2016), *A locally adaptive normal distribution*, section 4.

    Example:
        >>> from pyro_riemann import RiemannianWrappedNormal, Sphere
        >>> law = RiemannianMixture(RiemannianWrappedNormal(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), 0.1, Sphere(2)))
        >>> law.responsibilities(torch.tensor([0.5, 3.0])).shape, law.sample((5,)).shape
        (torch.Size([2]), torch.Size([5, 2]))
    """

    components: RiemannianNormal | RiemannianWrappedNormal

    def responsibilities(self, value: Tensor) -> Tensor:
        """Probability that ``value (*batch, d)`` came from each component, ``(*batch, K)``."""
        return (self.log_weights + self.components.log_prob(value.unsqueeze(-2))).softmax(-1)


class NormalsFit(NamedTuple):
    """A mixture of normals and how it came about.

    Attributes:
        mixture: the fitted law.
        log_likelihood: mean log density of the points with respect to dM, in nats, ``(num_steps + 1,)``: before each
            step and at the end, fewer where it stopped early; it never falls.
        converged: whether the last step gained less than the tolerance.

    Example:
        >>> from pyro_riemann import Sphere
        >>> fit = fit_normals(0.3 * torch.randn(100, 2), Sphere(2), 2, num_steps=5)
        >>> bool((fit.log_likelihood.diff() >= 0).all())
        True
    """

    mixture: RiemannianMixture
    log_likelihood: Tensor
    converged: bool


@full_precision
def fit_normals(
    points: Tensor,
    metric: RiemannianMetric,
    num_components: int,
    *,
    family: str = "wrapped",
    min_variance: float = 1e-6,
    num_steps: int = 100,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> NormalsFit:
    r"""Mixture of normals with centres, spreads and weights of maximum likelihood, on any metric.

    ``"wrapped"``: :class:`pyro_riemann.RiemannianWrappedNormal` with a covariance each, exactly normalised;
    ``"riemannian"``: :class:`pyro_riemann.RiemannianNormal` with a scale each. In flat space the first is the Gaussian
    mixture with full covariances, the second that with spherical ones. With
    :class:`pyro_riemann.metrics.LocalMetric` it is the locally adaptive normal distribution.

    Expectation: responsibilities :math:`r_{ik}`. Maximisation, sums weighed by :math:`r_{ik} / \sum_i r_{ik}`:

    .. math:: \mu_k \leftarrow \exp_{\mu_k}\!\Big(\Sigma_k \sum_i \nabla_\mu \log p_k(x_i)\Big), \qquad
        \Sigma_k \leftarrow \sum_i \log_{\mu_k}(x_i) \log_{\mu_k}(x_i)^\top,

    and :math:`\sigma_k^2 \leftarrow \sigma_k^2 (1 + \tfrac2d \sum_i \partial_{\log \sigma^2} \log p_k(x_i))` for the
    scales. A step is halved until the likelihood does not fall. The start is :func:`pyro_riemann.statistics.kmeans`.

    Each step takes the logarithms of all points at all centres: tabulate a metric without closed forms first.

    Args:
        points: ``(n, d)``.
        metric: any metric.
        num_components: number K of components.
        family: ``"wrapped"`` or ``"riemannian"``.
        min_variance: added to every variance, in squared lengths; without it the likelihood has no maximum.
        num_steps: most steps.
        tolerance: stop where a step gains less in the mean log likelihood.
        seed: of the start; the global generator is left alone.

    Returns:
        The mixture, the mean log likelihood of every step, and whether it converged.

    Raises:
        TypeError, ValueError: naming the argument at fault.

    Source: Dempster, Laird & Rubin (1977), *Maximum likelihood from incomplete data via the EM algorithm*; Arvanitidis,
    Hansen & Hauberg (2016), *A locally adaptive normal distribution*, section 4.

    Example:
        >>> from pyro_riemann import Hyperbolic
        >>> points = torch.cat([0.05 * torch.randn(60, 2) + 0.3, 0.05 * torch.randn(60, 2) - 0.3])
        >>> fit_normals(points, Hyperbolic(2), 2).mixture.components.loc.shape
        torch.Size([2, 2])
    """
    check_one_of("family", family, FAMILIES)
    check_finite("points", check_point("points", points, metric.dim, metric))
    if points.dim() != 2 or not 1 <= num_components <= len(points):
        raise ValueError(
            f"`points` must have shape (n, {metric.dim}) with n at least `num_components`, got {tuple(points.shape)} "
            f"and {num_components}."
        )
    if min_variance <= 0:
        raise ValueError(f"`min_variance` must be positive, got {min_variance}.")
    points = points.detach()
    with torch.no_grad():
        start = kmeans(metric, points, num_components, seed=seed)
        share = (start.labels.unsqueeze(-1) == torch.arange(num_components, device=points.device)).to(points)
        law = _law(
            family, metric, start.centers, _spread(family, metric, points, start.centers, share, min_variance), share
        )
    law, history, converged = maximise(
        law,
        partial(_expect, points),
        partial(_move, family, points, min_variance),
        num_steps=num_steps,
        tolerance=tolerance,
    )
    return NormalsFit(law, torch.stack(history), converged)


class _Step(NamedTuple):
    """Of each point its responsibilities; of each component the slopes of its likelihood, for one of its points."""

    share: Tensor  # (n, K)
    by_loc: Tensor  # (K, d)
    by_log_variance: Tensor  # (K,), of scales


def _expect(points: Tensor, law: RiemannianMixture) -> tuple[Tensor, _Step]:
    """Mean log likelihood, and the step that the responsibilities suggest."""
    components = law.components
    loc = components.loc.detach().clone().requires_grad_()
    log_variance = torch.zeros_like(loc[:, 0])
    with torch.enable_grad():
        if isinstance(components, RiemannianNormal):
            log_variance = components.scale.square().log().requires_grad_()
            moving: RiemannianNormal | RiemannianWrappedNormal = RiemannianNormal(
                loc, (0.5 * log_variance).exp(), components.metric
            )
            leaves = [loc, log_variance]
        else:
            moving, leaves = (
                RiemannianWrappedNormal(loc, None, components.metric, scale_tril=components.scale_tril),
                [loc],
            )
        terms = moving.log_prob(points.unsqueeze(-2))
        joint = law.log_weights + terms.detach()
        share = joint.softmax(-1)
        slopes = torch.autograd.grad((share * terms).sum(), leaves)
    value = joint.logsumexp(-1) - 0.5 * components.metric.logdet(points)
    size = share.sum(0).clamp(min=torch.finfo(share.dtype).tiny)
    by_log_variance = slopes[1] / size if len(slopes) > 1 else log_variance
    return value.mean(), _Step(share, slopes[0] / size.unsqueeze(-1), by_log_variance)


@torch.no_grad()
def _move(
    family: str, points: Tensor, least: float, law: RiemannianMixture, step: _Step, length: float
) -> RiemannianMixture:
    """The law after a step."""
    old, metric = law.components, law.components.metric
    if isinstance(old, RiemannianWrappedNormal):
        velocity = (old.scale_tril @ old.scale_tril.mT @ step.by_loc.unsqueeze(-1)).squeeze(-1)
        loc = metric.expmap(old.loc, length * velocity)
        spread = _spread(family, metric, points, loc, step.share, least)
    else:
        variance = old.scale.square()
        velocity = variance.unsqueeze(-1) * _linalg.solve(metric.metric(old.loc), step.by_loc)
        loc = metric.expmap(old.loc, length * velocity)
        grown = variance * (1 + 2 / metric.dim * length * step.by_log_variance).clamp(0.1, 10.0)
        spread = grown.clamp(min=least).sqrt()
    return _law(family, metric, loc, spread, step.share)


def _law(family: str, metric: RiemannianMetric, loc: Tensor, spread: Tensor, share: Tensor) -> RiemannianMixture:
    logits = share.sum(0).clamp(min=torch.finfo(share.dtype).tiny).log()
    if family == "wrapped":
        return RiemannianMixture(RiemannianWrappedNormal(loc, None, metric, scale_tril=spread), logits)
    return RiemannianMixture(RiemannianNormal(loc, spread, metric), logits)


def _spread(family: str, metric: RiemannianMetric, points: Tensor, loc: Tensor, share: Tensor, least: float) -> Tensor:
    """Cholesky factors ``(K, d, d)`` of the covariances about ``loc``, or scales ``(K,)``."""
    weight = share / share.sum(0).clamp(min=torch.finfo(share.dtype).tiny)
    v = metric.logmap(*torch.broadcast_tensors(loc, points.unsqueeze(-2)))  # (n, K, d)
    if family == "wrapped":
        covariance = torch.einsum("nk,nki,nkj->kij", weight, v, v) + least * torch.linalg.inv(metric.metric(loc))
        return torch.linalg.cholesky(covariance)
    squared = metric.inner(loc, v, v)
    return ((weight * squared).sum(0) / metric.dim + least).sqrt()
