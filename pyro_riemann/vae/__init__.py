"""Variational autoencoders with Riemannian priors as Pyro model/guide pairs."""

from pyro_riemann.vae._bounds import ELBOTerms, elbo_terms, importance_log_likelihood
from pyro_riemann.vae._callbacks import Callback, ProgressBar, ScalarWriter
from pyro_riemann.vae._checkpoint import load_checkpoint, save_checkpoint
from pyro_riemann.vae._counts import NegativeBinomialLikelihood, PoissonLikelihood
from pyro_riemann.vae._decoders import Decoder, DistanceImmersion, GaussianDecoder
from pyro_riemann.vae._encoders import Encoder, mlp
from pyro_riemann.vae._evaluate import converged_share, evaluate, prior_mass, solver_settings
from pyro_riemann.vae._interface import DecoderProtocol, EncoderProtocol
from pyro_riemann.vae._latent_metric import DecoderMetric, GivenMetric, LatentMetric
from pyro_riemann.vae._likelihoods import BernoulliLikelihood, CategoricalLikelihood, GaussianLikelihood, Likelihood
from pyro_riemann.vae._make import make_vae
from pyro_riemann.vae._models import VAE
from pyro_riemann.vae._phases import encode_all, set_phase, start_phase_two
from pyro_riemann.vae._posteriors import HeatKernelPosterior, NormalPosterior, Posterior, WrappedNormalPosterior
from pyro_riemann.vae._precision import RBFPrecision
from pyro_riemann.vae._priors import HeatKernelPrior, NormalPrior, Prior, UniformPrior, VampMixturePrior
from pyro_riemann.vae._settings import History, TrainingConfig
from pyro_riemann.vae._training import train

__all__ = [
    "BernoulliLikelihood",
    "Callback",
    "CategoricalLikelihood",
    "Decoder",
    "DecoderMetric",
    "DecoderProtocol",
    "DistanceImmersion",
    "ELBOTerms",
    "Encoder",
    "EncoderProtocol",
    "GaussianDecoder",
    "GaussianLikelihood",
    "GivenMetric",
    "HeatKernelPosterior",
    "HeatKernelPrior",
    "History",
    "LatentMetric",
    "Likelihood",
    "NegativeBinomialLikelihood",
    "NormalPosterior",
    "NormalPrior",
    "PoissonLikelihood",
    "Posterior",
    "Prior",
    "ProgressBar",
    "RBFPrecision",
    "ScalarWriter",
    "TrainingConfig",
    "UniformPrior",
    "VAE",
    "VampMixturePrior",
    "WrappedNormalPosterior",
    "converged_share",
    "elbo_terms",
    "encode_all",
    "evaluate",
    "importance_log_likelihood",
    "load_checkpoint",
    "make_vae",
    "mlp",
    "prior_mass",
    "save_checkpoint",
    "set_phase",
    "solver_settings",
    "start_phase_two",
    "train",
]
