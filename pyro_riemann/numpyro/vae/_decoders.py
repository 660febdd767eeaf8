"""Decoders: a network with a likelihood, and the Gaussian decoder of K20 (appendix C)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from pyro_riemann._formulas import likelihoods as formulas
from pyro_riemann.numpyro._checks import holds
from pyro_riemann.numpyro._pytree import Pytree, replaced
from pyro_riemann.numpyro.vae._interface import DecoderProtocol
from pyro_riemann.numpyro.vae._layers import Activation, Rescale, Sequential
from pyro_riemann.numpyro.vae._likelihoods import Likelihood
from pyro_riemann.numpyro.vae._precision import RBFPrecision


class Decoder(Pytree, DecoderProtocol):
    """A network and the likelihood whose parameters it gives.

    Calling it gives p(x | z) as a distribution, of which :class:`~pyro_riemann.numpyro.metrics.PullbackMetric` takes
    the Fisher-Rao metric. The network counts in units in which the outputs start at the marginal law of the data, see
    :meth:`standardize`.

    Args:
        network: a pytree that maps codes ``(n, d)`` to ``(n, likelihood.num_outputs(data_dim))``.
        latent_dim: latent dimension d.
        data_dim: number D of data entries.
        likelihood: the law of the data given the outputs.

    Raises:
        ValueError: by methods, for a network with another number of outputs.

    Source: Kingma & Welling (2014), *Auto-encoding variational Bayes*, appendix C.

    Example:
        >>> from pyro_riemann.numpyro.vae import PoissonLikelihood, mlp
        >>> decoder = Decoder(mlp([2, 16, 5], key=jax.random.key(0)), 2, 5, PoissonLikelihood())
        >>> decoder = decoder.standardize(jnp.full((10, 5), 3.0))
        >>> decoder.observation(jnp.zeros((4, 2))).sample(jax.random.key(1)).shape
        (4, 5)
    """

    pytree_data_fields = ("likelihood", "network", "units")

    def __init__(
        self, network: Callable[[Array], Array], latent_dim: int, data_dim: int, likelihood: Likelihood
    ) -> None:
        self.latent_dim, self.data_dim = latent_dim, data_dim
        self.network, self.likelihood = network, likelihood
        self.units = Rescale(jnp.zeros(likelihood.num_outputs(data_dim)), jnp.ones(()))

    def output(self, z: Array) -> Array:
        """What the likelihood takes, ``(*batch, num_outputs)``, at codes ``z`` ``(*batch, d)``."""
        inner = self.network(z.reshape(-1, self.latent_dim))
        if inner.shape[1:] != self.units.loc.shape:
            raise ValueError(
                f"`network` must give {len(self.units.loc)} outputs a code for this likelihood, got shape "
                f"{inner.shape[1:]}."
            )
        return self.units(inner).reshape(*z.shape[:-1], -1)

    def __call__(self, z: Array) -> dist.Distribution:
        """The same as :meth:`observation`, at ``z`` ``(*batch, d)``."""
        return self.observation(z)

    def mean(self, z: Array) -> Array:
        """Mean of the data, ``(*batch, D)``, at ``z`` ``(*batch, d)``; of categories the most probable."""
        return self.likelihood.mean(self.output(z))

    def observation(self, z: Array, warm_up: bool = False, exposure: Array | None = None) -> dist.Distribution:
        """Likelihood p(x | z) of codes with all its constants, event shape ``(D,)``.

        Args:
            z: codes ``(*batch, d)``.
            warm_up: changes nothing here.
            exposure: that of each datum, ``(*batch, 1)``, where the likelihood has one.
        """
        return self.likelihood.distribution(self.output(z), exposure)

    def exposure(self, x: Array) -> Array | None:
        return self.likelihood.exposure(x)

    def check(self, name: str, x: Array) -> Array:
        return self.likelihood.check(name, x)

    def standardize(self, data: Array) -> Self:
        """The decoder that starts at the marginal law of the training ``data``, ``(n, D)``; the first call counts.

        Raises:
            ValueError: for data that the likelihood cannot give.
        """
        if self.units.fitted:
            return self
        likelihood, loc, scale = self.likelihood.standardize(self.check("data", data))
        return replaced(self, likelihood=likelihood, units=Rescale(loc, scale))


class GaussianDecoder(Pytree, DecoderProtocol):
    r"""Gaussian decoder :math:`N(\mu(z), \mathrm{diag}\,\sigma^2(z))` and the immersion that it defines.

    Calling it gives (mean, standard deviation), the immersion of K20 eq. 2.4, ready for
    :class:`~pyro_riemann.numpyro.PullbackMetric`. In the warm-up of the training the likelihood has one learned
    standard deviation for all entries instead.

    Args:
        mean: network of the mean, ending in a :class:`Linear` layer, a :class:`Rescale` after one, or an activation.
        std: the :class:`RBFPrecision`.
        log_warm_up_scale: logarithm of the standard deviation in the warm-up, a number.

    Example:
        >>> from pyro_riemann.numpyro.vae import mlp
        >>> std = RBFPrecision(jnp.zeros((10, 2)), jnp.ones(10), jnp.zeros((64, 10)))
        >>> decoder = GaussianDecoder(mlp([2, 30, 64], key=jax.random.key(0)), std)
        >>> PullbackMetric(decoder, dim=2).metric(jnp.zeros((5, 2))).shape
        (5, 2, 2)
    """

    pytree_data_fields = ("log_warm_up_scale", "mean", "std")
    precision_parameters: ClassVar[tuple[str, ...]] = ("std",)
    has_jets: ClassVar[bool] = True

    def __init__(self, mean: Sequential, std: RBFPrecision, log_warm_up_scale: float | Array = 0.0) -> None:
        self.mean, self.std = mean, std
        self.data_dim, self.latent_dim = len(std.log_weight), std.centers.shape[1]
        self.log_warm_up_scale = jnp.asarray(log_warm_up_scale, std.log_weight.dtype)

    def __call__(self, z: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at ``z`` ``(*batch, d)``, each ``(*batch, D)``."""
        return self.mean(z), self.std(z)

    def observation(self, z: Array, warm_up: bool = False, exposure: Array | None = None) -> dist.Distribution:
        """Likelihood p(x | z) of codes with all its constants, event shape ``(D,)``.

        Args:
            z: codes ``(*batch, d)``.
            warm_up: with one learned standard deviation for all entries, as in phase 1 of the training.
            exposure: not used: Gaussian data have none, ``(*batch, 1)`` or None.
        """
        mean = self.mean(z)
        scale = jnp.broadcast_to(jnp.exp(self.log_warm_up_scale), mean.shape) if warm_up else self.std(z)
        return dist.Normal(mean, scale).to_event(1)

    def standardize(self, data: Array) -> Self:
        """The decoder that starts at the mean image of training ``data`` ``(n, D)``, and counts in their deviations.

        The first call counts, see :meth:`Encoder.standardize`.

        Raises:
            ValueError: for data outside [0, 1] if the mean ends in a sigmoid.
        """
        last = self.mean.layers[-1]
        if isinstance(last, Activation) and last.name == "Sigmoid":
            formulas.refuse("data", formulas.of_sigmoid(data), holds)
            start = formulas.logit(np, np.asarray(data, np.float64).mean(0))
            data = start[None]  # one row: its mean, and no scale
        layers = [layer.fit(data) if isinstance(layer, Rescale) else layer for layer in self.mean.layers]
        return replaced(self, mean=Sequential(layers))

    def start_warm_up(self, data: Array) -> Self:
        """The decoder with the standard deviation of the training ``data``, ``(n, D)``, for the warm-up.

        From 1 it would take Adam thousands of steps to the data's; until then the KL term, too strong in
        comparison, collapses the posterior onto the prior.
        """
        _, _, deviation = formulas.gaussian_start(np, np.asarray(data, np.float64), "identity")
        return replaced(self, log_warm_up_scale=jnp.asarray(np.log(deviation), self.log_warm_up_scale.dtype))

    def start_precision(self, codes: Array, data: Array, key: Array) -> Self:
        """The decoder with centres by k-means, and the precision of each cluster, see :meth:`RBFPrecision.fit`.

        Args:
            codes: draws of the posteriors of ``data``, ``(n, d)``.
            data: training data, ``(n, D)``.
            key: one key of ``jax.random``, of k-means.

        Raises:
            ValueError: if there are fewer distinct codes than centres.
        """
        return replaced(self, std=self.std.fit(codes, (data - self.mean(codes)) ** 2, key=key))

    def distance_immersion(self) -> DistanceImmersion:
        """An immersion with the same metric and chords and fewer outputs; no gradient reaches the decoder."""
        return DistanceImmersion(self)


