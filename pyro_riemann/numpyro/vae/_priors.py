"""Priors of the latent code, each a pytree that a VAE asks for its distribution."""

from __future__ import annotations

from typing import ClassVar, Self

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from pyro_riemann._formulas.likelihoods import heat_kernel_start
from pyro_riemann.numpyro._checks import check_array, check_finite
from pyro_riemann.numpyro._pytree import Pytree, replaced
from pyro_riemann.numpyro.distributions import RiemannianHeatKernel, VampPrior
from pyro_riemann.numpyro.metrics import RiemannianMetric
from pyro_riemann.numpyro.vae._interface import EncoderProtocol


class Prior(Pytree):
    """A prior over latent codes.

    A prior of your own is a subclass that sets :attr:`riemannian` and implements :meth:`distribution`; arrays whose
    names are in its ``pytree_data_fields`` are learned.

    Attributes:
        riemannian: true if the distribution needs the latent metric. Such a prior is used in phase 2
            only: in phase 1, while there is no geometry yet, a standard normal stands in for it.

    Example:
        >>> class Cauchy(Prior):
        ...     def distribution(self, metric, encoder):
        ...         return dist.Cauchy(jnp.zeros(2), 1.0).to_event(1)
        >>> Cauchy().distribution(None, None).event_shape
        (2,)
    """

    riemannian: ClassVar[bool] = False

    def distribution(self, metric: RiemannianMetric | None, encoder: EncoderProtocol) -> dist.Distribution:
        """The prior, batch shape ``()`` and event shape ``(d,)``, a density with respect to dz.

        Args:
            metric: the latent metric; None if the prior is not Riemannian.
            encoder: the encoder, whose posteriors a VampPrior mixes.

        Raises:
            ValueError: if the prior is Riemannian and there is no metric.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `distribution(metric, encoder)`.")

    def initialize(self, metric: RiemannianMetric | None, codes: Array) -> Self:
        """The prior with its starting values, at the start of phase 2; by default itself.

        Args:
            metric: the latent metric; None if the prior is not Riemannian.
            codes: encoded training data, ``(n, d)``.
        """
        return self


class NormalPrior(Prior):
    """Standard normal prior, nothing to learn.

    Args:
        latent_dim: latent dimension d.

    Source: Kingma & Welling (2014), *Auto-encoding variational Bayes*, section 3.

    Example:
        >>> NormalPrior(2).distribution(None, None).log_prob(jnp.zeros(2)).round(3).item() # doctest: +ELLIPSIS
        -1.83...
    """

    def __init__(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim

    def distribution(self, metric: RiemannianMetric | None, encoder: EncoderProtocol) -> dist.Distribution:
        return dist.Normal(jnp.zeros(self.latent_dim), 1.0).to_event(1)


class VampMixturePrior(Prior):
    """Mixture of the posteriors at learned pseudo-inputs.

    Args:
        pseudo_inputs: starting values ``(k, D)``, for instance k training data.

    Raises:
        TypeError, ValueError: if they are no floating array of that shape, or not finite.

    Source: Tomczak & Welling (2018), *VAE with a VampPrior*, eq. 9.

    Example:
        >>> from pyro_riemann.numpyro.vae import Encoder
        >>> prior = VampMixturePrior(jnp.zeros((10, 4))).distribution(None, Encoder(4, 2, key=jax.random.key(0)))
        >>> prior.sample(jax.random.key(1), (3,)).shape
        (3, 2)
    """

    pytree_data_fields = ("pseudo_inputs",)

    def __init__(self, pseudo_inputs: Array) -> None:
        if pseudo_inputs.ndim != 2:
            raise ValueError(f"`pseudo_inputs` must have shape (k, D), got {pseudo_inputs.shape}.")
        self.pseudo_inputs = check_finite("pseudo_inputs", check_array("pseudo_inputs", pseudo_inputs))

    def distribution(self, metric: RiemannianMetric | None, encoder: EncoderProtocol) -> dist.Distribution:
        loc, scale = encoder(self.pseudo_inputs)
        return VampPrior(dist.Normal(loc, scale).to_event(1))


class HeatKernelPrior(Prior):
    """Brownian-motion prior with learned centre and time (K20, section 3).

    Args:
        latent_dim: latent dimension d.
        correction: terms of the short-time density, see
            :class:`~pyro_riemann.numpyro.distributions.RiemannianHeatKernel`.

    Example:
        >>> prior = HeatKernelPrior(latent_dim=2).distribution(EuclideanMetric(2), encoder=None)
        >>> jnp.exp(prior.log_prob(jnp.zeros(2))).round(4).item() # doctest: +ELLIPSIS
        0.159...
    """

    riemannian = True
    pytree_data_fields = ("loc", "log_time")

    def __init__(self, latent_dim: int, correction: str = "none") -> None:
        self.correction = correction
        self.loc, self.log_time = jnp.zeros(latent_dim), jnp.zeros(())

    @property
    def time(self) -> Array:
        """Learned diffusion time, a scalar: a squared length in the metric, the variance where that is the identity."""
        return jnp.exp(self.log_time)

    def distribution(self, metric: RiemannianMetric | None, encoder: EncoderProtocol) -> dist.Distribution:
        return RiemannianHeatKernel(self.loc, self.time, _given(metric), correction=self.correction)

    def initialize(self, metric: RiemannianMetric | None, codes: Array, candidates: int = 8, sample: int = 64) -> Self:
        """The prior at a code with small mean squared distance to the others, and the time that distance over d.

        Args:
            metric: the latent metric.
            codes: encoded training data, ``(n, d)``.
            candidates: how many codes in the middle are tried as the centre.
            sample: how many codes stand for all.

        Raises:
            ValueError: if there is no metric.
        """
        loc, time = heat_kernel_start(_given(metric).squared_dist, codes, candidates, sample)
        dtype = self.loc.dtype
        return replaced(self, loc=loc.astype(dtype), log_time=jnp.log(time).astype(dtype))


def _given(metric: RiemannianMetric | None) -> RiemannianMetric:
    if metric is None:
        raise ValueError("this prior needs a metric; give `metric=`.")
    return metric
