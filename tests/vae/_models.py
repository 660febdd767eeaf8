"""Small models that the tests of the VAE share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_riemann.vae import VAE, Encoder, GaussianDecoder, encode_all, make_vae, mlp, set_phase, start_phase_two


def curve_data(count: int = 120, data_dim: int = 6, seed: int = 0) -> Tensor:
    """Noisy points on a curved surface in R^D, float64."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    frequency = torch.linspace(0.5, 1.5, data_dim, dtype=torch.float64)
    clean = (hidden[:, :1] * frequency).sin() + 0.5 * hidden[:, 1:] * frequency.flip(0)
    return clean + 0.1 * torch.randn(count, data_dim, generator=generator, dtype=torch.float64)


def small_vae(prior: str = "normal", posterior: str = "normal", metric: str = "fixed", **settings: Any) -> VAE:
    """A VAE of a few hundred weights in float64."""
    settings = {"hidden": (12, 12), "num_centers": 10, "seed": 0, "grid_resolution": 24, **settings}
    if prior == "vamp":
        settings["pseudo_inputs"] = curve_data(8, seed=5).float()
    vae = make_vae(6, 2, prior, posterior, metric, **settings)
    with torch.random.fork_rng(devices=[]):  # weights of He's size: a curved decoder without any training
        torch.manual_seed(settings["seed"])
        Encoder(6, 2, settings["hidden"], vae.encoder.scale_dim)
        curved = mlp([2, *settings["hidden"], 6])
    vae.decoder.mean[: len(curved)].load_state_dict(curved.state_dict())
    vae.refresh_metric()
    return vae.double()


def phase_two_vae(data: Tensor, *args: str, **settings: Any) -> VAE:
    """The same with precision network, metric and prior started from data, in phase 2."""
    vae = small_vae(*args, **settings)
    start_phase_two(vae, data)
    set_phase(vae, 2, ("precision", "prior"))
    return vae


def linear_vae(scale: float = 0.4) -> tuple[VAE, Tensor, Tensor]:
    """Linear encoder and decoder with constant noise: ``x = W z + b + noise``; the VAE, W and the noise's scale."""
    vae = make_vae(5, 2, "normal", "normal", hidden=(), num_centers=3, seed=1).double()
    with torch.no_grad():
        vae.encoder.spread[0].weight.zero_()
        vae.decoder.log_warm_up_scale.fill_(torch.tensor(scale).log())
    vae.warm_up = True  # one standard deviation for all entries
    assert isinstance(vae.decoder, GaussianDecoder)
    return vae, vae.decoder.mean[0].weight.detach(), vae.decoder.log_warm_up_scale.detach().exp()


def codes(vae: VAE, data: Tensor) -> Tensor:
    """Locations of the posteriors."""
    return encode_all(vae, data)
