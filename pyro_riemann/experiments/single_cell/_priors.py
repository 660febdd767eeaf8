"""Priors learned on the codes of a VAE that is trained: Gaussians, a mixture of them, and a heat kernel."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from scipy import optimize
from sklearn.mixture import GaussianMixture
from torch import Tensor

from pyro_riemann.distributions._base import Shape
from pyro_riemann.experiments._centred import tabulated_prior
from pyro_riemann.metrics import GridMetric


class BoxKernel(dist.TorchDistribution):
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

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector

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
        self.grid, self.loc = grid, loc
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
            time = self._best_time(float(self.squared_dist(loc, codes).double().mean()))
        self.time = time
        self.log_mass = self._log_sum(time)
        super().__init__(torch.Size(), torch.Size((2,)), validate_args=False)

    def _log_sum(self, time: float) -> float:
        """Logarithm of the integral of exp(-squared distance / 2 time) for the Riemannian volume of the box."""
        return float(torch.logsumexp(self._log_volume - self._squared / (2 * time), 0))

    def _best_time(self, mean: float) -> float:
        """The time of the largest likelihood of codes with that mean squared distance."""

        def cost(log_time: float) -> float:
            return mean / (2 * math.exp(log_time)) + self._log_sum(math.exp(log_time))

        about = math.log(mean / 2)
        return math.exp(optimize.minimize_scalar(cost, bounds=(about - 3, about + 3), method="bounded").x)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draws ``(*sample_shape, 2)`` of the lattice's cells, uniform in each."""
        logits = self._log_volume - self._squared / (2 * self.time)
        nodes = self._nodes[dist.Categorical(logits=logits).sample(torch.Size(sample_shape))]
        return nodes + (torch.rand_like(nodes) - 0.5) * self._cell

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density with respect to dz at ``value`` ``(*batch, 2)``; minus infinity outside the box."""
        squared, logdet = self.squared_dist(self.loc, value), self.grid.logdet(value)
        density = 0.5 * logdet - squared / (2 * self.time) - self.log_mass
        return torch.where(self.grid.table.contains(value), density, torch.full_like(density, -torch.inf))


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
