"""Laws of codes to draw images from: normal, a mixture fitted after training, the uniform law of a metric."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from pyro_riemann._checks import check_finite
from pyro_riemann._formulas import codes as formulas
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.sampling._front import sample_uniform
from pyro_riemann.sampling._result import SamplingResult


class LatentSampler(Protocol):
    """Anything that draws codes by torch's global generator; a Pyro distribution is not quite one, see ``sample``.

    Example:
        >>> class Origin:
        ...     def sample(self, num_samples):
        ...         return torch.zeros(num_samples, 2)
        >>> sampler: LatentSampler = Origin()
    """

    def sample(self, num_samples: int) -> Tensor:
        """Codes ``(num_samples, d)``."""
        ...


class NormalSampler:
    """The standard normal law.

    Args:
        latent_dim: latent dimension d.

    Source: Kingma & Welling (2014), *Auto-encoding variational Bayes*, section 3.

    Example:
        >>> NormalSampler(3).sample(5).shape
        torch.Size([5, 3])
    """

    def __init__(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim

    def sample(self, num_samples: int) -> Tensor:
        """Codes ``(num_samples, d)``."""
        return torch.randn(num_samples, self.latent_dim)


class GaussianMixtureSampler:
    """A mixture of Gaussians with full covariances, fitted to the codes of the training data by scikit-learn.

    Args:
        codes: ``(n, d)``.
        num_components: number of Gaussians.
        max_codes: fit to so many codes at most, evenly spaced rows.
        seed: seed of the fit.

    Raises:
        ValueError: if there are fewer codes than components, or codes that are not finite.

    Source: the ex-post density estimation of Ghosh et al. (2020), section 4.

    Example:
        >>> codes = torch.cat([torch.randn(200, 2) - 5, torch.randn(200, 2) + 5])
        >>> GaussianMixtureSampler(codes, num_components=2).sample(4).shape
        torch.Size([4, 2])
    """

    def __init__(self, codes: Tensor, num_components: int = 10, max_codes: int = 20_000, seed: int = 0) -> None:
        formulas.check_enough(tuple(codes.shape), num_components)
        rows = formulas.thinned(check_finite("codes", codes), max_codes).cpu().double().numpy()
        self.mixture = formulas.fitted_mixture(rows, num_components, seed)
        # double precision: a component of fewer codes than dimensions is only as definite as the floor makes it
        weights, means, covariances = (
            torch.from_numpy(part).double()
            for part in (self.mixture.weights_, self.mixture.means_, self.mixture.covariances_)
        )
        self.dtype = codes.dtype
        self.law = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(weights),
            torch.distributions.MultivariateNormal(means, covariances),
        )

    def sample(self, num_samples: int) -> Tensor:
        """Codes ``(num_samples, d)``."""
        return self.law.sample((num_samples,)).to(self.dtype)


class UniformSampler:
    """The uniform law of a latent metric (Chadebec & Allassonniere 2022, section 4.4).

    Args:
        metric: the latent metric, for instance ``KernelMetric.from_posterior(*model.posterior(data))``.
        low: lower corner of the box, see :func:`~pyro_riemann.sampling.sample_uniform`.
        high: upper corner.
        method: which sampler; ``"hmc"`` is the paper's.
        **settings: of that sampler.

    Attributes:
        result: the last :class:`~pyro_riemann.sampling.SamplingResult`, with its diagnostics.

    Example:
        >>> from pyro_riemann import KernelMetric
        >>> codes = torch.randn(300, 2)
        >>> metric = KernelMetric.from_posterior(codes, torch.full_like(codes, 0.3), num_centroids=20)
        >>> UniformSampler(metric).sample(4).shape
        torch.Size([4, 2])
    """

    def __init__(
        self, metric: RiemannianMetric, low: Any = None, high: Any = None, method: str = "auto", **settings: Any
    ) -> None:
        self.metric, self.low, self.high, self.method, self.settings = metric, low, high, method, settings
        self.result: SamplingResult | None = None

    def sample(self, num_samples: int) -> Tensor:
        """Codes ``(num_samples, d)``.

        Raises:
            TypeError, ValueError, RuntimeError: as :func:`~pyro_riemann.sampling.sample_uniform`.
        """
        self.result = sample_uniform(self.metric, num_samples, self.low, self.high, self.method, **self.settings)
        return self.result.draws


class PosteriorSampler:
    """The mixture of the encoder's posteriors, each with its own covariance and equal weight.

    Of all training data it is the aggregate posterior; of medoids, medoids with noise.

    Args:
        loc: posterior means, ``(n, d)``.
        scale: standard deviations ``(n, d)``, or Cholesky factors of covariances ``(n, d, d)``.

    Raises:
        ValueError: if shapes do not match, or one is not finite.

    Source: Tomczak & Welling (2018), *VAE with a VampPrior*, section 2.

    Example:
        >>> PosteriorSampler(torch.randn(50, 2), torch.full((50, 2), 0.1)).sample(4).shape
        torch.Size([4, 2])
    """

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        formulas.check_posteriors(tuple(loc.shape), tuple(scale.shape))
        self.loc, self.scale = check_finite("loc", loc.detach()), check_finite("scale", scale.detach())

    def sample(self, num_samples: int) -> Tensor:
        """Codes ``(num_samples, d)``."""
        return self._draw(torch.randint(len(self.loc), (num_samples,), device=self.loc.device))

    def sample_each(self) -> Tensor:
        """One code of each posterior, ``(n, d)``."""
        return self._draw(torch.arange(len(self.loc), device=self.loc.device))

    def _draw(self, rows: Tensor) -> Tensor:
        loc, scale = self.loc[rows], self.scale[rows]
        return formulas.from_noise(loc, scale, torch.randn_like(loc))
