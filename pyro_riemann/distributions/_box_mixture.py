"""Uniform laws of a kernel metric: importance sampling from a Gaussian mixture that fits it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_riemann.distributions._box import SamplerReport, VolumeRule, log_volume_element
from pyro_riemann.distributions._box_moves import BoxMoves
from pyro_riemann.metrics import KernelMetric, RiemannianMetric

_REPLICATES, _POINTS = 8, 2048  # randomised quasi Monte Carlo: the spread of the replicates is the error
_ADAPT_BELOW, _ADAPT_ROUNDS = 0.5, 6
_UNIFORM_SHARE = 0.05
_BIAS = 0.005  # total variation left by the independence Metropolis chain
_MAX_STEPS = 512
_NUM_MOVES = 2


class BoxMixture:
    """Gaussian mixture with a uniform part on the box, in double precision.

    Args:
        loc: means ``(k, d)``, k may be 0.
        covariance: variances ``(k, d)`` or covariances ``(k, d, d)``.
        weights: ``(k + 1)``, the last of the uniform part, summing to 1.
        low: lower corner ``(d)``.
        high: upper corner ``(d)``.
    """

    def __init__(self, loc: Tensor, covariance: Tensor, weights: Tensor, low: Tensor, high: Tensor) -> None:
        self.loc, self.covariance, self.weights = loc, covariance, weights
        self.low, self.high = low.double(), high.double()
        self._is_diagonal = covariance.dim() == 2
        if self._is_diagonal:
            self._precision, logdet = 1 / covariance, covariance.log().sum(-1)
        else:
            self._tril = torch.linalg.cholesky(covariance)
            self._precision = torch.cholesky_inverse(self._tril)
            logdet = 2 * self._tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_peak = -0.5 * logdet - 0.5 * loc.shape[-1] * math.log(2 * math.pi)
        self._log_peak = torch.cat([log_peak, -(self.high - self.low).log().sum(-1, keepdim=True)])

    @classmethod
    def of_kernel(cls, metric: KernelMetric, low: Tensor, high: Tensor) -> BoxMixture:
        """An isolated bump of ``sqrt(det G)`` is the Gaussian ``N(c_i, rho^2 Sigma_i / d)``."""
        with torch.no_grad():
            precision, spread = metric.precisions.double(), metric.bandwidth.double() ** 2 / metric.dim
            if metric.is_diagonal:
                covariance, logdet = spread / precision, -precision.log().sum(-1)
            else:
                covariance, logdet = spread * torch.linalg.inv(precision), -torch.logdet(precision)
            element = log_volume_element(metric, metric.centroids.to(low)).double()
            bumps = element + 0.5 * logdet + 0.5 * metric.dim * (2 * math.pi * spread).log()
            floor = 0.5 * metric.dim * metric.regularization.double().log() + (high - low).double().log().sum()
            share = (floor - torch.cat([bumps, floor[None]]).logsumexp(0)).exp().clamp(_UNIFORM_SHARE, 0.95)
            weights = torch.cat([(1 - share) * bumps.softmax(0), share[None]])
        return cls(metric.centroids.detach().double(), covariance, weights, low, high)

    @classmethod
    def uniform(cls, low: Tensor, high: Tensor) -> BoxMixture:
        """Nothing but the uniform part."""
        none = torch.empty(0, low.shape[0], dtype=torch.float64, device=low.device)
        return cls(none, none, torch.ones(1, dtype=torch.float64, device=low.device), low, high)

    def components(self, z: Tensor) -> Tensor:
        """Log of weight times density of each part, ``(n, k + 1)``."""
        if self._is_diagonal:
            square, precision = z.square(), self._precision
            shifted = precision * self.loc
        else:
            square, precision = (z.unsqueeze(-1) * z.unsqueeze(-2)).flatten(-2), self._precision.flatten(-2)
            shifted = torch.einsum("kij,kj->ki", self._precision, self.loc)
        quadratic = square @ precision.mT - 2 * z @ shifted.mT + (shifted * self.loc).sum(-1)
        parts = torch.cat([-0.5 * quadratic, torch.zeros_like(z[:, :1])], dim=-1)
        return parts + self._log_peak + self.weights.log()

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density in the box, ``(n)``."""
        return self.components(z).logsumexp(-1)

    def place(self, uniform: Tensor) -> Tensor:
        """Draws ``(n, d)`` from uniform numbers ``(n, d + 1)``; a few lie outside the box."""
        edges = self.weights.cumsum(0)
        part = torch.searchsorted(edges / edges[-1], uniform[:, 0].contiguous(), right=True).clamp(max=len(edges) - 1)
        draws = self.low + (self.high - self.low) * uniform[:, 1:]
        gaussian = part < self.loc.shape[0]
        white = torch.special.ndtri(uniform[gaussian, 1:].clamp(1e-15, 1 - 1e-15))
        own = part[gaussian]
        if self._is_diagonal:
            moved = self.covariance[own].sqrt() * white
        else:
            moved = torch.einsum("nij,nj->ni", self._tril[own], white)
        draws[gaussian] = self.loc[own] + moved
        return draws

    def adapted(self, z: Tensor, weights: Tensor) -> BoxMixture:
        """One step of population Monte Carlo: the mixture fitted to weighted draws.

        Cappe, Douc, Guillin, Marin & Robert (2008), *Adaptive importance sampling in general mixture classes*.
        """
        share = self.components(z).softmax(-1) * weights.unsqueeze(-1)
        mass = share.sum(0)
        seen = mass[:-1].clamp(min=1e-12).unsqueeze(-1)
        used = (mass[:-1] > 1e-6).unsqueeze(-1)  # a part that met no draw keeps its place
        mean = share[:, :-1].mT @ z / seen
        if self._is_diagonal:
            spread = share[:, :-1].mT @ z.square() / seen - mean.square()
        else:
            spread = share[:, :-1].mT @ (z.unsqueeze(-1) * z.unsqueeze(-2)).flatten(-2) / seen
            spread = spread.unflatten(-1, (z.shape[-1],) * 2) - mean.unsqueeze(-1) * mean.unsqueeze(-2)
            used = used.unsqueeze(-1)
        # half of the old shape stays in: few draws never collapse a part
        covariance = torch.where(used, 0.5 * (spread + self.covariance), self.covariance)
        loc = torch.where(used.reshape(-1, 1), mean, self.loc)
        parts = (mass[:-1] / mass[:-1].sum()).clamp(min=1e-8)
        uniform = mass[-1:].clamp(_UNIFORM_SHARE, 0.95)
        return BoxMixture(
            loc, covariance, torch.cat([(1 - uniform) * parts / parts.sum(), uniform]), self.low, self.high
        )