class DistanceImmersion(Pytree):
    """A frozen decoder in fewer outputs, exactly isometric to the original.

    The mean's last layer ``W h + b`` with ``W = Q R`` (Q with orthonormal columns) spans the same distances as
    ``R h``: chord lengths and pullback metric are those of the full mean, at as many outputs as hidden units. The
    standard deviation is not linear in anything and stays as it is, and so does a mean that ends in an activation.

    Args:
        decoder: the decoder.

    Source: Golub & Van Loan (2013), *Matrix Computations*, chapter 5, for the QR decomposition.

    Example:
        >>> from pyro_riemann.numpyro.vae import mlp
        >>> std = RBFPrecision(jnp.zeros((10, 2)), jnp.ones(10), jnp.zeros((500, 10)))
        >>> decoder = GaussianDecoder(mlp([2, 20, 20, 500], key=jax.random.key(0)), std)
        >>> reduced, _ = decoder.distance_immersion()(jnp.zeros((2, 2)))
        >>> reduced.shape
        (2, 20)
    """

    pytree_data_fields = ("mean", "std")
    has_jets: ClassVar[bool] = True

    def __init__(self, decoder: GaussianDecoder) -> None:
        self.mean, self.std = decoder.mean.distance_immersion(), jax.lax.stop_gradient(decoder.std)

    def __call__(self, z: Array) -> tuple[Array, Array]:
        """Reduced mean ``(*batch, rows)`` and standard deviation ``(*batch, D)`` at ``z`` ``(*batch, d)``."""
        return self.mean(z), self.std(z)
