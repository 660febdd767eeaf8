"""More dimensions than a table has: distances by the solver, the mass of a heat kernel by importance sampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from scipy import optimize
from torch import Tensor

from pyro_riemann import _linalg
from pyro_riemann.distributions._base import Shape
from pyro_riemann.experiments._latent import frame
from pyro_riemann.geodesics import GeodesicSolver
from pyro_riemann.metrics import RiemannianMetric

CURVES = GeodesicSolver()
DISTANCES = GeodesicSolver(
    num_knots=1, num_segments=6, max_iterations=2, max_polish=0, tolerance=1e-3, constant_hessian=True,
    on_failure="ignore",
)  # fmt: skip
ROWS = 256  # distances at a time
TAIL = 8.0  # degrees of freedom of the proposal
ADAPTATIONS = 2


class Box(NamedTuple):
    """Where a prior is not 0.

    Attributes:
        low: lower corner, ``(d,)``.
        high: upper corner, ``(d,)``.
    """

    low: Tensor
    high: Tensor

    def contains(self, z: Tensor) -> Tensor:
        """Which points ``(*batch, d)`` are inside, ``(*batch)`` bool."""
        return ((z >= self.low) & (z <= self.high)).all(-1)


def box_of(codes: Tensor, margin: float) -> Box:
    """The box of the ``codes`` ``(n, d)``, that share of its sides longer at each end."""
    return Box(*frame(codes, margin))


class BoxLaw(dist.TorchDistribution):
    """A heat kernel on a box, 0 outside; subclasses say how distances are found.

    Args:
        loc: the centre, ``(d,)``.
        time: running time.
        box: where it is not 0.
        log_mass: logarithm of the integral of exp(-squared distance / 2 time) for the Riemannian volume of the box.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector

    def __init__(self, loc: Tensor, time: float, box: Box, log_mass: float) -> None:
        self.loc, self.time, self.box, self.log_mass = loc, time, box, log_mass
        super().__init__(torch.Size(), loc.shape, validate_args=False)

    def at(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distances of ``z`` ``(n, d)`` to the centre, and log det G, each ``(n,)``."""
        raise NotImplementedError

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density with respect to dz at ``value`` ``(*batch, d)``; minus infinity outside the box."""
        flat = value.reshape(-1, value.shape[-1])
        squared, logdet = self.at(flat)
        density = 0.5 * logdet - squared / (2 * self.time) - self.log_mass
        inside = torch.where(self.box.contains(flat), density, torch.full_like(density, -torch.inf))
        return inside.reshape(value.shape[:-1])


class SolvedKernel(BoxLaw):
    """The one with the distances of :data:`DISTANCES`, without gradients; ``metric`` is any metric."""

    def __init__(self, metric: RiemannianMetric, loc: Tensor, time: float, box: Box, log_mass: float) -> None:
        self.metric = metric
        super().__init__(loc, time, box, log_mass)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Not needed here.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a kernel with solved distances is evaluated, not drawn from.")

    def at(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return _at(self.metric, self.loc, z)


def best_time(mean: float, dim: int, log_mass: Callable[[float], float], reach: float) -> tuple[float, float]:
    """The time of the largest likelihood of codes with that mean squared distance, and minus that likelihood.

    What is the same for all times is left out of it; ``reach`` is how far the logarithm may be from that of flat space.
    """

    def cost(log_time: float) -> float:
        return mean / (2 * math.exp(log_time)) + log_mass(math.exp(log_time))

    about = math.log(mean / dim)
    best = optimize.minimize_scalar(cost, bounds=(about - reach, about + reach), method="bounded")
    return math.exp(best.x), float(best.fun)


class KernelFit(NamedTuple):
    """A kernel and how well its mass is known.

    Attributes:
        kernel: the law.
        share: effective share of the draws that give its mass.
        error: standard error of the logarithm of that mass.
        likelihood: mean log density of the codes before each step of the centre, and at the end.
    """

    kernel: SolvedKernel
    share: float
    error: float
    likelihood: list[float]


def fit_solved_kernel(
    metric: RiemannianMetric, codes: Tensor, box: Box, *, draws: int, steps: int, seed: int
) -> KernelFit:
    r"""The heat kernel whose centre and time have the largest likelihood of the ``codes``.

    The mass is an importance-weighted sum over draws of a Student distribution that is adapted to it first. With these
    draws fixed, the centre moves along :math:`t\,G^{-1} \nabla_c L`, which in flat space leads from the centre to the
    mean of the codes in one step; a step is halved until the likelihood does not fall, and the time is the best one for
    each centre. The mass that is returned comes from other draws.

    Args:
        metric: any metric; its solver is used as it is.
        codes: ``(n, d)``.
        box: where the kernel is not 0.
        draws: of the mass.
        steps: of the centre, at most.
        seed: of the draws.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loc, time = codes.mean(0), float(_at(metric, codes.mean(0), codes)[0].mean() / metric.dim)
        proposal = _student(codes, torch.ones(len(codes)))
        for _ in range(ADAPTATIONS):
            mass = _Mass(metric, proposal, box, draws)
            weights = mass.weights(_at(metric, loc, mass.nodes)[0], time)
            proposal = _student(mass.nodes, weights)
        mass = _Mass(metric, proposal, box, draws)
        state = _state(metric, mass, codes, loc)
        history = [state.likelihood]
        for _ in range(steps):
            length = 1.0
            while length > 0.1:
                moved = _state(metric, mass, codes, state.loc + length * state.step)
                if moved.likelihood >= state.likelihood:
                    break
                length /= 2
            if moved.likelihood < state.likelihood:
                break
            gain, state = moved.likelihood - state.likelihood, moved
            history.append(state.likelihood)
            if gain < 1e-3:
                break
        fresh = _Mass(metric, proposal, box, 2 * draws)
        logs = fresh.logs(_at(metric, state.loc, fresh.nodes)[0], state.time)
        weights = (logs - logs.logsumexp(0)).exp()
        share = float(1 / weights.square().sum() / len(weights))
        log_mass = float(logs.logsumexp(0)) - math.log(len(logs))
    error = math.sqrt(max(0.0, (1 / share - 1) / len(weights)))
    return KernelFit(SolvedKernel(metric, state.loc, state.time, box, log_mass), share, error, history)


def _student(points: Tensor, weights: Tensor) -> dist.TorchDistribution:
    """Student's law with twice the covariance of weighted points ``(n, d)``."""
    share = (weights / weights.sum()).double()
    loc = share @ points.double()
    apart = points.double() - loc
    covariance = (share[:, None] * apart).mT @ apart + 1e-4 * torch.eye(points.shape[1], dtype=torch.float64)
    factor = torch.linalg.cholesky(2 * (TAIL - 2) / TAIL * covariance)
    return dist.MultivariateStudentT(TAIL, loc.to(points), factor.to(points))


class _Mass:
    """Draws of a proposal, with what does not depend on centre and time."""

    def __init__(self, metric: RiemannianMetric, proposal: dist.TorchDistribution, box: Box, draws: int) -> None:
        nodes = proposal.sample(torch.Size((draws,)))
        fixed = -proposal.log_prob(nodes).double()
        inside = box.contains(nodes)
        fixed[inside] += 0.5 * metric.logdet(nodes[inside]).double()
        fixed[~inside] = -torch.inf
        # a draw outside stands at a point inside, with the weight 0
        self.nodes, self.fixed = torch.where(inside[:, None], nodes, nodes[inside][:1]), fixed

    def logs(self, squared: Tensor, time: float) -> Tensor:
        return self.fixed - squared.double() / (2 * time)

    def weights(self, squared: Tensor, time: float) -> Tensor:
        return self.logs(squared, time).softmax(0)


class _State(NamedTuple):
    """A centre, its best time, the mean log density of the codes but for what is the same everywhere, and its step."""

    loc: Tensor
    time: float
    likelihood: float
    step: Tensor


def _state(metric: RiemannianMetric, mass: _Mass, codes: Tensor, loc: Tensor) -> _State:
    of_codes, by_codes = _with_slope(metric, loc, codes)
    of_nodes, by_nodes = _with_slope(metric, loc, mass.nodes)
    mean, count = float(of_codes.mean()), math.log(len(mass.nodes))

    def log_mass(time: float) -> float:
        return float(mass.logs(of_nodes, time).logsumexp(0)) - count

    time, cost = best_time(mean, metric.dim, log_mass, reach=2)
    weights = mass.weights(of_nodes, time).to(codes)
    slope = (weights @ by_nodes - by_codes.mean(0)) / (2 * time)
    step = time * _linalg.solve(metric.metric(loc), slope)
    return _State(loc, time, -cost, step)


@torch.no_grad()
def _at(metric: RiemannianMetric, loc: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances of ``z`` ``(n, d)`` to ``loc``, and log det G, each ``(n,)``."""
    parts = [(metric.squared_dist(loc.expand_as(part), part), metric.logdet(part)) for part in z.split(ROWS)]
    squared, logdet = (torch.cat(part).double() for part in zip(*parts, strict=True))
    return squared, logdet


def _with_slope(metric: RiemannianMetric, loc: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances ``(n,)`` of ``z`` ``(n, d)`` to ``loc``, and their gradients in ``loc``, ``(n, d)``."""
    found = []
    for part in z.split(ROWS):
        start = loc.expand_as(part).clone().requires_grad_()
        with torch.enable_grad():
            squared = metric.squared_dist(start, part)
            (slope,) = torch.autograd.grad(squared.sum(), start)
        found.append((squared.detach(), slope))
    squared, slopes = (torch.cat(part) for part in zip(*found, strict=True))
    return squared, slopes
