"""Variational autoencoders with Riemannian priors as Pyro model/guide pairs."""

from pyro_riemann._formulas.training import History
from pyro_riemann.vae._bounds import ELBOTerms, elbo_terms, importance_log_likelihood
from pyro_riemann.vae._callbacks import Callback, ProgressBar, ScalarWriter
from pyro_riemann.vae._checkpoint import load_checkpoint, save_checkpoint
from pyro_riemann.vae._counts import NegativeBinomialLikelihood, PoissonLikelihood
from pyro_riemann.vae._decoders import Decoder, DistanceImmersion, GaussianDecoder
from pyro_riemann.vae._encoders import Encoder, mlp
from pyro_riemann.vae._ensemble import Ensemble, train_ensemble
from pyro_riemann.vae._evaluate import converged_share, evaluate, prior_mass, solver_settings
from pyro_riemann.vae._frozen_elbo import FrozenPosteriorELBO
from pyro_riemann.vae._interface import DecoderProtocol, EncoderProtocol
from pyro_riemann.vae._latent_metric import DecoderMetric, GivenMetric, LatentMetric
from pyro_riemann.vae._likelihoods import BernoulliLikelihood, CategoricalLikelihood, GaussianLikelihood, Likelihood
from pyro_riemann.vae._make import make_vae
from pyro_riemann.vae._models import VAE
from pyro_riemann.vae._phases import encode_all, set_phase, start_phase_two
from pyro_riemann.vae._posteriors import HeatKernelPosterior, NormalPosterior, Posterior, WrappedNormalPosterior
from pyro_riemann.vae._precision import RBFPrecision
from pyro_riemann.vae._priors import HeatKernelPrior, NormalPrior, Prior, UniformPrior, VampMixturePrior
from pyro_riemann.vae._settings import TrainingConfig
from pyro_riemann.vae._training import train

__all__ = [
    "make_vae",
    "VAE",
    "Encoder",
    "EncoderProtocol",
    "Decoder",
    "DecoderProtocol",
    "GaussianDecoder",
    "RBFPrecision",
    "mlp",
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
    "UniformPrior",
    "Posterior",
    "NormalPosterior",
    "WrappedNormalPosterior",
    "HeatKernelPosterior",
    "LatentMetric",
    "DecoderMetric",
    "GivenMetric",
    "DistanceImmersion",
    "train",
    "TrainingConfig",
    "History",
    "FrozenPosteriorELBO",
    "train_ensemble",
    "Ensemble",
    "Callback",
    "ProgressBar",
    "ScalarWriter",
    "set_phase",
    "start_phase_two",
    "encode_all",
    "save_checkpoint",
    "load_checkpoint",
    "evaluate",
    "elbo_terms",
    "ELBOTerms",
    "importance_log_likelihood",
    "prior_mass",
    "converged_share",
    "solver_settings",
]
