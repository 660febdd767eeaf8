"""Variational autoencoders, their parts, and the networks of these and of pullbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro_riemann.numpyro import vae
from pyro_riemann.numpyro._convert._reader import Converter, Reader, title
from pyro_riemann.numpyro._pytree import replaced
from pyro_riemann.numpyro.vae._counts import LogCounts
from pyro_riemann.numpyro.vae._likelihoods import OneHot


def _gaussian(law: Any, read: Reader) -> vae.GaussianLikelihood:
    if law.log_scale is None:
        return vae.GaussianLikelihood(law.fixed_scale, learn_scale=False, link=law.link)
    return replaced(vae.GaussianLikelihood(link=law.link), log_scale=read.array(law.log_scale))


def _poisson(law: Any, read: Reader) -> vae.PoissonLikelihood:
    return replaced(vae.PoissonLikelihood(law.exposure_rule), reference=read.array(law.reference))


def _negative_binomial(law: Any, read: Reader) -> vae.NegativeBinomialLikelihood:
    twin = vae.NegativeBinomialLikelihood(
        learn_total_count="log_total_count" in dict(law.named_parameters()), exposure=law.exposure_rule
    )
    return replaced(twin, reference=read.array(law.reference), log_total_count=read.array(law.log_total_count))


def _decoder(decoder: Any, read: Reader) -> vae.Decoder:
    law = read(decoder.likelihood)
    twin = vae.Decoder(read(decoder.network), decoder.latent_dim, decoder.data_dim, law)
    return replaced(twin, units=read(decoder.units))


def _encoder(encoder: Any, read: Reader) -> vae.Encoder:
    twin = object.__new__(vae.Encoder)  # draws no weights
    for name in ("features", "loc", "spread", "units"):
        setattr(twin, name, read(getattr(encoder, name)))
    for name in ("data_dim", "latent_dim", "scale_dim", "min_scale"):
        setattr(twin, name, getattr(encoder, name))
    return twin


def _heat_kernel(prior: Any, read: Reader) -> vae.HeatKernelPrior:
    twin = vae.HeatKernelPrior(len(prior.loc), prior.correction)
    return replaced(twin, loc=read.array(prior.loc), log_time=read.array(prior.log_time))


def _vae(model: Any, read: Reader) -> vae.VAE:
    family, rule = model.posterior_family, model.latent_metric
    if type(family).__name__ != "NormalPosterior":
        raise TypeError(f"`to_numpyro` knows VAEs with a NormalPosterior, got one with {title(family)}.")
    if model.prior.riemannian and type(rule).__name__ != "DecoderMetric":
        raise TypeError(f"`to_numpyro` knows Riemannian priors on the metric of the decoder, got {title(rule)}.")
    twin = vae.VAE(read(model.encoder), read(model.decoder), read(model.prior), model.store_name)
    return replaced(twin, warm_up=model.warm_up)


MODELS: dict[str, Converter] = {
    "GaussianLikelihood": _gaussian,
    "BernoulliLikelihood": lambda law, read: vae.BernoulliLikelihood(),
    "CategoricalLikelihood": lambda law, read: vae.CategoricalLikelihood(law.num_categories),
    "PoissonLikelihood": _poisson,
    "NegativeBinomialLikelihood": _negative_binomial,
    "_OneHot": lambda features, read: OneHot(features.num_categories),
    "_LogCounts": lambda features, read: LogCounts(),
    "Decoder": _decoder,
    "Encoder": _encoder,
    "NormalPrior": lambda prior, read: vae.NormalPrior(len(prior.zero)),
    "VampMixturePrior": lambda prior, read: vae.VampMixturePrior(read.array(prior.pseudo_inputs)),
    "HeatKernelPrior": _heat_kernel,
    "VAE": _vae,
}


def _linear(layer: Any, read: Reader) -> vae.Linear:
    return vae.Linear(read.array(layer.weight), None if layer.bias is None else read.array(layer.bias))


def _activation(*names: str) -> Callable[[Any, Reader], vae.Activation]:
    """Converter of an elementwise layer with these settings."""

    def convert(layer: Any, read: Reader) -> vae.Activation:
        return vae.Activation(type(layer).__name__, **{name: getattr(layer, name) for name in names})

    return convert


def _rescale(layer: Any, read: Reader) -> vae.Rescale:
    return vae.Rescale(read.array(layer.loc), read.array(layer.scale))


def _sequential(network: Any, read: Reader) -> vae.Sequential:
    return vae.Sequential([read(layer) for layer in network])


def _rbf_precision(network: Any, read: Reader) -> vae.RBFPrecision:
    centers, bandwidth, log_weight = map(read.array, (network.centers, network.bandwidth, network.log_weight))
    return vae.RBFPrecision(centers, bandwidth, log_weight, network.floor, network.min_scale)


def _gaussian_decoder(network: Any, read: Reader) -> vae.GaussianDecoder:
    return vae.GaussianDecoder(read(network.mean), read(network.std), read.array(network.log_warm_up_scale))


def _distance_immersion(network: Any, read: Reader) -> vae.DistanceImmersion:
    twin = object.__new__(vae.DistanceImmersion)  # reduced already
    twin.mean, twin.std = read(network.mean), read(network.std)
    return twin


NETWORKS: dict[str, Converter] = {
    "Linear": _linear,
    "Rescale": _rescale,
    "Sequential": _sequential,
    "ELU": _activation("alpha"),
    "GELU": _activation("approximate"),
    "LeakyReLU": _activation("negative_slope"),
    "Softplus": _activation("beta", "threshold"),
    **{name: _activation() for name in ("Identity", "ReLU", "SiLU", "Sigmoid", "Tanh")},
    "RBFPrecision": _rbf_precision,
    "GaussianDecoder": _gaussian_decoder,
    "DistanceImmersion": _distance_immersion,
}
