"""The autoencoders of Chadebec & Allassonniere (2022), one interface and one architecture for all."""

from pyro_riemann.autoencoders._base import Autoencoder, FitConfig
from pyro_riemann.autoencoders._networks import ImageDecoder, ImageEncoder, image_networks
from pyro_riemann.autoencoders._regularized import (
    GradientPenaltyAutoencoder,
    RegularizedAutoencoder,
    WassersteinAutoencoder,
    WeightDecayAutoencoder,
    inverse_multiquadric_mmd,
)
from pyro_riemann.autoencoders._riemannian import (
    InverseKernel,
    InverseVolumeSampler,
    RiemannianHamiltonianAutoencoder,
)
from pyro_riemann.autoencoders._variational import HamiltonianAutoencoder, VampPriorAutoencoder, VariationalAutoencoder
from pyro_riemann.autoencoders._zoo import MODELS, make_autoencoder
from pyro_riemann.sampling import (
    GaussianMixtureSampler,
    LatentSampler,
    NormalSampler,
    PosteriorSampler,
    UniformSampler,
)

__all__ = [
    "Autoencoder",
    "FitConfig",
    "GaussianMixtureSampler",
    "GradientPenaltyAutoencoder",
    "HamiltonianAutoencoder",
    "ImageDecoder",
    "ImageEncoder",
    "InverseKernel",
    "InverseVolumeSampler",
    "LatentSampler",
    "MODELS",
    "NormalSampler",
    "PosteriorSampler",
    "RegularizedAutoencoder",
    "RiemannianHamiltonianAutoencoder",
    "UniformSampler",
    "VampPriorAutoencoder",
    "VariationalAutoencoder",
    "WassersteinAutoencoder",
    "WeightDecayAutoencoder",
    "image_networks",
    "inverse_multiquadric_mmd",
    "make_autoencoder",
]
