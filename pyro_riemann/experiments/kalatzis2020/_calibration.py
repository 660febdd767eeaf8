"""Simulation-based calibration of the latent posterior: draw a code, draw an image, sample the code again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.stats import chisquare
from torch import Tensor

from pyro_riemann._seed import seeded
from pyro_riemann.distributions import RiemannianHeatKernel
from pyro_riemann.experiments._chains import LatentPosterior, run_chains
from pyro_riemann.experiments.kalatzis2020._scenes import draw_tabulated
from pyro_riemann.metrics import GridMetric
from pyro_riemann.vae import VAE

_KEPT = 19  # draws kept of each chain: ranks 0 ... 19
_THIN = 5


def calibrate(vae: VAE, prior: RiemannianHeatKernel, runs: int, seed: int = 0, warmup: int = 150) -> dict[str, Any]:
    """Ranks of true codes, drawn from ``prior``, among NUTS draws, and whether they are uniform (Talts et al. 2018).

    For d = 2, by chi-square tests on the ranks of either coordinate and of the distance to the prior's centre.
    Chains start from the encoder's posterior, so that a chain that does not mix shows as well.
    """
    metric = vae.metric
    if not isinstance(metric, GridMetric):
        raise TypeError("calibration needs the tabulated metric of a two-dimensional R-VAE.")
    truths = draw_tabulated(prior, torch.stack([metric.table.low, metric.table.high]), runs, seed)
    draws = []
    for index, truth in enumerate(truths):
        with seeded(seed + 1000 + index, truth.device), torch.no_grad():
            image = vae.decoder.observation(truth).sample()
            start = vae.posterior(image).sample((1,))
        chain = run_chains(
            LatentPosterior(vae.decoder, prior, image), start, warmup=warmup, draws=_THIN * _KEPT, seed=seed + index
        )[0]
        draws.append(chain.get_samples()["z"][::_THIN].detach())
    return {**uniformity(prior, truths, torch.stack(draws)), "thinning": _THIN, "warmup": warmup, "runs": runs}


def uniformity(prior: RiemannianHeatKernel, truths: Tensor, draws: Tensor) -> dict[str, Any]:
    """Ranks of the ``truths`` ``(n, d)`` among ``draws`` ``(n, k, d)``, with p-values of their being uniform."""
    kept = draws.shape[1]
    bins = 5  # at least five ranks expected in a bin from 25 runs on
    of_truths, of_draws = _statistics(prior, truths), _statistics(prior, draws)
    ranks = {name: (of_draws[name] < value.unsqueeze(-1)).sum(-1).tolist() for name, value in of_truths.items()}
    counts = {name: np.bincount(np.asarray(own) * bins // (kept + 1), minlength=bins) for name, own in ranks.items()}
    p_values = {name: float(chisquare(count).pvalue) for name, count in counts.items()}
    return {"ranks": ranks, "p_values": p_values, "kept_draws": kept}


@torch.no_grad()
def _statistics(prior: RiemannianHeatKernel, z: Tensor) -> dict[str, Tensor]:
    distance = prior.metric.squared_dist(prior.loc.expand_as(z), z)
    return {"first coordinate": z[..., 0], "second coordinate": z[..., 1], "distance to the centre": distance}
