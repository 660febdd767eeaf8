"""NUTS on the latent posterior of one image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.infer import MCMC, NUTS
from torch import Tensor, nn

from pyro_riemann._seed import seeded


class LatentPosterior:
    """The model z ~ prior, x ~ decoder(z), for one observed image.

    Args:
        decoder: a decoder with a method ``observation``; its weights are not touched.
        prior: batch shape ``()``, event shape ``(d,)``.
        image: ``(D,)``.
    """

    def __init__(self, decoder: Any, prior: dist.TorchDistribution, image: Tensor) -> None:
        self.decoder, self.prior, self.image = decoder, prior, image

    def __call__(self) -> Tensor:
        z = pyro.sample("z", self.prior)
        pyro.sample("x", self.decoder.observation(z), obs=self.image)
        return z


def run_chains(
    model: LatentPosterior,
    starts: Tensor,
    *,
    warmup: int,
    draws: int,
    seed: int = 0,
    jit_compile: bool = True,
    finished: Callable[[int], None] = lambda chain: None,
) -> list[MCMC]:
    """One NUTS run for each row of ``starts``, in this process.

    Pyro runs the chains of one ``MCMC`` in processes of their own, each of which would take longer to import torch than
    a chain here takes to run.

    Args:
        model: what to sample.
        starts: initial codes ``(chains, d)``.
        warmup: adaptation steps.
        draws: draws kept, each chain.
        seed: chain c uses ``seed + c``.
        jit_compile: trace the potential once: half the time of a gradient, or less.
        finished: told the number of each chain that is done.
    """
    runs = []
    for chain, start in enumerate(starts):
        with seeded(seed + chain, start.device):
            mcmc = MCMC(
                # small steps: the posterior of a code near a wall of the metric is steep
                NUTS(model, full_mass=True, target_accept_prob=0.95, jit_compile=jit_compile, ignore_jit_warnings=True),
                num_samples=draws,
                warmup_steps=warmup,
                initial_params={"z": start.detach().clone()},
                disable_progbar=True,
            )
            mcmc.run()
        runs.append(mcmc)
        finished(chain)
    return runs


def frozen(module: nn.Module) -> nn.Module:
    """The module in evaluation mode and without gradients in its weights."""
    for value in module.parameters():
        value.requires_grad_(False)
    return module.eval()
