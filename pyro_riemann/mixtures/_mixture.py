"""A mixture of exact heat kernels, several times at each centre, and which points are near which centres."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import scipy
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_riemann._checks import check_finite, check_point, check_positive
from pyro_riemann._modes import ValidatedDistribution, full_precision_methods
from pyro_riemann.distributions import RiemannianHeatKernel
from pyro_riemann.manifolds import Sphere
from pyro_riemann.metrics import RiemannianMetric

ROWS = 1 << 12  # points at a time


@full_precision_methods
class HeatKernelMixture(ValidatedDistribution):
    r"""Mixture of exact heat kernels :math:`\sum_{ik} w_{ik}\, p_{t_{ik}}(\mu_i, z)`: Brownian motion, a random start.

    Every centre has K kernels, of as many times; ``K = 1`` is the usual mixture. The metric must know its heat kernel,
    ``metric.log_heat_kernel(z, y, time)``: the sphere, hyperbolic space in all its charts, the flat torus, and each
    of them in other coordinates. The mass is 1 then, with respect to dz in
    the chart, up to what ``cutoff`` leaves out.

    Args:
        loc: centres :math:`\mu`, ``(n, d)``.
        time: times t, the variance of small steps, ``(n, K)`` or ``(K,)`` if all centres have the same.
        logits: unnormalised log weights, ``(n, K)``; minus infinity leaves a kernel out.
        metric: the Riemannian metric.
        cutoff: a kernel counts where :math:`l^2 / 2t` is below, and always at its own nearest points: in two
            dimensions a share :math:`e^{-18} = 2 \cdot 10^{-8}` of the mass is left out. Infinity leaves out nothing.
        validate_args: check arguments and values; Pyro's own setting if None.

    Raises:
        TypeError, ValueError: if the metric has no exact heat kernel, or naming the argument at fault.
        NotImplementedError: by :meth:`log_prob`, if the metric is another in other coordinates that has none.

    Source: Hsu (2002), *Stochastic Analysis on Manifolds*, section 4.1.

    Example:
        >>> from pyro_riemann import Sphere
        >>> centres = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        >>> law = HeatKernelMixture(centres, torch.tensor([0.01, 20.0]), torch.zeros(2, 2), Sphere(2))
        >>> law.log_prob(torch.zeros(3, 2)).shape, law.sample((5,)).shape
        (torch.Size([3]), torch.Size([5, 2]))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(
        self,
        loc: Tensor,
        time: Tensor,
        logits: Tensor,
        metric: RiemannianMetric,
        *,
        cutoff: float = 18.0,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(metric, RiemannianMetric):
            raise TypeError(f"`metric` must be a RiemannianMetric, got {type(metric).__name__}.")
        check_finite("loc", check_point("loc", loc, metric.dim))
        if loc.dim() != 2 or logits.dim() != 2 or len(logits) != len(loc):
            raise ValueError(
                f"`loc` must have shape (n, {metric.dim}) and `logits` (n, K), got {tuple(loc.shape)} and "
                f"{tuple(logits.shape)}."
            )
        if time.shape not in (logits.shape, logits.shape[1:]):
            raise ValueError(
                f"`time` must have shape {tuple(logits.shape)} or {tuple(logits.shape[1:])}, got {tuple(time.shape)}."
            )
        if cutoff <= 0:
            raise ValueError(f"`cutoff` must be positive, got {cutoff}.")
        self.loc, self.time = loc, check_positive("time", time).expand(logits.shape)
        try:
            with torch.no_grad():
                metric.log_heat_kernel(loc[:1], loc[:1], self.time[:1, 0])
        except NotImplementedError as error:
            raise TypeError(
                f"`metric` must know its exact heat kernel, as Sphere, Hyperbolic and FlatTorus do; got "
                f"{type(metric).__name__}."
            ) from error
        self.logits, self.metric, self.cutoff = logits, metric, cutoff
        super().__init__(torch.Size(), loc.shape[1:], validate_args=validate_args)

    @property
    def log_weights(self) -> Tensor:
        """Normalised log weights, ``(n, K)``."""
        return self.logits.flatten().log_softmax(0).view_as(self.logits)

    def expand(self, batch_shape: Any, _instance: Any = None) -> HeatKernelMixture:
        """The same mixture, independently for every entry of ``batch_shape``."""
        new: HeatKernelMixture = self._get_checked_instance(HeatKernelMixture, _instance)
        for name in ("loc", "time", "logits", "metric", "cutoff"):
            setattr(new, name, getattr(self, name))
        TorchDistribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self.__dict__.get("_validate_args")
        return new

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws ``(*sample_shape, *batch, d)`` by Brownian motion from the centres, without gradient."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            count = math.prod(shape[:-1])
            picked = torch.multinomial(self.log_weights.flatten().exp(), count, replacement=True)
            start = self.loc[picked // self.logits.shape[1]]
            draws: Tensor = RiemannianHeatKernel(start, self.time.flatten()[picked], self.metric).sample()
            return draws.reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density with respect to Lebesgue measure dz at ``value``, ``(*batch, d)``; shape ``(*batch)``.

        Kernels beyond ``cutoff`` only add to it, so that it is too small, if anything.

        Raises:
            TypeError, ValueError: if ``value`` is not a finite floating tensor of that shape.
            NotImplementedError: if the metric is another in other coordinates whose heat kernel is not known.
        """
        check_finite("value", check_point("value", value, self.metric.dim))
        points = value.reshape(-1, self.metric.dim)
        parts = [self._log_density(part) for part in points.split(ROWS)]
        density = torch.cat(parts) if parts else points.sum(-1)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return (density + 0.5 * self.metric.logdet(points)).reshape(value.shape[:-1]).expand(shape)

    def _log_density(self, z: Tensor) -> Tensor:
        """With respect to dM, of points ``(m, d)``."""
        log_weights = self.log_weights
        found = [(q, log_weights[i, k] + term) for k, q, i, term in self.terms(z)]
        where, terms = (torch.cat(part) for part in zip(*found, strict=True))
        top = torch.full_like(z[:, 0], -torch.inf).scatter_reduce(0, where, terms.detach(), "amax")
        return top + torch.zeros_like(top).index_add(0, where, (terms - top[where]).exp()).log()

    def terms(self, z: Tensor) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Log kernels of all pairs that count, with respect to dM, one time after the other.

        Args:
            z: points, ``(m, d)``.

        Yields:
            The index k of the time; of each pair the index of its point, ``(p,)``, and of its centre, ``(p,)``, and
            the logarithm of its kernel, ``(p,)``.
        """
        with torch.no_grad():
            used = self.logits > -torch.inf
            widest = self.time.masked_fill(~used, 0.0).amax(1)
            centres = used.any(1).nonzero().squeeze(-1)
            point, centre = pairs_within(z, self.loc[centres], 2 * self.cutoff * widest[centres], self.metric)
            closest = nearest(z, self.loc[centres], self.metric)
            # the nearest centre of each point comes first, and counts whatever its distance
            point = torch.cat([torch.arange(len(z), device=z.device), point])
            centre = centres[torch.cat([closest, centre])]
            first = torch.arange(len(point), device=z.device) < len(z)
            squared = self.metric.squared_dist(z[point], self.loc[centre])
            again = ~first & (centre == centres[closest][point])
        for k in range(self.logits.shape[1]):
            near = (squared < 2 * self.cutoff * self.time[:, k][centre]) | first
            near &= used[:, k][centre] & ~again
            q, i = point[near], centre[near]
            yield k, q, i, self.metric.log_heat_kernel(self.loc[i], z[q], self.time[:, k][i])


_PAIRS = 1 << 21  # distances at a time


def pairs_within(z: Tensor, centres: Tensor, squared: Tensor, metric: RiemannianMetric) -> tuple[Tensor, Tensor]:
    """Indices of points ``z (m, d)`` and of ``centres (n, d)`` no further apart than the root of ``squared (n,)``.

    A few pairs just beyond may come along.
    """
    if isinstance(metric, Sphere):
        angle = (squared.sqrt() / metric.radius).clamp(max=math.pi)
        chord = metric.radius * (2 * torch.sin(angle / 2) * (1 + 1e-9) + 1e-12)
        found = _tree(z, metric).query_ball_point(_ambient(centres, metric), _numpy(chord), return_sorted=False)
        sizes = np.fromiter(map(len, found), int, len(found))
        lists = [np.zeros(0, int), *(np.asarray(part, int) for part in found)]
        near = torch.from_numpy(np.concatenate(lists)), torch.from_numpy(np.repeat(np.arange(len(found)), sizes))
        return near[0].to(z.device), near[1].to(z.device)
    points, indices = [], []
    for start, part in _parts(z, len(centres)):
        point, centre = (metric.squared_dist(part[:, None], centres) <= squared).nonzero(as_tuple=True)
        points.append(point + start)
        indices.append(centre)
    return torch.cat(points), torch.cat(indices)


def nearest(z: Tensor, centres: Tensor, metric: RiemannianMetric, k: int = 1) -> Tensor:
    """Index of the k-th nearest of ``centres (n, d)`` to each of ``z (m, d)``, ``(m,)``."""
    if isinstance(metric, Sphere):
        index = _tree(centres, metric).query(_ambient(z, metric), k=[k])[1][:, 0]
        return torch.from_numpy(index).to(z.device)
    rows = (metric.squared_dist(part[:, None], centres) for _, part in _parts(z, len(centres)))
    return torch.cat([row.kthvalue(k).indices for row in rows])


def _parts(z: Tensor, width: int) -> Any:
    size = max(1, _PAIRS // width)
    return ((start, z[start : start + size]) for start in range(0, len(z), size))


def _tree(z: Tensor, metric: Sphere) -> Any:
    return scipy.spatial.cKDTree(_ambient(z, metric))


def _ambient(z: Tensor, metric: Sphere) -> Any:
    return _numpy(metric.to_ambient(z.detach().double()))


def _numpy(x: Tensor) -> Any:
    return x.detach().cpu().double().numpy()
