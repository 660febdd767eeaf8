"""Variational autoencoders as NumPyro model/guide pairs, and their parts as pytrees."""

from pyro_riemann.numpyro.vae._counts import NegativeBinomialLikelihood, PoissonLikelihood
from pyro_riemann.numpyro.vae._layers import Activation, Linear, Rescale, Sequential, mlp
from pyro_riemann.numpyro.vae._likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    Likelihood,
)
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
    "Likelihood",
    "GaussianLikelihood",
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "PoissonLikelihood",
    "NegativeBinomialLikelihood",
]
