"""NUTS over the code of one cell, beside the same posterior by a sum over a lattice."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_riemann._seed import seeded
from pyro_riemann.diagnostics import summary, to_arviz
from pyro_riemann.experiments._chains import LatentPosterior, run_chains
from pyro_riemann.experiments.single_cell._priors import BoxKernel
from pyro_riemann.vae import VAE


class CellPosterior(LatentPosterior):
    """The model z ~ prior, x ~ decoder(z) for the counts of one cell, given their total.

    Args:
        vae: a frozen VAE.
        prior: of its codes.
        counts: of the cell, ``(genes,)``.
    """

    def __init__(self, vae: VAE, prior: BoxKernel, counts: Tensor) -> None:
        super().__init__(vae.decoder, prior, counts)
        self.total = vae.decoder.exposure(counts)

    def __call__(self) -> Tensor:
        z: Tensor = pyro.sample("z", self.prior)
        pyro.sample("x", self.decoder.observation(z, exposure=self.total), obs=self.image)
        return z


def sample_cell(
    vae: VAE, prior: BoxKernel, counts: Tensor, *, chains: int, warmup: int, draws: int, seed: int
) -> dict[str, Any]:
    """Chains of NUTS on one cell's code, judged; JSON-able.

    Args:
        vae: a frozen VAE.
        prior: of its codes.
        counts: of the cell, ``(genes,)``.
        chains: how many, from draws of the encoder's posterior.
        warmup: adaptation steps of each chain.
        draws: kept of each chain.
        seed: of all.
    """
    posterior = vae.posterior(counts[None])
    with seeded(seed):
        starts = posterior.sample((chains,))[:, 0]
    model = CellPosterior(vae, prior, counts)
    runs = run_chains(model, starts, warmup=warmup, draws=draws, seed=seed, jit_compile=False)
    table = summary(to_arviz(runs))
    mean, deviation = lattice_moments(vae, prior, counts, posterior.mean[0], posterior.stddev[0])
    return {
        "r_hat": table["r_hat"].tolist(),
        "ess_bulk": table["ess_bulk"].tolist(),
        "divergences": table.divergences,
        "mean": table["mean"].tolist(),
        "sd": table["sd"].tolist(),
        "lattice_mean": mean.tolist(),
        "lattice_sd": deviation.tolist(),
        "encoder_mean": posterior.mean[0].tolist(),
        "encoder_sd": posterior.stddev[0].tolist(),
    }


@torch.no_grad()
def lattice_moments(
    vae: VAE, prior: BoxKernel, counts: Tensor, loc: Tensor, scale: Tensor, *, lattice: int = 81
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``(2,)`` of a cell's code by sums over lattices, the second about the first's mean.

    Args:
        vae: a frozen VAE.
        prior: of its codes.
        counts: of the cell, ``(genes,)``.
        loc: middle of the first lattice, ``(2,)``.
        scale: it reaches 12 of these to each side, ``(2,)``.
        lattice: points an axis.
    """
    exposure = vae.decoder.exposure(counts)
    for reach in (12.0, 6.0):
        axis = torch.linspace(-reach, reach, lattice)
        nodes = loc + scale * torch.cartesian_prod(axis, axis)
        logits = vae.decoder.observation(nodes, exposure=exposure).log_prob(counts) + prior.log_prob(nodes)
        weights = logits.double().softmax(0)
        loc = (weights @ nodes.double()).float()
        scale = (weights @ (nodes.double() - loc).square()).sqrt().float()
    return loc, scale
