"""Small models that the tests of the VAE share."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from pyro_riemann.vae import VAE, GaussianDecoder, encode_all, make_vae, set_phase, start_phase_two


def curve_data(count: int = 120, data_dim: int = 6, seed: int = 0) -> Tensor:
    """Noisy points on a curved surface in R^D, float64."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    frequency = torch.linspace(0.5, 1.5, data_dim, dtype=torch.float64)
    clean = (hidden[:, :1] * frequency).sin() + 0.5 * hidden[:, 1:] * frequency.flip(0)
    return clean + 0.1 * torch.randn(count, data_dim, generator=generator, dtype=torch.float64)


def small_vae(prior: str = "normal", posterior: str = "normal", metric: str = "fixed", **settings: Any) -> VAE:
    """A VAE of a few hundred weights in float64, encoder and decoder mean trained for a moment on ``curve_data``."""
    settings = {"hidden": (12, 12), "num_centers": 10, "seed": 0, "grid_resolution": 100, **settings}
    if prior == "vamp":
        settings["pseudo_inputs"] = curve_data(8, seed=5).float()
    vae = make_vae(6, 2, prior, posterior, metric, **settings)
    encoder, mean = _trained(settings["hidden"], vae.encoder.scale_dim, settings["seed"])
    vae.encoder.load_state_dict(encoder)
    vae.decoder.mean.load_state_dict(mean)
    vae.refresh_metric()
    return vae.double()


@cache
def _trained(hidden: tuple[int, ...], scale_dim: int, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of an encoder and a decoder mean after 200 steps in the units of ``curve_data``."""
    vae = make_vae(6, 2, "normal", "normal" if scale_dim == 2 else "heat_kernel", hidden=hidden, seed=seed)
    vae.warm_up = True
    data, optimizer = curve_data().float(), torch.optim.Adam(vae.parameters(), 1e-2)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        for _ in range(200):
            posterior = vae.posterior(data)
            z = posterior.rsample()
            likelihood = vae.decoder.observation(z, warm_up=True).log_prob(data)
            loss = (posterior.log_prob(z) - vae.prior_distribution().log_prob(z) - likelihood).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return vae.encoder.state_dict(), vae.decoder.mean.state_dict()


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
