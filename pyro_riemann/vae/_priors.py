"""Priors of the latent code, each a module that a VAE asks for its distribution."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_riemann._checks import check_finite
from pyro_riemann._formulas.likelihoods import heat_kernel_start
from pyro_riemann.distributions import RiemannianHeatKernel, RiemannianUniform, VampPrior
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.vae._interface import EncoderProtocol


class Prior(nn.Module):
    """A prior over latent codes.

    A prior of your own is a subclass that sets :attr:`riemannian` and implements
    :meth:`distribution`; its ``nn.Parameter`` entries are learned in phase 2 of the training.

    Attributes:
        riemannian: true if the distribution needs the latent metric. Such a prior is used in phase 2
            only: in phase 1, while there is no geometry yet, a standard normal stands in for it.

    Example:
        >>> class Cauchy(Prior):
        ...     riemannian = False
        ...     def distribution(self, metric, encoder):
        ...         return pyro.distributions.Cauchy(torch.zeros(2), 1.0).to_event(1)
        >>> Cauchy().distribution(None, None).event_shape
        torch.Size([2])
    """

    riemannian: bool = False

    def distribution(self, metric: RiemannianMetric | None, encoder: EncoderProtocol) -> dist.TorchDistribution:
        """The prior, batch shape ``()`` and event shape ``(d,)``, a density with respect to dz.

        Args:
            metric: the latent metric; None if the prior is not Riemannian.
            encoder: the encoder, whose posteriors a VampPrior mixes.

        Raises:
            ValueError: if the prior is Riemannian and there is no metric.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `distribution(metric, encoder)`.")

    def initialize(self, metric: RiemannianMetric | None, codes: Tensor) -> None:
        """Set starting values from encoded training data; called once, at the start of phase 2.

        Args:
            metric: the latent metric; None if the prior is not Riemannian.
            codes: encoded training data, ``(n, d)``.
        """


class NormalPrior(Prior):
    """Standard normal prior, nothing to learn.

    Args:
        latent_dim: latent dimension d.

    Source: Kingma & Welling (2014), *Auto-encoding variational Bayes*, section 3.

    Example:
        >>> NormalPrior(2).distribution(None, None).log_prob(torch.zeros(2)).item() # doctest: +ELLIPSIS
        -1.8378...
    """

    zero: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(latent_dim))

    def distribution(self, metric: RiemannianMetric | None, encoder: EncoderProtocol) -> dist.TorchDistribution:
        return dist.Normal(self.zero, torch.ones_like(self.zero)).to_event(1)


class VampMixturePrior(Prior):
    """Mixture of the posteriors at learned pseudo-inputs.

    Args:
        pseudo_inputs: starting values ``(k, D)``, for instance k training data.

    Raises:
        ValueError: if they have another shape, or are not finite.

    Source: Tomczak & Welling (2018), *VAE with a VampPrior*, eq. 9.

    Example:
        >>> from pyro_riemann.vae import Encoder
        >>> prior = VampMixturePrior(torch.rand(10, 4)).distribution(None, Encoder(4, 2))
        >>> prior.sample((3,)).shape
        torch.Size([3, 2])
    """

    def __init__(self, pseudo_inputs: Tensor) -> None:
        super().__init__()
        if pseudo_inputs.dim() != 2:
            raise ValueError(f"`pseudo_inputs` must have shape (k, D), got {tuple(pseudo_inputs.shape)}.")
        self.pseudo_inputs = nn.Parameter(check_finite("pseudo_inputs", pseudo_inputs).clone())

    def distribution(self, metric: RiemannianMetric | None, encoder: EncoderProtocol) -> dist.TorchDistribution:
        loc, scale = encoder(self.pseudo_inputs)
        components = dist.Normal(loc, scale.expand_as(loc)).to_event(1)
        return VampPrior(components)


class HeatKernelPrior(Prior):
    """Brownian-motion prior with learned centre and time (K20, section 3).

    Args:
        latent_dim: latent dimension d.
        correction: terms of the short-time density, see :class:`~pyro_riemann.distributions.RiemannianHeatKernel`.

    Example:
        >>> prior = HeatKernelPrior(latent_dim=2).distribution(EuclideanMetric(2), encoder=None)
        >>> prior.log_prob(torch.zeros(2)).exp()  # 1 / (2 pi)
        tensor(0.1592, grad_fn=<ExpBackward0>)
    """

    riemannian = True

    def __init__(self, latent_dim: int, correction: str = "none") -> None:
        super().__init__()
        self.correction = correction
        self.loc = nn.Parameter(torch.zeros(latent_dim))
        self.log_time = nn.Parameter(torch.tensor(0.0))

    @property
    def time(self) -> Tensor:
        """Learned diffusion time, a scalar: a squared length in the metric, the variance where that is the identity."""
        return self.log_time.exp()

    def distribution(self, metric: RiemannianMetric | None, encoder: EncoderProtocol) -> dist.TorchDistribution:
        return RiemannianHeatKernel(self.loc, self.time, assert_metric(metric), correction=self.correction)

    @torch.no_grad()
    def initialize(self, metric: RiemannianMetric | None, codes: Tensor, candidates: int = 8, sample: int = 64) -> None:
        """Put the centre on a code with small mean squared distance to the others, and the time to that over d.

        Args:
            metric: the latent metric.
            codes: encoded training data, ``(n, d)``.
            candidates: how many codes in the middle are tried as the centre.
            sample: how many codes stand for all.

        Raises:
            ValueError: if there is no metric.
        """
        loc, time = heat_kernel_start(assert_metric(metric).squared_dist, codes, candidates, sample)
        self.loc.copy_(loc)
        self.log_time.fill_(math.log(float(time)))


class UniformPrior(Prior):
    """Uniform prior with respect to the Riemannian volume on a box.

    Args:
        low: lower corner ``(d,)``.
        high: upper corner ``(d,)``.
        margin: :meth:`initialize` sets the box to that of the codes, enlarged by this share on each side.

    Source: C22, section 4.4.

    Example:
        >>> prior = UniformPrior(-torch.ones(2), torch.ones(2)).distribution(EuclideanMetric(2), encoder=None)
        >>> prior.log_prob(torch.zeros(2)).exp()
        tensor(0.2500)
    """

    riemannian = True
    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor, margin: float = 0.25) -> None:
        super().__init__()
        self.margin = margin
        self.register_buffer("low", low.clone())
        self.register_buffer("high", high.clone())

    def distribution(self, metric: RiemannianMetric | None, encoder: EncoderProtocol) -> dist.TorchDistribution:
        return RiemannianUniform(assert_metric(metric), self.low, self.high)

    @torch.no_grad()
    def initialize(self, metric: RiemannianMetric | None, codes: Tensor) -> None:
        low, high = codes.amin(0), codes.amax(0)
        self.low.copy_(low - self.margin * (high - low))
        self.high.copy_(high + self.margin * (high - low))


def assert_metric(metric: RiemannianMetric | None) -> RiemannianMetric:
    """The metric; raise if there is none."""
    if metric is None:
        raise ValueError("this prior needs a metric; give the VAE `metric=`.")
    return metric
