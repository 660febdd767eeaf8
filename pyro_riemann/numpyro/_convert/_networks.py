"""The networks that pullbacks are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro_riemann.numpyro import vae
from pyro_riemann.numpyro._convert._reader import Converter, Reader


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
