"""A tangent Gaussian carried to the manifold by the exponential map."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from pyro_riemann._formulas import densities
from pyro_riemann._formulas.tangent_rule import check_num_nodes
from pyro_riemann.distributions._base import RiemannianDistribution, Shape, broadcast_loc
from pyro_riemann.distributions._memo import state_version, wants_gradient
from pyro_riemann.distributions._tangent import chart_moments, is_closed_form, tangent_vectors
from pyro_riemann.metrics import RiemannianMetric


@dataclasses.dataclass
class _Draw:
    """How a draw came about: enough for its density without a boundary-value problem."""

    v: Tensor
    squared_noise: Tensor
    log_van_vleck: Tensor | None
    version: tuple[Any, ...] | None


class RiemannianWrappedNormal(RiemannianDistribution):
    r"""Law of :math:`z = \exp_\mu(v)` with :math:`v \sim N(0, t\,G(\mu)^{-1})`.

    .. math::
        \log p(z) = -\tfrac d2 \log(2\pi t) - \frac{\ell^2(z, \mu)}{2t} + \log V(z, \mu) + \tfrac12 \log\det G(z)

    with respect to Lebesgue measure dz in the chart; V is the Van Vleck-Morette determinant, the
    inverse Jacobian determinant of the exponential map. Exactly normalised, with exact, reparametrised draws.

    On a metric without closed forms the density of a draw of its own needs no boundary-value problem:
    :meth:`log_prob`, given the very tensor that :meth:`rsample` returned (as Pyro's ELBOs do), takes length and
    determinant from the tangent vector behind it. The gradient is then the total derivative along the
    draw's path. For the partial derivative at a fixed point pass another tensor, for
    instance ``z.detach()`` or ``z.clone()``.

    Past a cut locus the Gaussian folds over: :meth:`log_prob` counts the shortest geodesic to a point (the
    draw's own one, if it remembers it), not the mass of the folds. Keep ``time`` small against the square of the
    manifold's size.

    Args:
        loc: centre :math:`\mu`, ``(*batch, d)``.
        time: variance t of the tangent Gaussian, ``(*batch)``.
        metric: the Riemannian metric.
        validate_args: check arguments and values; Pyro's own setting if None.

    Raises:
        TypeError, ValueError: naming the argument at fault; also by methods, if a value is not a finite tensor like
            ``loc``, or a geodesic leaves the reals.

    Source: Nagano et al. (2019), *A wrapped normal distribution on hyperbolic space for gradient-based learning*,
    section 3; here for any metric.

    Example:
        >>> from pyro_riemann import EuclideanMetric, RiemannianWrappedNormal
        >>> q = RiemannianWrappedNormal(torch.zeros(2), 0.5, EuclideanMetric(2))
        >>> z = q.rsample()
        >>> bool(torch.isclose(q.log_prob(z), q.log_prob(z.clone())))
        True
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real_vector, "time": constraints.positive}
    has_rsample = True

    def __init__(
        self, loc: Tensor, time: Tensor | float, metric: RiemannianMetric, *, validate_args: bool | None = None
    ) -> None:
        self.loc, self.time = broadcast_loc(loc, "time", time, metric)
        super().__init__(metric, self.loc, validate_args)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Exact draws ``(*sample_shape, *batch, d)``; pathwise gradients in loc, time and the metric's parameters."""
        shape = self._extended_shape(sample_shape)
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        v = tangent_vectors(self.metric, self.loc, self.time, noise)
        log_van_vleck = None
        if torch.is_grad_enabled():  # a guide's draw: its density is asked for next
            z, log_van_vleck = self.metric.expmap_log_van_vleck(self.loc.expand_as(v), v)
        else:
            z = self.metric.expmap(self.loc.expand_as(v), v)
        if not z.is_inference() and not is_closed_form(self.metric):
            # keyed by the tensor itself and weakly: an entry dies with its draw and holds no graph beyond it
            draws = self.__dict__.setdefault("_draws", WeakIdKeyDictionary())
            draws[z] = _Draw(
                v, noise.square().sum(-1), log_van_vleck, state_version(self.metric, z, self.loc, self.time)
            )
        return z

    def rsample_with_log_prob(self, sample_shape: Shape = ()) -> tuple[Tensor, Tensor]:
        """Draws ``(*sample_shape, *batch, d)`` and their log density in dz, ``(*sample_shape, *batch)``.

        No boundary-value problem is solved.
        """
        z = self.rsample(sample_shape)
        return z, self.log_prob(z)

    @property
    def mean(self) -> Tensor:
        """Euclidean mean in the chart, ``(*batch, d)``, by quadrature in the tangent space."""
        return chart_moments(self.metric, self.loc, self.time, check_num_nodes(None, self.metric.dim), power=0.0)[0]

    @property
    def variance(self) -> Tensor:
        """Euclidean variance of each coordinate of the chart, ``(*batch, d)``, like :attr:`mean`."""
        return chart_moments(self.metric, self.loc, self.time, check_num_nodes(None, self.metric.dim), power=0.0)[1]

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density with respect to Lebesgue measure dz at ``value``, ``(*batch, d)``; shape ``(*batch)``.

        Of a draw of its own, without a boundary-value problem: see above.
        """
        if self._validate_args:
            self._validate_sample(value)
        z, loc = torch.broadcast_tensors(value, self.loc)
        draw = self._recall(value)
        if draw is None:
            log_van_vleck = self.metric.log_van_vleck(loc, z)
            squared = self.metric.squared_dist(loc, z)
        else:
            squared = self.time * draw.squared_noise
            if draw.log_van_vleck is None:
                draw.log_van_vleck = self.metric.expmap_log_van_vleck(loc, draw.v)[1]
            log_van_vleck = draw.log_van_vleck
        log_prob: Tensor = densities.short_time(torch, self.metric.dim, self.time, squared, self.metric.logdet(value))
        return log_prob + log_van_vleck

    def _recall(self, value: Tensor) -> _Draw | None:
        """The record behind ``value`` if it is an untouched draw of this very distribution."""
        draw = self.__dict__.get("_draws", {}).get(value) if isinstance(value, Tensor) else None
        if draw is None or draw.version != state_version(self.metric, value, self.loc, self.time):
            return None
        if value.grad_fn is None and (
            value.requires_grad or wants_gradient(self.metric, self.loc, self.loc, self.time)
        ):
            return None  # a detached draw: gradients at a fixed point are wanted
        return draw

    def __getstate__(self) -> dict[str, Any]:
        return {name: entry for name, entry in self.__dict__.items() if name != "_draws"}
