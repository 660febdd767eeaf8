"""Every model of C22's tables by name, all with the same networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from pyro_riemann._checks import check_one_of
from pyro_riemann.autoencoders._base import Autoencoder
from pyro_riemann.autoencoders._networks import image_networks
from pyro_riemann.autoencoders._regularized import (
    GradientPenaltyAutoencoder,
    RegularizedAutoencoder,
    WassersteinAutoencoder,
    WeightDecayAutoencoder,
)
from pyro_riemann.autoencoders._riemannian import RiemannianHamiltonianAutoencoder
from pyro_riemann.autoencoders._variational import HamiltonianAutoencoder, VampPriorAutoencoder, VariationalAutoencoder
from pyro_riemann.vae import Likelihood

_CLASSES: dict[str, Callable[..., Autoencoder]] = {
    "ae": Autoencoder,
    "wae": WassersteinAutoencoder,
    "vae": VariationalAutoencoder,
    "vamp": VampPriorAutoencoder,
    "hvae": HamiltonianAutoencoder,
    "rhvae": RiemannianHamiltonianAutoencoder,
    "rae": RegularizedAutoencoder,
    "rae-l2": WeightDecayAutoencoder,
    "rae-gp": GradientPenaltyAutoencoder,
    "rae-sn": RegularizedAutoencoder,
}
MODELS = tuple(_CLASSES)
"""Names of the models, as :func:`make_autoencoder` takes them."""
_VARIATIONAL = ("vae", "vamp", "hvae", "rhvae")


def make_autoencoder(
    name: str,
    shape: tuple[int, int],
    latent_dim: int,
    architecture: str = "mlp",
    *,
    hidden: Sequence[int] | None = None,
    scale: float = 0.5**0.5,
    likelihood: Likelihood | None = None,
    seed: int | None = None,
    **settings: Any,
) -> Autoencoder:
    """A model by its name in :data:`MODELS`.

    Args:
        name: ``"ae"``, ``"wae"``, ``"vae"``, ``"vamp"``, ``"hvae"``, ``"rhvae"``, ``"rae"``, ``"rae-l2"``,
            ``"rae-gp"`` or ``"rae-sn"``.
        shape: height and width of the images.
        latent_dim: latent dimension d.
        architecture: ``"mlp"`` or ``"conv"``, see :func:`image_networks`.
        hidden: widths of the layers.
        scale: standard deviation of the Gaussian likelihood of the variational models.
        likelihood: another one, such as :class:`~pyro_riemann.vae.BernoulliLikelihood`, with one output a pixel.
        seed: seed of the weights; the global generator is left alone. Default: draws from the global one.
        **settings: further arguments of the model.

    Raises:
        ValueError: for an unknown name, and as :func:`image_networks` and the model itself.

    Source: the models of C22, section 5.1 and table 1.

    Example:
        >>> model = make_autoencoder("vae", (8, 8), latent_dim=2, hidden=(16,), seed=0)
        >>> model.sample(3, seed=1).shape
        torch.Size([3, 64])
    """
    check_one_of("name", name, MODELS)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        networks = image_networks(
            shape,
            latent_dim,
            architecture,
            hidden=hidden,
            variational=name in _VARIATIONAL,
            spectral=name == "rae-sn",
            scale=scale,
            likelihood=likelihood,
        )
        return _CLASSES[name](*networks, **settings)
