"""Variational autoencoders with Riemannian priors as Pyro model/guide pairs."""

from pyro_riemann.vae._callbacks import Callback, ProgressBar, ScalarWriter
from pyro_riemann.vae._checkpoint import load_checkpoint, save_checkpoint
from pyro_riemann.vae._evaluate import (
    ELBOTerms,
    converged_share,
    elbo_terms,
    evaluate,
    importance_log_likelihood,
    prior_mass,
    solver_settings,
)
from pyro_riemann.vae._models import VAE, make_vae
from pyro_riemann.vae._networks import DistanceImmersion, Encoder, GaussianDecoder, RBFPrecision, mlp
from pyro_riemann.vae._phases import encode_all, set_phase, start_phase_two
from pyro_riemann.vae._priors import HeatKernelPrior, NormalPrior, Prior, UniformPrior, VampMixturePrior
from pyro_riemann.vae._settings import History, TrainingConfig
from pyro_riemann.vae._training import train

__all__ = [
    "Callback",
    "DistanceImmersion",
    "ELBOTerms",
    "Encoder",
    "GaussianDecoder",
    "HeatKernelPrior",
    "History",
    "NormalPrior",
    "Prior",
    "ProgressBar",
    "RBFPrecision",
    "ScalarWriter",
    "TrainingConfig",
    "UniformPrior",
    "VAE",
    "VampMixturePrior",
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
