"""Small models whose evidence can be integrated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_riemann.autoencoders import Autoencoder, make_autoencoder

SHAPE = (2, 2)


def small(name: str, latent_dim: int = 2, scale: float = 0.5, **settings: Any) -> Any:
    """A model of 2 x 2 images in double precision."""
    return make_autoencoder(name, SHAPE, latent_dim, hidden=(8,), scale=scale, seed=3, **settings).double()


def log_evidence(model: Autoencoder, x: Tensor, log_prior: Any, bound: float = 7.0, cells: int = 400) -> Tensor:
    """log p(x) at d = 2 by the midpoint rule, ``(n,)``."""
    axis = (torch.arange(cells, dtype=x.dtype) + 0.5) / cells * 2 * bound - bound
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        joint = model.decoder.log_likelihood(x[:, None], z) + log_prior(z)
    return joint.logsumexp(-1) + 2 * torch.log(torch.tensor(2 * bound / cells, dtype=x.dtype))
