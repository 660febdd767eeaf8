"""Priors learned on the codes of a trained VAE: Gaussians, a heat kernel; the posterior of one cell under it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy import optimize
from sklearn.mixture import GaussianMixture
from torch import Tensor

from pyro_riemann._seed import seeded
from pyro_riemann.diagnostics import summary, to_arviz
from pyro_riemann.distributions._base import Shape
from pyro_riemann.experiments._latent import LatentPosterior, run_chains, tabulated_prior
from pyro_riemann.experiments.single_cell._solved import Box, BoxLaw, best_time
from pyro_riemann.metrics import GridMetric
from pyro_riemann.vae import VAE


class BoxKernel(BoxLaw):
    """A heat kernel on the box of its table, 0 outside, of mass 1 there by a sum over a lattice.

    Args:
        grid: the table, d = 2.
        loc: the centre, ``(2,)``.
        resolution: nodes an axis of the distance field.
        lattice: points an axis of the sum.
        time: running time, a positive number; by default that of the largest likelihood of ``codes``.
        codes: ``(n, 2)``, where no time is given.

    Raises:
        ValueError: without a time and without codes.
    """

    def __init__(
        self,
        grid: GridMetric,
        loc: Tensor,
        resolution: int,
        *,
        lattice: int = 200,
        time: float | None = None,
        codes: Tensor | None = None,
    ) -> None:
        self.grid = grid
        self.kernel = tabulated_prior(grid, loc, torch.ones(()), resolution)
        self.squared_dist = self.kernel.metric.squared_dist
        low, high = grid.table.low.double(), grid.table.high.double()
        ticks = [(torch.arange(lattice) + 0.5) / lattice * (b - a) + a for a, b in zip(low, high, strict=True)]
        self._nodes, self._cell = torch.cartesian_prod(*ticks).to(loc), ((high - low) / lattice).to(loc)
        self._squared = self.squared_dist(loc, self._nodes).double()
        self._log_volume = 0.5 * grid.logdet(self._nodes).double() + float(self._cell.double().log().sum())
        if time is None:
            if codes is None:
                raise ValueError("`time` or `codes` is needed.")
            mean = float(self.squared_dist(loc, codes).double().mean())
            time, _ = best_time(mean, 2, self._log_sum, reach=3)
        super().__init__(loc, time, Box(grid.table.low, grid.table.high), self._log_sum(time))

    def _log_sum(self, time: float) -> float:
        """Logarithm of the integral of exp(-squared distance / 2 time) for the Riemannian volume of the box."""
        return float(torch.logsumexp(self._log_volume - self._squared / (2 * time), 0))

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draws ``(*sample_shape, 2)`` of the lattice's cells, uniform in each."""
        logits = self._log_volume - self._squared / (2 * self.time)
        nodes = self._nodes[dist.Categorical(logits=logits).sample(torch.Size(sample_shape))]
        return nodes + (torch.rand_like(nodes) - 0.5) * self._cell

    def at(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.squared_dist(self.loc, z), self.grid.logdet(z)


def fit_kernel(grid: GridMetric, codes: Tensor, *, resolution: int, evaluations: int) -> BoxKernel:
    """The heat kernel whose centre and time have the largest likelihood of the ``codes``, by Nelder and Mead's search.

    Args:
        grid: the table.
        codes: ``(n, 2)``, inside its box.
        resolution: nodes an axis of the distance field.
        evaluations: centres that the search may try, with a distance field each.
    """
    low, high = grid.table.low, grid.table.high
    unit = codes.std(0)
    start = codes.mean(0)

    def kernel(x: np.ndarray) -> BoxKernel:
        loc = start + unit * torch.from_numpy(x).to(codes)
        return BoxKernel(grid, torch.clamp(loc, low + 1e-3 * unit, high - 1e-3 * unit), resolution, codes=codes)

    def cost(x: np.ndarray) -> float:
        return -float(kernel(x).log_prob(codes).mean())

    simplex = np.array([[0.0, 0.0], [0.4, 0.0], [0.0, 0.4]])
    options = {"maxfev": evaluations, "initial_simplex": simplex, "xatol": 1e-2, "fatol": 1e-4}
    return kernel(optimize.minimize(cost, simplex[0], method="Nelder-Mead", options=options).x)


def fit_gaussians(codes: Tensor, seed: int) -> dict[str, dist.TorchDistribution]:
    """N(0, I), and the Gaussians of the largest likelihood of the ``codes`` ``(n, d)``, by name.

    Args:
        codes: ``(n, d)``.
        seed: of the mixture of three by expectation maximisation.
    """
    dim, loc = codes.shape[1], codes.mean(0)
    covariance = torch.cov(codes.T, correction=0)
    scale = (covariance.trace() / dim).sqrt()
    few = GaussianMixture(3, n_init=3, random_state=seed).fit(codes.double().numpy())
    parts = [torch.from_numpy(part).to(codes) for part in (few.weights_, few.means_, few.covariances_)]
    return {
        "standard": dist.Normal(torch.zeros(dim), 1.0).to_event(1),
        "isotropic": dist.Normal(loc, scale).to_event(1),
        "full": dist.MultivariateNormal(loc, covariance),
        "mixture": dist.MixtureSameFamily(
            dist.Categorical(parts[0]), dist.MultivariateNormal(parts[1], covariance_matrix=parts[2])
        ),
    }


# -------------------------------------------------------------------- one cell: NUTS, and a sum over a lattice


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
