"""Decoder networks of the Riemannian VAE as pytrees."""

from pyro_riemann.numpyro.vae._layers import Activation, Linear, Rescale, Sequential, mlp
from pyro_riemann.numpyro.vae._networks import DistanceImmersion, Encoder, GaussianDecoder, RBFPrecision

__all__ = [
    "Activation",
    "DistanceImmersion",
    "Encoder",
    "GaussianDecoder",
    "Linear",
    "RBFPrecision",
    "Rescale",
    "Sequential",
    "mlp",
]
