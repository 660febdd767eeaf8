"""Laws of codes to draw images from: normal, a mixture fitted after training, the uniform law of a metric."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from pyro_riemann._formulas import codes as formulas
from pyro_riemann.numpyro._checks import check_finite, check_key
from pyro_riemann.numpyro.metrics import RiemannianMetric
from pyro_riemann.numpyro.sampling._front import sample_uniform
from pyro_riemann.numpyro.sampling._result import SamplingResult


class LatentSampler(Protocol):
    """Anything that draws codes; a NumPyro distribution is not quite one, see ``sample``.

    Example:
        >>> class Origin:
        ...     def sample(self, num_samples, *, key):
        ...         return jnp.zeros((num_samples, 2))
        >>> sampler: LatentSampler = Origin()
    """

    def sample(self, num_samples: int, *, key: Array) -> Array:
        """Codes ``(num_samples, d)``.

        Args:
            num_samples: how many.
            key: one key of ``jax.random``.
        """
        ...


class NormalSampler:
    """The standard normal law.

    Args:
        latent_dim: latent dimension d.

    Raises:
        TypeError: by methods, if ``key`` is no key.

    Source: Kingma & Welling (2014), *Auto-encoding variational Bayes*, section 3.

    Example:
        >>> NormalSampler(3).sample(5, key=jax.random.key(0)).shape
        (5, 3)
    """

    def __init__(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim

    def sample(self, num_samples: int, *, key: Array) -> Array:
        """Codes ``(num_samples, d)``.

        Args:
            num_samples: how many.
            key: one key of ``jax.random``.
        """
        return jax.random.normal(check_key(key), (num_samples, self.latent_dim))


class GaussianMixtureSampler:
    """A mixture of Gaussians with full covariances, fitted to the codes of the training data by scikit-learn.

    Args:
        codes: ``(n, d)``.
        num_components: number of Gaussians.
        max_codes: fit to so many codes at most, evenly spaced rows.
        seed: seed of the fit.

    Raises:
        ValueError: if there are fewer codes than components, or codes that are not finite.
        TypeError: by methods, if ``key`` is no key.

    Source: the ex-post density estimation of Ghosh et al. (2020), section 4.

    Example:
        >>> codes = jax.random.normal(jax.random.key(0), (400, 2)).at[200:].add(5.0)
        >>> GaussianMixtureSampler(codes, num_components=2).sample(4, key=jax.random.key(1)).shape
        (4, 2)
    """

    def __init__(self, codes: Array, num_components: int = 10, max_codes: int = 20_000, seed: int = 0) -> None:
        formulas.check_enough(codes.shape, num_components)
        rows = np.asarray(formulas.thinned(check_finite("codes", codes), max_codes), np.float64)
        self.mixture = formulas.fitted_mixture(rows, num_components, seed)
        # factors in double precision: a component of fewer codes than dimensions is only as definite as the floor
        parts = self.mixture.weights_, self.mixture.means_, np.linalg.cholesky(self.mixture.covariances_)
        weights, means, factors = (jnp.asarray(part, float) for part in parts)
        self.dtype = codes.dtype
        self.law = dist.MixtureSameFamily(dist.Categorical(weights), dist.MultivariateNormal(means, scale_tril=factors))

    def sample(self, num_samples: int, *, key: Array) -> Array:
        """Codes ``(num_samples, d)``.

        Args:
            num_samples: how many.
            key: one key of ``jax.random``.
        """
        draws: Array = self.law.sample(check_key(key), (num_samples,)).astype(self.dtype)
        return draws


class UniformSampler:
    """The uniform law of a latent metric (Chadebec & Allassonniere 2022, section 4.4).

    Args:
        metric: the latent metric, for instance ``KernelMetric.from_posterior(*encoder(data))``.
        low: lower corner of the box, see :func:`~pyro_riemann.numpyro.sampling.sample_uniform`.
        high: upper corner.
        method: which sampler.
        **settings: of that sampler.

    Attributes:
        result: the last :class:`~pyro_riemann.numpyro.sampling.SamplingResult`, with its diagnostics.

    Example:
        >>> codes = jax.random.normal(jax.random.key(0), (300, 2))
        >>> metric = KernelMetric.from_posterior(codes, jnp.full_like(codes, 0.3), num_centroids=20)
        >>> UniformSampler(metric).sample(4, key=jax.random.key(1)).shape
        (4, 2)
    """

    def __init__(
        self, metric: RiemannianMetric, low: Any = None, high: Any = None, method: str = "auto", **settings: Any
    ) -> None:
        self.metric, self.low, self.high, self.method, self.settings = metric, low, high, method, settings
        self.result: SamplingResult | None = None

    def sample(self, num_samples: int, *, key: Array) -> Array:
        """Codes ``(num_samples, d)``.

        Args:
            num_samples: how many.
            key: one key of ``jax.random``.

        Raises:
            TypeError, ValueError, RuntimeError: as :func:`~pyro_riemann.numpyro.sampling.sample_uniform`.
        """
        self.result = sample_uniform(
            self.metric, num_samples, self.low, self.high, self.method, key=key, **self.settings
        )
        return self.result.draws


class PosteriorSampler:
    """The mixture of the encoder's posteriors, each with its own covariance and equal weight.

    Of all training data it is the aggregate posterior; of medoids, medoids with noise.

    Args:
        loc: posterior means, ``(n, d)``.
        scale: standard deviations ``(n, d)``, or Cholesky factors of covariances ``(n, d, d)``.

    Raises:
        ValueError: if shapes do not match, or one is not finite.
        TypeError: by methods, if ``key`` is no key.

    Source: Tomczak & Welling (2018), *VAE with a VampPrior*, section 2.

    Example:
        >>> PosteriorSampler(jnp.zeros((50, 2)), jnp.full((50, 2), 0.1)).sample(4, key=jax.random.key(0)).shape
        (4, 2)
    """

    def __init__(self, loc: Array, scale: Array) -> None:
        formulas.check_posteriors(loc.shape, scale.shape)
        self.loc, self.scale = check_finite("loc", loc), check_finite("scale", scale)

    def sample(self, num_samples: int, *, key: Array) -> Array:
        """Codes ``(num_samples, d)``.

        Args:
            num_samples: how many.
            key: one key of ``jax.random``.
        """
        for_rows, for_noise = jax.random.split(check_key(key))
        return self._draw(jax.random.randint(for_rows, (num_samples,), 0, len(self.loc)), for_noise)

    def sample_each(self, *, key: Array) -> Array:
        """One code of each posterior, ``(n, d)``.

        Args:
            key: one key of ``jax.random``.
        """
        return self._draw(jnp.arange(len(self.loc)), check_key(key))

    def _draw(self, rows: Array, key: Array) -> Array:
        loc = self.loc[rows]
        return formulas.from_noise(loc, self.scale[rows], jax.random.normal(key, loc.shape, loc.dtype))
