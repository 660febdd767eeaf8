"""The uniform law of a Riemannian manifold on a box of the chart."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from torch import Tensor

from pyro_riemann._box import check_box, check_metric
from pyro_riemann._estimate import Estimate
from pyro_riemann._memo import untraced, wants_gradient
from pyro_riemann._vmap import outside_vmap
from pyro_riemann.distributions._base import RiemannianDistribution, Shape
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.sampling import BoxLaw, SamplerReport

_BUDGET = 2**19


class RiemannianUniform(RiemannianDistribution):
    r"""Uniform distribution of a Riemannian manifold on the box ``low <= z <= high`` of the chart.

    Its density with respect to Lebesgue measure dz is

    .. math:: p(z) = \sqrt{\det G(z)} / \mathrm{Vol}, \qquad \mathrm{Vol} = \int_{low}^{high} \sqrt{\det G}\, dz,

    constant with respect to the Riemannian measure dM. On all of :math:`\mathbb{R}^d` the volume of most
    latent metrics is infinite and the law improper, so that a box is required; NUTS and HMC
    are mapped into it.

    The volume and the sampler are set up at the first use and kept for as long as the metric is
    unchanged, also when a model builds the distribution anew on every call. The set-up is
    deterministic and leaves the global random state alone.

    ============================== =============================================== =================================
    metric                         volume                                          draws
    ============================== =============================================== =================================
    constant                       closed form                                     uniform
    d <= 2, resolved by a table    Gauss-Legendre quadrature on a grid of cells    rejection from a step function
    others                         importance sampling from a Gaussian mixture     independence Metropolis, then HMC
    where no mixture fits          a tempered sequence of particle populations     a particle, moved by HMC
    ============================== =============================================== =================================

    The mixture has a Gaussian for each of the bumps of the volume that the metric knows of (``metric.peaks()``) and
    for those that climbs of :math:`\log\det G` from two thousand points of the box find. Where the metric knows of none
    and d > 2, volume that no climb found is not counted; ``reports`` says so. The volume is computed by two routes:
    where they differ by more than their own errors explain, that difference is the error, and a warning
    says so.

    :func:`pyro_riemann.sampling.sample_uniform` draws from the same law with a choice of samplers and their
    diagnostics.

    Args:
        metric: the metric; gradients flow to its parameters.
        low: lower corner ``(*batch, d)`` or a number, finite.
        high: upper corner ``(*batch, d)`` or a number, finite and above ``low``.
        max_points: points at which the sequence evaluates the metric at most, where no mixture fits.
        validate_args: check arguments and values; Pyro's own setting if None.

    Raises:
        ValueError: if a bound is missing, infinite, NaN, of the wrong shape, or ``low >= high``.
        TypeError: if ``metric`` is no metric.
        RuntimeError: by methods, if two hundred temperatures are not enough for a tempered sequence.
        TypeError, ValueError: by methods, if a value is not a finite tensor like ``low``, or the box leaves the chart.

    Source: Chadebec & Allassonniere (2022), section 4.4, where the set is bounded but not named.

    Example:
        >>> from pyro_riemann import EuclideanMetric, RiemannianUniform
        >>> prior = RiemannianUniform(EuclideanMetric(2), low=-1.0, high=1.0)
        >>> prior.log_prob(torch.zeros(2)).exp()
        tensor(0.2500)
        >>> prior.sample((5,)).shape
        torch.Size([5, 2])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"low": constraints.real_vector, "high": constraints.real_vector}
    has_rsample = False

    _settings = ("max_points",)

    def __init__(
        self,
        metric: RiemannianMetric,
        low: Tensor | float,
        high: Tensor | float,
        *,
        max_points: int = _BUDGET,
        validate_args: bool | None = None,
    ) -> None:
        self.max_points = max_points
        low, high = check_box(check_metric(metric), low, high)
        self.low, self.high = torch.broadcast_tensors(low, high)
        super().__init__(metric, self.low, validate_args)

    @classmethod
    def infer_shapes(cls, **arg_shapes: Shape) -> tuple[torch.Size, torch.Size]:
        """Batch and event shape from the shapes of the bounds, of which one must be a tensor.

        Args:
            **arg_shapes: shapes of ``low`` and ``high``; a number has the shape ``()``.
        """
        shape = torch.broadcast_shapes(arg_shapes.get("low", ()), arg_shapes.get("high", ()))
        return shape[:-1], shape[-1:]

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """The box, which ``biject_to`` maps to all of R^d."""
        return constraints.independent(constraints.interval(self.low, self.high), 1)

    # ---------------------------------------------------------------- density

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density with respect to Lebesgue measure dz at ``value``, ``(*batch, d)``.

        The shape is ``(*batch)``; ``-inf`` outside the box.
        """
        if self._validate_args:
            self._validate_sample(value)
        inside = ((value >= self.low) & (value <= self.high)).all(-1)
        # outside the box the metric need not be defined; the masked point keeps NaN out of gradients
        point = torch.where(inside.unsqueeze(-1), value, (self.low + self.high) / 2)
        log_density = 0.5 * self.metric.logdet(point) - self.log_volume().value
        return log_density.masked_fill(~inside, -torch.inf)

    def log_volume(self) -> Estimate:
        """Log of the Riemannian volume of the box and its error, each ``(*batch)``.

        The value is computed once and kept. It is differentiable in whatever the metric depends on, and in the
        bounds: the gradient is that of the kept quadrature or importance rule. The error is 0 for a constant
        metric alone.
        """
        if not self.low.numel():
            return Estimate(self.low.sum(-1), self.low.sum(-1))
        corners, laws, index = self._laws()
        values, errors = (torch.stack(parts)[index] for parts in zip(*(law.log_volume for law in laws), strict=True))
        bounds = [bound for bound in (self.low, self.high) if bound.requires_grad]
        if wants_gradient(self.metric, corners[0][0], *bounds):
            if bounds:
                low, high = (bound.reshape(-1, self.event_shape[0]) for bound in (self.low, self.high))
                pieces = [self._shift(laws[k], *ends) for k, *ends in zip(index.flatten(), low, high, strict=True)]
                values = values + torch.stack(pieces).reshape(values.shape)
            else:
                pieces = [self._shift(law, *ends) for law, ends in zip(laws, corners, strict=True)]
                values = values + torch.stack(pieces)[index]
        return Estimate(values, errors)

    def _shift(self, law: BoxLaw, low: Tensor, high: Tensor) -> Tensor:
        """Change of the log volume since the law was set up: 0 now, with its gradient, and live in a trace.

        Nodes move with the box and keep their weights, so this is the kept rule at other parameters.
        """
        nodes, weights = law.nodes, law.weights

        def log_measure() -> Tensor:
            unit = (nodes - low.detach()) / (high - low).detach()
            return 0.5 * self.metric.logdet(low + (high - low) * unit) + (high - low).log().sum()

        now = log_measure()
        if torch.jit.is_tracing():  # detached it would be recorded, and cancel for ever
            with torch.no_grad(), untraced():
                start = log_measure()
        else:
            start = now.detach()
        shift = (weights.log() + now - start).logsumexp(0) - weights.sum().log()
        return shift if torch.jit.is_tracing() else shift - shift.detach()  # the same value in every grad mode

    @property
    def mean(self) -> Tensor:
        """Euclidean mean in the chart, ``(*batch, d)``, by the rule that gives the volume."""
        _, laws, index = self._laws()
        return torch.stack([law.weights @ law.nodes for law in laws])[index]

    @property
    def variance(self) -> Tensor:
        """Euclidean variance of each coordinate of the chart, ``(*batch, d)``."""
        _, laws, index = self._laws()
        return torch.stack([law.weights @ (law.nodes - law.weights @ law.nodes).square() for law in laws])[index]

    # ---------------------------------------------------------------- draws

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draws ``(*sample_shape, *batch, d)``, without gradient."""
        shape = self._extended_shape(torch.Size(sample_shape))
        if not shape.numel():
            return self.low.new_empty(shape)
        with torch.no_grad(), untraced():
            _, laws, index = self._laws()
            index = index.expand(shape[:-1])
            draws = self.low.new_empty(shape)
            for k, law in enumerate(laws):
                chosen = index == k
                draws[chosen] = law.draw(int(chosen.sum())).to(draws)
        return draws

    @property
    def efficiency(self) -> Tensor:
        """Efficiency of the sampler in (0, 1], ``(*batch)``; see :attr:`reports`."""
        _, laws, index = self._laws()
        return self.low.new_tensor([law.report.efficiency for law in laws])[index]

    @property
    def reports(self) -> tuple[SamplerReport, ...]:
        """What the sampler is and how well it works, for each different box of the batch."""
        return tuple(law.report for law in self._laws()[1])

    # ---------------------------------------------------------------- set-up

    def _laws(self) -> tuple[list[tuple[Tensor, Tensor]], list[BoxLaw], Tensor]:
        """The different boxes of the batch, their laws, and which box each batch element has."""
        with torch.no_grad(), untraced(), outside_vmap(self.low, self.high):
            dim = self.event_shape[0]
            boxes = torch.cat([self.low, self.high], dim=-1).detach().reshape(-1, 2 * dim)
            boxes, index = boxes.unique(dim=0, return_inverse=True)
            laws = BoxLaw.of_boxes(self.metric, boxes, self.max_points)
            return [(box[:dim], box[dim:]) for box in boxes], laws, index.reshape(self.batch_shape)

    def share_on_floor(self, draws: Tensor) -> Tensor:
        r"""Share of ``draws`` ``(..., d)`` where the metric is only what keeps it from being singular: in the void.

        That is the floor :math:`\lambda I` of a ``KernelMetric``, the jitter of a ``PullbackMetric``.

        Raises:
            TypeError: if the metric has no floor.
        """
        flat = self.metric.on_floor(draws)
        if flat is None:
            raise TypeError(
                "`share_on_floor` needs a metric with a floor, such as a KernelMetric or a PullbackMetric with jitter, "
                f"not a {type(self.metric).__name__}."
            )
        return flat.to(draws.dtype).mean()
