"""Proposals for a Riemannian uniform on a box: Gaussian mixtures with a defensive uniform part."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_riemann.distributions._box import log_volume_element
from pyro_riemann.metrics import RiemannianMetric

UNIFORM_SHARE = 0.05  # of the defensive part: bounds the weight of a point that no Gaussian knows of
_LARGEST_SHARE = 0.95
_REACH = 5.0  # standard deviations beyond the box at which a known peak no longer matters
_ENTRIES = 2**18  # of one table of points against parts: it stays in the cache


class GaussianParts:
    """A mixture of Gaussians, in double precision.

    Args:
        loc: means ``(m, d)``.
        covariance: variances ``(m, d)`` or covariances ``(m, d, d)``.
        log_weight: ``(m)``; their total is kept as ``log_mass``, and they are normalised.
    """

    def __init__(self, loc: Tensor, covariance: Tensor, log_weight: Tensor) -> None:
        if covariance.dim() == 3 and bool(
            (torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1)) == covariance).all()
        ):
            covariance = covariance.diagonal(dim1=-2, dim2=-1)  # a tenth of the work
        self.loc, self.covariance, self.log_weight = loc, covariance, log_weight.log_softmax(0)
        self.log_mass = float(log_weight.logsumexp(0))
        dim = loc.shape[1]
        if covariance.dim() == 2:
            precision, logdet = 1 / covariance, covariance.log().sum(-1)
            self._root, shifted = covariance.sqrt(), precision * loc
        else:
            self._root = torch.linalg.cholesky(covariance)
            precision = torch.cholesky_inverse(self._root)
            logdet = 2 * self._root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            shifted = torch.einsum("mij,mj->mi", precision, loc)
        peak = self.log_weight - 0.5 * logdet - 0.5 * dim * math.log(2 * math.pi)
        self._constant = peak - 0.5 * (shifted * loc).sum(-1)
        self._rows = torch.cat([-0.5 * precision.flatten(1), shifted], dim=1).mT

    def components(self, z: Tensor) -> Tensor:
        """Log of weight times density of each part, ``(n, m)``."""
        square = z.square() if self.covariance.dim() == 2 else (z.unsqueeze(-1) * z.unsqueeze(-2)).flatten(-2)
        return torch.addmm(self._constant, torch.cat([square, z], dim=-1), self._rows)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density, ``(n)``."""
        rows = max(64, _ENTRIES // self.loc.shape[0])
        return torch.cat([_logsumexp(self.components(piece)) for piece in z.split(rows)])

    def with_slope(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Log density ``(n)`` and its gradient ``(n, d)``, the latter in single precision."""
        rows = max(64, _ENTRIES // self.loc.shape[0])
        found = [self._with_slope(piece) for piece in z.split(rows)]
        value, slope = (torch.cat(part) for part in zip(*found, strict=True))
        return value, slope

    def _with_slope(self, z: Tensor) -> tuple[Tensor, Tensor]:
        table = self.components(z)
        largest = table.amax(-1, keepdim=True)
        share = (table - largest).clamp_(min=-80).float().exp_()
        total = share.sum(-1, keepdim=True)
        rate = (share @ self._rows.mT.float()).to(z) / total  # of the features: squares or products, and coordinates
        dim = z.shape[-1]
        if self.covariance.dim() == 2:
            slope = 2 * rate[:, :dim] * z + rate[:, dim:]
        else:
            slope = 2 * torch.einsum("nij,nj->ni", rate[:, :-dim].unflatten(-1, (dim, dim)), z) + rate[:, -dim:]
        return (total.to(z).log() + largest).squeeze(-1), slope

    def place(self, part: Tensor, uniform: Tensor) -> Tensor:
        """Draws ``(n, d)`` of the parts with index ``part (n)``, from uniform numbers ``(n, d)``."""
        white = torch.special.ndtri(uniform.clamp(1e-15, 1 - 1e-15))
        if self.covariance.dim() == 2:
            return self.loc[part] + self._root[part] * white
        return self.loc[part] + torch.einsum("nij,nj->ni", self._root[part], white)

    def variance(self) -> Tensor:
        """Mean over the parts of their variances, ``(d)``: the length scales within a part, squared."""
        diagonal = self.covariance if self.covariance.dim() == 2 else self.covariance.diagonal(dim1=-2, dim2=-1)
        return self.log_weight.exp() @ diagonal

    def widened(self, factor: float, power: float) -> GaussianParts:
        """The parts with covariances times ``factor`` and weights to a ``power`` below 1."""
        return GaussianParts(self.loc, factor * self.covariance, power * self.log_weight)

    def adapted(self, z: Tensor, weights: Tensor) -> GaussianParts:
        """The parts, with full covariances, fitted to draws ``(n, d)`` of which these parts own ``weights (n)``."""
        share = self.components(z).softmax(-1) * weights.unsqueeze(-1)
        mass = share.sum(0)
        seen = mass.clamp(min=1e-12).unsqueeze(-1)
        used = mass.unsqueeze(-1) > 1e-6  # a part that met no draw keeps its place
        mean = share.mT @ z / seen
        spread = share.mT @ (z.unsqueeze(-1) * z.unsqueeze(-2)).flatten(-2) / seen
        spread = spread.unflatten(-1, (z.shape[-1],) * 2) - mean.unsqueeze(-1) * mean.unsqueeze(-2)
        old = torch.diag_embed(self.covariance) if self.covariance.dim() == 2 else self.covariance
        # half of the old shape stays in: few draws never collapse a part; 5 % wider, as weights are large in the tails
        covariance = torch.where(used.unsqueeze(-1), 0.525 * (spread + old), old)
        return GaussianParts(torch.where(used, mean, self.loc), covariance, mass.clamp(min=1e-8).log())


class MixtureProposal:
    r"""Defensive mixture: Gaussian parts for the bumps of :math:`\sqrt{\det G}`, and a uniform part on the box.

    .. math:: q(z) = \sum_b s_b \sum_i w_{bi}\, N(z; \mu_{bi}, C_{bi}) + s_u\, 1_{box}(z) / |box|

    Draws of a Gaussian that fall outside the box have target density 0 and are refused by whoever weighs them.
    Densities are with respect to dz. Everything is in double precision.

    Args:
        blocks: groups of Gaussians, each normalised on its own.
        shares: probabilities of the groups and, last, of the uniform part, ``(groups + 1)``.
        low: lower corner of the box, ``(d)``.
        high: upper corner, ``(d)``.

    Source: the bumps of C22 eq. 7; defensive mixtures are those of Hesterberg (1995), *Weighted average importance
    sampling and defensive mixture distributions*.

    Example:
        >>> metric = KernelMetric(torch.zeros(1, 2), torch.ones(1, 2), bandwidth=1.0, regularization=1e-9)
        >>> proposal = MixtureProposal.of_peaks(metric, torch.full((2,), -9.0), torch.full((2,), 9.0))
        >>> proposal.draw(4).shape, [round(share, 4) for share in proposal.shares.tolist()]
        (torch.Size([4, 2]), [0.95, 0.05])
    """

    def __init__(self, blocks: Sequence[GaussianParts], shares: Tensor, low: Tensor, high: Tensor) -> None:
        self.blocks, self.low, self.high = tuple(blocks), low.double(), high.double()
        self.shares = shares / shares.sum()
        self._log_uniform = -(self.high - self.low).log().sum()

    @classmethod
    def uniform(cls, low: Tensor, high: Tensor) -> MixtureProposal:
        """Nothing but the uniform part, on the box from ``low`` ``(d)`` to ``high`` ``(d)``."""
        return cls((), torch.ones(1, dtype=torch.float64, device=low.device), low, high)

    @classmethod
    def of_parts(
        cls, blocks: Sequence[GaussianParts], low: Tensor, high: Tensor, log_rest: float, smallest: float = 0.0
    ) -> MixtureProposal:
        """Groups in proportion to their masses, and a uniform part for the rest of the volume, at least 5 %.

        Args:
            blocks: groups of Gaussians, which know their masses.
            low: lower corner of the box, ``(d)``.
            high: upper corner, ``(d)``.
            log_rest: log volume of what the groups leave over.
            smallest: share of each group at least.
        """
        masses = torch.tensor([*(block.log_mass for block in blocks), log_rest], dtype=torch.float64, device=low.device)
        shares = masses.softmax(0)
        shares[-1] = shares[-1].clamp(UNIFORM_SHARE, _LARGEST_SHARE) if blocks else 1.0
        shares[:-1] = (shares[:-1] / shares[:-1].sum().clamp(min=1e-300)).clamp(min=smallest) * (1 - shares[-1])
        return cls(blocks, shares, low, high)

    @classmethod
    def of_peaks(cls, metric: RiemannianMetric, low: Tensor, high: Tensor) -> MixtureProposal:
        r"""One Gaussian for each of the peaks that the metric knows of.

        Weights are proportional to :math:`\sqrt{\det G(c_i) \det C_i}`, which counts what neighbours add at the top;
        the uniform part has the share of the volume that half of the box is below, and at least 5 %.

        Args:
            metric: the metric; a :class:`~pyro_riemann.KernelMetric`, for one, knows its peaks.
            low: lower corner of the box, ``(d)``.
            high: upper corner, ``(d)``.

        Raises:
            ValueError: if the metric has no finite volume element at a peak or elsewhere in the box.
        """
        unit = torch.quasirandom.SobolEngine(low.shape[0], scramble=True, seed=0).draw(256, dtype=torch.float64)
        height = log_volume_element(metric, low + (high - low) * unit.to(low)).double()
        rest = float(height.median() + (high - low).double().log().sum())
        known = known_parts(metric, low, high)
        return cls.of_parts([] if known is None else [known], low, high, rest)

    def widened(self) -> MixtureProposal:
        """A wider law, half of it uniform, where a tempered sequence starts; its groups count the same."""
        groups = len(self.blocks)
        if not groups:
            return self
        shares = torch.full_like(self.shares, 0.5 / groups)
        shares[-1] = 0.5
        return MixtureProposal([block.widened(1.5, 0.5) for block in self.blocks], shares, self.low, self.high)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density with respect to dz at points ``z`` ``(n, d)`` of the box, ``(n)``."""
        return self.table(z).logsumexp(-1)

    def with_slope(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`log_prob` ``(n)`` and its gradient ``(n, d)``, the latter in single precision.

        Args:
            z: points, ``(n, d)``.
        """
        parts = [block.with_slope(z) for block in self.blocks]
        table = torch.stack([*(value for value, _ in parts), self._log_uniform.expand(len(z))], -1) + self.shares.log()
        owner, slope = table.softmax(-1), torch.zeros_like(z)
        for index, (_, own) in enumerate(parts):
            slope = slope + owner[:, index, None] * own
        return table.logsumexp(-1), slope

    def table(self, z: Tensor) -> Tensor:
        """Log of share times density of each group and of the uniform part at ``z`` ``(n, d)``; ``(n, groups + 1)``."""
        parts = [block.log_prob(z) for block in self.blocks]
        return torch.stack([*parts, self._log_uniform.expand(len(z))], dim=-1) + self.shares.log()

    def place(self, uniform: Tensor) -> Tensor:
        """Draws ``(n, d)`` from uniform numbers ``(n, d + 1)``; a few lie outside the box."""
        draws = self.low + (self.high - self.low) * uniform[:, 1:]
        sizes = [block.loc.shape[0] for block in self.blocks]
        shares = [s * block.log_weight.exp() for s, block in zip(self.shares, self.blocks, strict=False)]
        edges = torch.cat([*shares, self.shares[-1:]]).cumsum(0)
        part = torch.searchsorted(edges / edges[-1], uniform[:, 0].contiguous(), right=True)
        for block, size in zip(self.blocks, sizes, strict=True):
            own = (part >= 0) & (part < size)
            draws[own] = block.place(part[own], uniform[own, 1:])
            part = part - size
        return draws

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """``(count, d)`` draws by a ``generator``, the global one if None; a few lie outside the box."""
        shape = (count, self.low.shape[0] + 1)
        return self.place(torch.rand(shape, generator=generator, dtype=torch.float64, device=self.low.device))

    def weigh(self, metric: RiemannianMetric, z: Tensor, dtype: torch.dtype) -> Tensor:
        r"""Log importance weights :math:`\log \sqrt{\det G} - \log q`, ``(n)``; ``-inf`` outside the box.

        Args:
            metric: gives the target, evaluated in ``dtype``.
            z: points ``(n, d)``.
            dtype: that of the metric.
        """
        return self.weigh_with_table(metric, z, dtype)[0]

    def weigh_with_table(self, metric: RiemannianMetric, z: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """What :meth:`weigh` returns, ``(n)``, and the :meth:`table`, ``(n, groups + 1)``, that it made on the way.

        Args:
            metric: gives the target, evaluated in ``dtype``.
            z: points ``(n, d)``.
            dtype: that of the metric.

        Raises:
            ValueError: if the metric has no finite volume element at a point of the box.
        """
        table = self.table(z)
        log_weight = torch.full_like(z[:, 0], -torch.inf)
        inside = ((z >= self.low) & (z <= self.high)).all(-1)
        log_target = log_volume_element(metric, z[inside].to(dtype)).double()
        log_weight[inside] = log_target - table[inside].logsumexp(-1)
        return log_weight, table

    def scale(self) -> Tensor:
        """Length scale of the target in each coordinate, ``(d)``: that of the largest group of Gaussians."""
        if not self.blocks:
            return (self.high - self.low) / 12**0.5
        return self.blocks[int(self.shares[:-1].argmax())].variance().sqrt()

    def adapted(self, z: Tensor, weights: Tensor, table: Tensor, smallest: float = 0.1) -> MixtureProposal:
        """One step of population Monte Carlo on the first group; the others change their share only.

        Cappe, Douc, Guillin, Marin & Robert (2008), *Adaptive importance sampling in general mixture classes*.

        Args:
            z: draws ``(n, d)``.
            weights: normalised importance weights ``(n)``.
            table: :meth:`table` of ``z``, ``(n, groups + 1)``.
            smallest: share that each other group keeps.
        """
        owner = table.softmax(-1) * weights.unsqueeze(-1)
        shares = owner.sum(0)
        shares[1:-1] = shares[1:-1].clamp(min=smallest)
        shares[-1] = shares[-1].clamp(UNIFORM_SHARE, _LARGEST_SHARE)
        first = self.blocks[0].adapted(z, owner[:, 0])
        return MixtureProposal((first, *self.blocks[1:]), shares, self.low, self.high)


@torch.no_grad()
def known_parts(metric: RiemannianMetric, low: Tensor, high: Tensor) -> GaussianParts | None:
    """The peaks that the metric knows of and that reach into the box, as Gaussians with their masses."""
    known = metric.peaks()
    if known is None:
        return None
    loc, covariance = (tensor.detach().to(low.device).double() for tensor in known)
    spread = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    near = ((loc > low - _REACH * spread) & (loc < high + _REACH * spread)).all(-1)
    if not bool(near.any()):
        return None
    loc, covariance = loc[near], covariance[near]
    # outside the box the metric need not be defined: a peak there counts by what it is at the wall
    height = log_volume_element(metric, loc.clamp(low.double(), high.double()).to(low)).double()
    area = 0.5 * torch.logdet(covariance) + 0.5 * loc.shape[1] * math.log(2 * math.pi)
    return GaussianParts(loc, covariance, height + area)


def _logsumexp(table: Tensor) -> Tensor:
    """``logsumexp(-1)``, ten times as fast where most entries are far below the largest.

    Exponentials that underflow are slow, and seven digits of a proposal density are plenty.
    """
    largest = table.detach().amax(-1, keepdim=True)
    return (table - largest).clamp(min=-80).float().exp().sum(-1).to(table).log() + largest.squeeze(-1)


def effective_share(log_weight: Tensor) -> float:
    """Effective sample size per draw, ``(sum w)^2 / (n sum w^2)``; 0 if every weight is 0."""
    flat = log_weight.flatten()
    share = (2 * flat.logsumexp(0) - (2 * flat).logsumexp(0) - math.log(flat.numel())).exp()
    return float(share.nan_to_num(nan=0.0))
