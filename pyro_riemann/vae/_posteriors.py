"""Families of the approximate posterior q(z | x), from the location and scale that the encoder gives."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_riemann.distributions import RiemannianWrappedNormal
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.vae._frozen_laws import PosteriorHeatKernel
from pyro_riemann.vae._priors import assert_metric


class Posterior(nn.Module):
    """A family of approximate posteriors.

    A family of your own is a subclass that sets :attr:`riemannian` and implements :meth:`distribution`; its
    ``nn.Parameter`` entries belong to the group ``"posterior"`` of :class:`TrainingConfig`.

    Attributes:
        riemannian: true if the distribution needs the latent metric. Such a family is used in phase 2 of the training
            only, with one scale per datum: in phase 1 a normal posterior stands in for it.

    Example:
        >>> class Laplace(Posterior):
        ...     riemannian = False
        ...     def distribution(self, loc, scale, metric):
        ...         return dist.Laplace(loc, scale.expand_as(loc)).to_event(1)
        >>> Laplace().distribution(torch.zeros(3, 2), torch.ones(3, 2), None).event_shape
        torch.Size([2])
    """

    riemannian: bool = False

    def distribution(self, loc: Tensor, scale: Tensor, metric: RiemannianMetric | None) -> dist.TorchDistribution:
        """q(z | x), batch shape ``(*batch)`` and event shape ``(d,)``, a density with respect to dz.

        Args:
            loc: from the encoder, ``(*batch, d)``.
            scale: likewise, ``(*batch, d)`` or ``(*batch, 1)``.
            metric: the latent metric; None if the family is not Riemannian.

        Raises:
            ValueError: if the family is Riemannian and there is no metric.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `distribution(loc, scale, metric)`.")


class NormalPosterior(Posterior):
    """The normal N(loc, diag scale^2).

    Source: Kingma & Welling (2014), *Auto-encoding variational Bayes*, section 3.

    Example:
        >>> NormalPosterior().distribution(torch.zeros(2), torch.ones(1), None).log_prob(torch.zeros(2))
        tensor(-1.8379)
    """

    def distribution(self, loc: Tensor, scale: Tensor, metric: RiemannianMetric | None) -> dist.TorchDistribution:
        return dist.Normal(loc, scale.expand_as(loc)).to_event(1)


class _TimedPosterior(Posterior):
    r"""A family with one time per datum, :math:`t = s^2 \det G(loc)^{1/d}` times a learned factor, s the scale."""

    riemannian = True

    def __init__(self) -> None:
        super().__init__()
        self.log_time_factor = nn.Parameter(torch.tensor(0.0))

    def time(self, loc: Tensor, scale: Tensor, metric: RiemannianMetric) -> Tensor:
        r"""Time of each datum, ``(*batch)``, a squared length in the metric.

        The volume of the posterior in the chart is that of the normal with the same scale: phase 2 of the training
        starts where phase 1 ended, although the units have changed.

        Args:
            loc: ``(*batch, d)``.
            scale: ``(*batch, 1)``.
            metric: the latent metric.
        """
        return scale[..., 0].square() * (metric.logdet(loc) / metric.dim + self.log_time_factor).exp()

    def law(self, loc: Tensor, time: Tensor, metric: RiemannianMetric) -> dist.TorchDistribution:
        """The member of the family with this location ``(*batch, d)`` and time ``(*batch)``.

        Args:
            loc: ``(*batch, d)``.
            time: ``(*batch)``, a squared length in the metric.
            metric: the latent metric.
        """
        raise NotImplementedError

    def distribution(self, loc: Tensor, scale: Tensor, metric: RiemannianMetric | None) -> dist.TorchDistribution:
        metric = assert_metric(metric)
        return self.law(loc, self.time(loc, scale, metric), metric)


class WrappedNormalPosterior(_TimedPosterior):
    """The wrapped normal about loc: an exact density, the natural choice for an R-VAE.

    Source: Mathieu et al. (2019), *Continuous hierarchical representations with Poincare variational auto-encoders*.

    Example:
        >>> family = WrappedNormalPosterior()
        >>> family.distribution(torch.zeros(3, 2), torch.ones(3, 1), EuclideanMetric(2)).rsample().shape
        torch.Size([3, 2])
    """

    def law(self, loc: Tensor, time: Tensor, metric: RiemannianMetric) -> dist.TorchDistribution:
        return RiemannianWrappedNormal(loc, time, metric)


class HeatKernelPosterior(_TimedPosterior):
    """Brownian motion from loc (K20, section 3); its density is the short-time approximation of the law it draws from.

    Args:
        num_steps: Brownian steps of a draw.

    Example:
        >>> family = HeatKernelPosterior(num_steps=2)
        >>> family.distribution(torch.zeros(3, 2), torch.ones(3, 1), EuclideanMetric(2)).rsample().shape
        torch.Size([3, 2])
    """

    def __init__(self, num_steps: int = 4) -> None:
        super().__init__()
        self.num_steps = num_steps

    def law(self, loc: Tensor, time: Tensor, metric: RiemannianMetric) -> dist.TorchDistribution:
        return PosteriorHeatKernel(loc, time, metric, num_steps=self.num_steps)
