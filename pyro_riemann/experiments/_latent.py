"""What experiments do with a trained VAE: boxes, lines, priors with one centre, chains on the posterior of an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor, nn

from pyro_riemann._seed import seeded
from pyro_riemann.distributions import RiemannianHeatKernel
from pyro_riemann.geodesics import GeodesicSolver
from pyro_riemann.metrics import GridMetric, RiemannianMetric
from pyro_riemann.vae import VAE

FINE = GeodesicSolver(num_knots=16, num_segments=64, max_iterations=100)


def frozen(module: nn.Module) -> nn.Module:
    """The module in evaluation mode and without gradients in its weights."""
    for value in module.parameters():
        value.requires_grad_(False)
    return module.eval()


def frame(codes: Tensor, margin: float) -> Tensor:
    """Corners ``(2, d)`` of the box of the ``codes`` ``(n, d)``, that share of its sides longer at each end."""
    low, high = codes.amin(0), codes.amax(0)
    return torch.stack([low - margin * (high - low), high + margin * (high - low)])


def pairs(labels: Tensor, count: int, tries: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random pairs of different classes, at most ``count`` of so many: two vectors of indices."""
    with seeded(seed, labels.device):
        both = torch.randint(len(labels), (2, tries))
    apart = (labels[both[0]] != labels[both[1]]).nonzero()[:count, 0].cpu()
    return both[0, apart], both[1, apart]


def straight_length(metric: RiemannianMetric, z: Tensor, y: Tensor, segments: int = 400) -> Tensor:
    """Riemannian length of the straight line, by the midpoint rule, ``(*batch)``."""
    times = (torch.arange(segments, dtype=z.dtype, device=z.device) + 0.5) / segments
    points = z + times.reshape(-1, *(1,) * z.dim()) * (y - z)
    return metric.norm(points, (y - z).expand_as(points)).mean(0)


# -------------------------------------------------------------------- priors with one centre


class CentredMetric(RiemannianMetric):
    """A :class:`GridMetric` whose distances from ``loc`` come from its distance field.

    Every distance is asked for from that centre, as a heat kernel does; points outside the box are taken to its face.
    The field holds globally shortest distances, those of the prior's mass
    (:meth:`~pyro_riemann.RiemannianHeatKernel.log_normalizer`).

    Args:
        grid: the tabulated metric.
        loc: the centre ``(d,)``.
        resolution: nodes an axis of the field.

    Example:
        >>> from pyro_riemann import EuclideanMetric, GridMetric
        >>> metric = CentredMetric(GridMetric(EuclideanMetric(2), -1.0, 1.0, 20), torch.zeros(2), resolution=20)
        >>> round(metric.dist(torch.zeros(2), torch.tensor([0.6, 0.8])).item(), 3)
        1.0
    """

    def __init__(self, grid: GridMetric, loc: Tensor, resolution: int) -> None:
        super().__init__()
        self.dim, self.solver = grid.dim, grid.solver
        self.grid = grid
        self.field = grid.distance_field(loc.detach(), resolution)

    def metric(self, z: Tensor) -> Tensor:
        return self.grid.metric(z)

    def logdet(self, z: Tensor) -> Tensor:
        return 2 * self.grid.table(z)[..., : self.dim].sum(-1)  # the table holds the log-diagonal of a Cholesky factor

    def metric_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.grid.metric_jacobian(z)

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        return self.grid.christoffel(z, v)

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        return self.field.squared_dist(y).expand(torch.broadcast_shapes(z.shape[:-1], y.shape[:-1]))


STEPS = 1000  # of Brownian motion on a table, where they cost little


def tabulated_prior(grid: GridMetric, loc: Tensor, time: Tensor, resolution: int) -> RiemannianHeatKernel:
    """The heat-kernel prior with its distances tabulated, without gradients in its own parameters."""
    metric = CentredMetric(grid, loc, resolution)
    return RiemannianHeatKernel(loc.detach(), time.detach(), metric, num_steps=STEPS)  # draws only begin chains


@torch.no_grad()
def fitted_prior(vae: VAE, images: Tensor) -> dist.Independent:
    r"""The isotropic normal under which draws of the posteriors of ``images`` are most likely.

    It maximises the bound over normal priors with a centre and one variance,

    .. math:: m = E[z], \quad s^2 = E |z - m|^2 / d, \qquad z \sim \tfrac1n \sum_i q(z | x_i):

    d + 1 numbers, as many as the heat kernel's centre and time. Against N(0, I), which learns nothing from the codes,
    any learned prior would win.
    """
    laws = [vae.posterior(rows) for rows in images.split(2000)]
    loc, variance = (torch.cat([getattr(law, name) for law in laws]) for name in ("mean", "variance"))
    centre = loc.mean(0)
    scale = ((loc - centre).square() + variance).mean().sqrt()
    return dist.Normal(centre, scale.expand_as(centre)).to_event(1)


# -------------------------------------------------------------------- chains


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