class MixtureLaw:
    """Importance sampling from a mixture; draws by independence Metropolis and Hamiltonian moves.

    Args:
        metric: the metric.
        low: lower corner ``(d)``.
        high: upper corner ``(d)``.
        mixture: the proposal to start with; adapted if its efficiency is below a half.
        num_points: quasi Monte Carlo points in each of the replicates.
    """

    def __init__(
        self, metric: RiemannianMetric, low: Tensor, high: Tensor, mixture: BoxMixture, num_points: int = _POINTS
    ) -> None:
        self._metric, self._low, self._high, self.mixture = metric, low, high, mixture
        z, log_weight = self._pool(num_points)
        efficiency = _effective_share(log_weight)
        if efficiency < _ADAPT_BELOW and mixture.loc.shape[0] > 0:
            candidate, points, weights = mixture, z, log_weight
            for _ in range(_ADAPT_ROUNDS):
                candidate = candidate.adapted(points.flatten(0, 1), weights.flatten().softmax(0))
                points, weights = self._pool(num_points, candidate)
                if (reached := _effective_share(weights)) > efficiency:
                    self.mixture, z, log_weight, efficiency = candidate, points, weights, reached
        mean = log_weight.logsumexp((0, 1)) - math.log(log_weight.numel())
        spread = (log_weight.logsumexp(1) - math.log(num_points) - mean).exp().std() / _REPLICATES**0.5
        inside = log_weight.flatten() > -torch.inf
        weights = log_weight.flatten()[inside].softmax(0)
        self.rule = VolumeRule(mean.to(low), spread.to(low), z.flatten(0, 1)[inside].to(low), weights.to(low))
        self._num_steps = self._steps_needed(log_weight.flatten()[inside] - mean)
        generator = torch.Generator(low.device).manual_seed(0)
        start = torch.multinomial(weights, 256, replacement=True, generator=generator)
        variance = self._scale_squared()
        moves = BoxMoves(low, high, variance.sqrt().to(low))
        self._moves, acceptance = moves.tuned(self._log_density, self.rule.nodes[start], generator)
        self.report = SamplerReport("mixture", efficiency, acceptance, self._num_steps)

    def _log_density(self, z: Tensor) -> Tensor:
        return 0.5 * self._metric.logdet(z)

    def _scale_squared(self) -> Tensor:
        mixture = self.mixture
        if mixture.loc.shape[0] == 0:
            return (mixture.high - mixture.low).square() / 12
        parts = mixture.weights[:-1] / mixture.weights[:-1].sum()
        variances = (
            mixture.covariance if mixture.covariance.dim() == 2 else mixture.covariance.diagonal(dim1=-2, dim2=-1)
        )
        return parts @ variances

    def _pool(self, num_points: int, mixture: BoxMixture | None = None) -> tuple[Tensor, Tensor]:
        """Scrambled Sobol draws ``(replicates, n, d)`` and their log importance weights."""
        mixture = mixture or self.mixture
        dim = self._low.shape[0]
        engines = [torch.quasirandom.SobolEngine(dim + 1, scramble=True, seed=seed) for seed in range(_REPLICATES)]
        uniform = torch.cat([engine.draw(num_points, dtype=torch.float64) for engine in engines]).to(self._low.device)
        z, log_weight = self._weighted(uniform, mixture)
        return z.reshape(_REPLICATES, num_points, dim), log_weight.reshape(_REPLICATES, num_points)

    def _weighted(self, uniform: Tensor, mixture: BoxMixture) -> tuple[Tensor, Tensor]:
        z = mixture.place(uniform)
        inside = ((z >= mixture.low) & (z <= mixture.high)).all(-1)
        log_weight = torch.full_like(z[:, 0], -torch.inf)
        kept = z[inside]
        log_weight[inside] = log_volume_element(self._metric, kept.to(self._low)).double() - mixture.log_prob(kept)
        return z, log_weight

    @staticmethod
    def _steps_needed(log_weight: Tensor) -> int:
        """Steps after which the chain, started anywhere, is within ``_BIAS`` of the law.

        The independence sampler forgets its start at a point of weight w (mean 1) at the rate 1 - 1/w a step.
        """
        share, rate = log_weight.softmax(0), 1 - 1 / log_weight.exp().clamp(min=1)
        steps = 4
        while steps < _MAX_STEPS and float((share * rate**steps).sum()) > _BIAS:
            steps *= 2
        return steps

    def draw(self, count: int) -> Tensor:
        rows = max(1, 131072 // self._num_steps)
        pieces = [self._draw(min(rows, count - done)) for done in range(0, count, rows)]
        return torch.cat(pieces) if pieces else self._low.new_empty(0, self._low.shape[0])

    def _draw(self, count: int) -> Tensor:
        steps, dim, device = self._num_steps, self._low.shape[0], self._low.device
        uniform = torch.rand(count * steps, dim + 1, dtype=torch.float64, device=device)
        z, log_weight = self._weighted(uniform, self.mixture)
        z, log_weight = z.reshape(count, steps, dim), log_weight.reshape(count, steps)
        threshold = torch.rand(count, steps, dtype=torch.float64, device=device).log()
        row, current = torch.arange(count, device=device), torch.zeros(count, dtype=torch.long, device=device)
        for step in range(1, steps):
            gain = log_weight[:, step] - log_weight[row, current]  # NaN, and refused, if both are outside
            current = torch.where(threshold[:, step] < gain, step, current)
        draws = z[row, current].to(self._low)
        # a chain that has met no point of the box yet, too rare to matter, starts from the pool
        lost = log_weight[row, current] == -torch.inf
        if bool(lost.any()):
            chosen = torch.multinomial(self.rule.weights, int(lost.sum()), replacement=True)
            draws[lost] = self.rule.nodes[chosen]
        for _ in range(_NUM_MOVES):
            draws, _ = self._moves(self._log_density, draws)
        return draws


def _effective_share(log_weight: Tensor) -> float:
    """Effective sample size per draw, ``(sum w)^2 / (n sum w^2)``."""
    flat = log_weight.flatten()
    return float((2 * flat.logsumexp(0) - (2 * flat).logsumexp(0) - math.log(flat.numel())).exp())
