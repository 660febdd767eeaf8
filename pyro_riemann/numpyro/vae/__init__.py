"""Variational autoencoders as NumPyro model/guide pairs, and their parts as pytrees."""

from pyro_riemann._formulas.training import History
from pyro_riemann.numpyro.vae._counts import NegativeBinomialLikelihood, PoissonLikelihood
from pyro_riemann.numpyro.vae._decoders import Decoder, DistanceImmersion, GaussianDecoder
from pyro_riemann.numpyro.vae._encoders import Encoder
from pyro_riemann.numpyro.vae._ensemble import Ensemble, train_ensemble
from pyro_riemann.numpyro.vae._interface import DecoderProtocol, EncoderProtocol
from pyro_riemann.numpyro.vae._layers import Activation, Linear, Rescale, Sequential, mlp
from pyro_riemann.numpyro.vae._likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    Likelihood,
)
from pyro_riemann.numpyro.vae._make import make_vae
from pyro_riemann.numpyro.vae._models import VAE
from pyro_riemann.numpyro.vae._precision import RBFPrecision
from pyro_riemann.numpyro.vae._priors import HeatKernelPrior, NormalPrior, Prior, VampMixturePrior
from pyro_riemann.numpyro.vae._settings import TrainingConfig
from pyro_riemann.numpyro.vae._training import train

__all__ = [
    "make_vae",
    "VAE",
    "Encoder",
    "EncoderProtocol",
    "Decoder",
    "DecoderProtocol",
    "GaussianDecoder",
    "RBFPrecision",
    "DistanceImmersion",
    "mlp",
    "Activation",
    "Linear",
    "Rescale",
    "Sequential",
    "Likelihood",
    "GaussianLikelihood",
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "PoissonLikelihood",
    "NegativeBinomialLikelihood",
    "Prior",
    "NormalPrior",
    "VampMixturePrior",
    "HeatKernelPrior",
    "train",
    "TrainingConfig",
    "History",
    "train_ensemble",
    "Ensemble",
]
