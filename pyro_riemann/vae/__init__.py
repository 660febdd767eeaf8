"""Variational autoencoders with Riemannian priors as Pyro model/guide pairs."""

from pyro_riemann.vae._checkpoint import load_checkpoint, save_checkpoint
from pyro_riemann.vae._models import VAE, make_vae
from pyro_riemann.vae._networks import DistanceImmersion, Encoder, GaussianDecoder, RBFPrecision, mlp
from pyro_riemann.vae._priors import HeatKernelPrior, NormalPrior, Prior, UniformPrior, VampMixturePrior
from pyro_riemann.vae._training import History, TrainingConfig, encode_all, set_phase, start_phase_two, train

__all__ = [
    "DistanceImmersion",
    "Encoder",
    "GaussianDecoder",
    "HeatKernelPrior",
    "History",
    "NormalPrior",
    "Prior",
    "RBFPrecision",
    "TrainingConfig",
    "UniformPrior",
    "VAE",
    "VampMixturePrior",
    "encode_all",
    "load_checkpoint",
    "make_vae",
    "mlp",
    "save_checkpoint",
    "set_phase",
    "start_phase_two",
    "train",
]
