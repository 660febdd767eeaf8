"""The two phases of training: what each of them trains, and what it starts from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_riemann._formulas.training import active_groups
from pyro_riemann._modes import full_precision
from pyro_riemann._seed import seeded
from pyro_riemann.vae._models import VAE


def parameter_groups(vae: VAE) -> dict[str, list[nn.Parameter]]:
    """The parameters of a VAE by what they describe; phases freeze and train whole groups."""
    precision, scale = list(vae.decoder.precision_parameters()), list(vae.encoder.scale_parameters())
    return {
        "encoder": _others(vae.encoder, scale),
        "posterior": [*scale, *vae.posterior_family.parameters()],
        "decoder": _others(vae.decoder, precision),
        "precision": precision,
        "prior": list(vae.prior.parameters()),
    }


def _others(module: Any, chosen: list[nn.Parameter]) -> list[nn.Parameter]:
    known = {id(value) for value in chosen}
    return [value for value in module.parameters() if id(value) not in known]


def set_phase(vae: VAE, phase: int, phase_two: Iterable[str] = ("precision", "prior")) -> None:
    """Freeze all but the groups that this phase trains, and switch the warm-up on or off.

    Phase 1 trains encoder, posterior scale and decoder mean, and a prior that is not Riemannian.

    Args:
        vae: the model.
        phase: 1 or 2.
        phase_two: what phase 2 trains, as in :class:`TrainingConfig`.

    Source: K20, section 4 and appendix C.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> vae = make_vae(data_dim=4, hidden=(8,), num_centers=3)
        >>> set_phase(vae, 2)
        >>> vae.warm_up, next(vae.encoder.parameters()).requires_grad
        (False, False)
    """
    vae.warm_up = phase == 1
    active = active_groups(phase, phase_two, vae.prior.riemannian)
    for name, values in parameter_groups(vae).items():
        for value in values:
            value.requires_grad_(name in active)
    idle = vae.posterior_family.parameters() if phase == 1 and vae.posterior_family.riemannian else ()
    for value in [*idle, *(vae.decoder.warm_up_parameters() if phase == 2 else ())]:
        value.requires_grad_(False)  # not in use


@full_precision
@torch.no_grad()
def encode_all(vae: VAE, data: Tensor, batch_size: int = 2000) -> Tensor:
    """Locations of the posteriors of all data, ``(n, d)``, without gradient.

    Args:
        vae: the model.
        data: ``(n, D)``.
        batch_size: rows at once.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> encode_all(make_vae(data_dim=4, hidden=(8,), num_centers=3), torch.rand(10, 4)).shape
        torch.Size([10, 2])
    """
    return torch.cat([vae.encode(rows) for rows in data.split(batch_size)])


@full_precision
@torch.no_grad()
def start_phase_one(vae: VAE, data: Tensor) -> None:
    """Let encoder and decoder learn the units of the data, and start what only the warm-up has."""
    vae.encoder.standardize(data)
    vae.decoder.standardize(data)
    vae.decoder.start_warm_up(data)


@full_precision
@torch.no_grad()
def start_phase_two(vae: VAE, data: Tensor, seed: int = 0) -> None:
    """Precision centres and weights, metric, and the prior's starting values from encoded training data.

    The precision network sees draws of the Gaussian posterior, as in the ELBO, not its locations: fitted to
    those it would put its walls inside the posterior's own spread.

    Args:
        vae: the model, after phase 1.
        data: training data, ``(n, D)``.
        seed: of the draws and of k-means.

    Source: K20, section 4 and appendix C.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> vae = make_vae(data_dim=4, hidden=(8,), num_centers=3)
        >>> set_phase(vae, 2)
        >>> start_phase_two(vae, torch.rand(20, 4))
        >>> bool(vae.prior.time > 0)
        True
    """
    codes = encode_all(vae, data)
    if list(vae.decoder.precision_parameters()):
        with seeded(seed, data.device):
            loc, scale = (torch.cat(parts) for parts in zip(*(vae.encoder(x) for x in data.split(2000)), strict=True))
            draws = loc + scale * torch.randn_like(loc)
        vae.decoder.start_precision(draws, data, seed)
    if vae.needs_metric:
        vae.refresh_metric(codes)
        vae.prior.initialize(vae.metric if vae.prior.riemannian else None, codes)
