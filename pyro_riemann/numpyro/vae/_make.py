"""A VAE from plain arguments: the names of its parts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann.numpyro._checks import check_key, check_one_of
from pyro_riemann.numpyro.vae._counts import NegativeBinomialLikelihood, PoissonLikelihood
from pyro_riemann.numpyro.vae._decoders import Decoder, GaussianDecoder
from pyro_riemann.numpyro.vae._encoders import Encoder
from pyro_riemann.numpyro.vae._interface import DecoderProtocol
from pyro_riemann.numpyro.vae._layers import Activation, Rescale, Sequential, mlp
from pyro_riemann.numpyro.vae._likelihoods import BernoulliLikelihood, GaussianLikelihood, Likelihood
from pyro_riemann.numpyro.vae._models import VAE
from pyro_riemann.numpyro.vae._precision import RBFPrecision
from pyro_riemann.numpyro.vae._priors import HeatKernelPrior, NormalPrior, Prior, VampMixturePrior

PRIORS = ("normal", "vamp", "heat_kernel")
LIKELIHOODS = ("precision_network", "gaussian", "bernoulli", "poisson", "negative_binomial")
OUTPUTS = ("linear", "sigmoid")


def make_vae(
    data_dim: int,
    latent_dim: int = 2,
    prior: str | Prior = "normal",
    *,
    likelihood: str | Likelihood = "precision_network",
    hidden: tuple[int, ...] = (300, 300),
    num_centers: int = 350,
    floor: float = 1e-2,
    min_scale: float = 1e-2,
    output: str = "linear",
    pseudo_inputs: Array | None = None,
    key: Array,
    name: str = "vae",
) -> VAE:
    """A VAE with the networks of K20, appendix C, from plain arguments; its posterior is normal.

    Args:
        data_dim: number D of data entries.
        latent_dim: latent dimension d.
        prior: ``"normal"``, ``"vamp"`` or ``"heat_kernel"``, of the decoder's metric; or a :class:`Prior`.
        likelihood: ``"precision_network"`` (:class:`GaussianDecoder`), ``"gaussian"`` with one learned standard
            deviation, ``"bernoulli"``, ``"poisson"`` or ``"negative_binomial"`` with a learned dispersion of each
            entry; or a :class:`Likelihood`.
        hidden: widths of the hidden layers of encoder and decoder.
        num_centers: basis functions of the precision network.
        floor: least precision.
        min_scale: least standard deviation.
        output: of the mean of Gaussian data, ``"linear"`` or, for data in [0, 1], ``"sigmoid"``.
        pseudo_inputs: starting values of a VampPrior, ``(k, D)``.
        key: one key of ``jax.random``, of the weights.
        name: of the parameter in SVI.

    Raises:
        TypeError, ValueError: for an unknown name, and as the parts that it makes.

    Example:
        >>> vae = make_vae(data_dim=64, latent_dim=2, likelihood="bernoulli", key=jax.random.key(0))
        >>> vae.posterior(jnp.zeros((5, 64))).batch_shape
        (5,)
    """
    for_encoder, for_decoder, for_prior = jax.random.split(check_key(key), 3)
    law = _likelihood(likelihood, data_dim, check_one_of("output", output, OUTPUTS))
    features = None if law is None else law.features()
    encoder = Encoder(data_dim, latent_dim, hidden, features=features, key=for_encoder)
    decoder: DecoderProtocol
    if law is None:
        if num_centers < 1:
            raise ValueError(f"`num_centers` must be at least 1, got {num_centers}.")
        inner = mlp([latent_dim, *hidden, data_dim], key=for_decoder).layers
        ends = (Rescale(jnp.zeros(data_dim), jnp.ones(())), Activation("Sigmoid"))[: 1 + (output == "sigmoid")]
        places = jnp.broadcast_to(jnp.linspace(-1, 1, num_centers)[:, None], (num_centers, latent_dim))
        precision = RBFPrecision(places, jnp.ones(num_centers), jnp.zeros((data_dim, num_centers)), floor, min_scale)
        decoder = GaussianDecoder(Sequential([*inner, *ends]), precision)
    else:
        network = mlp([latent_dim, *hidden, law.num_outputs(data_dim)], key=for_decoder)
        decoder = Decoder(network, latent_dim, data_dim, law)
    if isinstance(prior, str):
        prior = _prior(prior, encoder, pseudo_inputs, for_prior)
    return VAE(encoder, decoder, prior, name)


def _prior(name: str, encoder: Encoder, pseudo_inputs: Array | None, key: Array) -> Prior:
    if check_one_of("prior", name, PRIORS) == "normal":
        return NormalPrior(encoder.latent_dim)
    if name == "heat_kernel":
        return HeatKernelPrior(encoder.latent_dim)
    if pseudo_inputs is None:
        pseudo_inputs = jax.random.uniform(key, (64, encoder.data_dim))
    return VampMixturePrior(pseudo_inputs)


def _likelihood(given: str | Likelihood, data_dim: int, output: str) -> Likelihood | None:
    """The likelihood, or None for that of the precision network."""
    if not isinstance(given, str):
        return given
    if check_one_of("likelihood", given, LIKELIHOODS) == "precision_network":
        return None
    if given == "gaussian":
        return GaussianLikelihood(link="sigmoid" if output == "sigmoid" else "identity")
    if given == "bernoulli":
        return BernoulliLikelihood()
    return PoissonLikelihood() if given == "poisson" else NegativeBinomialLikelihood(jnp.full(data_dim, 10.0))
